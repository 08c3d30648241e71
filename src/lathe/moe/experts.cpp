// Shape letters: T tokens, D hidden, E experts, K chosen, A = T * K assignments sorted by expert, F expert width.
#include "lathe/moe/experts.h"

#include <algorithm>
#include <cstring>

#include "lathe/tensor/blocks.h"

namespace lathe {

namespace {

struct Routing {
  int32_t* experts_TK;  // ascending per token
  float* weights_TK;
  int32_t* slot_TK;  // row of the assignment in expert order
  int32_t* token_A;  // token of each row in expert order
  int32_t* begin_E;  // [E + 1] first row of each expert
};

// Router logits (Eq. 22), scores, selection; then a counting sort of the assignments by expert.
void route(const CpuContext& cpu,
           const MoeWeights& weights,
           const MoeShape& shape,
           const float* x,
           int64_t tokens,
           const Routing& out) {
  const GateShape& gate = shape.gate;
  const int64_t experts = gate.n_routed_experts;
  const int64_t k = gate.num_experts_per_tok;
  const Workspace::Scope scope(cpu.workspace);
  float* logits_TE = cpu.workspace.take(tokens * experts);
  float* biased_TE = cpu.workspace.take(tokens * experts);
  linear(cpu, weights.gate, nullptr, x, tokens, logits_TE);
  cpu.pool.run(tokens, std::max<int64_t>(1, 2048 / experts), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const std::span<float> scores_E(logits_TE + t * experts, static_cast<size_t>(experts));
      gate_scores(gate.scoring_func, scores_E);
      select_experts(gate,
                     scores_E,
                     weights.e_score_correction_bias,
                     {biased_TE + t * experts, static_cast<size_t>(experts)},
                     {out.experts_TK + t * k, static_cast<size_t>(k)},
                     {out.weights_TK + t * k, static_cast<size_t>(k)});
    }
  });
  std::fill_n(out.begin_E, experts + 1, 0);
  for (int64_t i = 0; i < tokens * k; ++i) ++out.begin_E[out.experts_TK[i] + 1];
  for (int64_t e = 0; e < experts; ++e) out.begin_E[e + 1] += out.begin_E[e];
  // Fill: begin_E[e] moves to the end of e, which is the beginning of e + 1; shift back afterwards.
  for (int64_t i = 0; i < tokens * k; ++i) {
    const int32_t slot = out.begin_E[out.experts_TK[i]]++;
    out.slot_TK[i] = slot;
    out.token_A[slot] = static_cast<int32_t>(i / k);
  }
  for (int64_t e = experts; e > 0; --e) out.begin_E[e] = out.begin_E[e - 1];
  out.begin_E[0] = 0;
}

// The widths that are quantised: inputs and SwiGLU outputs, where whole blocks.
int64_t quantisable_floats(int64_t rows, int64_t cols) {
  return cols % kBlock == 0 ? quantised_floats(rows, cols) : 0;
}

// Rows of one SwiGLU's outputs, and their int8 twin where W_down is packed.
struct HiddenRows {
  float* gate = nullptr;  // becomes silu(gate) * up
  float* up = nullptr;
  QuantisedRows quantised;
};

HiddenRows take_hidden(Workspace& workspace, const WeightMatrix& down, int64_t rows) {
  HiddenRows out{.gate = workspace.take(rows * down.cols), .up = workspace.take(rows * down.cols), .quantised = {}};
  if (down.packed) out.quantised = take_quantised(workspace, rows, down.cols);
  return out;
}

// Rows [first, ...) of hidden rows `width` wide.
HiddenRows hidden_from(const HiddenRows& rows, int64_t first, int64_t width) {
  HiddenRows out{.gate = rows.gate + first * width, .up = rows.up + first * width, .quantised = {}};
  if (rows.quantised.data != nullptr) out.quantised = rows_from(rows.quantised, first);
  return out;
}

// The two products of one SwiGLU, as jobs of two parallel regions.
struct SwigluJobs {
  GatedJob gated;
  LinearJob down;
};

// Input rows: x as fp32 where the weights are plain; `quantised` (row x_rows[t] or t) where they are packed.
SwigluJobs swiglu_jobs(const SwigluWeights& w,
                       const float* x,
                       const QuantisedRows& quantised,
                       const int32_t* x_rows,
                       int64_t tokens,
                       const HiddenRows& hidden,
                       float* y) {
  return {.gated = {.gate = w.gate_proj,
                    .up = w.up_proj,
                    .x = x,
                    .quantised = quantised,
                    .x_rows = x_rows,
                    .tokens = tokens,
                    .out = hidden.gate,
                    .up_scratch = hidden.up,
                    .out_quantised = hidden.quantised},
          .down = {.w = w.down_proj,
                   .x = hidden.gate,
                   .quantised = hidden.quantised,
                   .x_rows = nullptr,
                   .tokens = tokens,
                   .y = y,
                   .y_stride = w.down_proj.rows}};
}

}  // namespace

int64_t moe_scratch_floats(const MoeShape& s, int64_t tokens) {
  const auto padded = Workspace::padded;
  const int64_t experts = s.gate.n_routed_experts;
  const int64_t rows = tokens * s.gate.num_experts_per_tok;
  const int64_t routing = 4 * padded(rows) + padded(experts + 1);
  const int64_t router = 2 * padded(tokens * experts) + quantisable_floats(tokens, s.hidden_size);
  const int64_t jobs = padded((experts + 1) * static_cast<int64_t>(sizeof(GatedJob)) / 4 + 1) +
                       padded((experts + 1) * static_cast<int64_t>(sizeof(LinearJob)) / 4 + 1);
  const int64_t routed = 2 * padded(rows * s.hidden_size) + 2 * padded(rows * s.moe_intermediate_size) +
                         quantisable_floats(rows, s.moe_intermediate_size);
  const int64_t shared =
      2 * padded(tokens * s.shared_intermediate_size) + quantisable_floats(tokens, s.shared_intermediate_size);
  return routing + std::max(router, jobs + routed + shared + quantisable_floats(tokens, s.hidden_size));
}

void moe_forward(const CpuContext& cpu,
                 const MoeWeights& weights,
                 const MoeShape& s,
                 const float* x,
                 int64_t tokens,
                 float* out,
                 RoutingTrace trace) {
  const int64_t experts = s.gate.n_routed_experts;
  const int64_t k = s.gate.num_experts_per_tok;
  const int64_t rows = tokens * k;
  const int64_t d = s.hidden_size;
  const int64_t f = s.moe_intermediate_size;
  Workspace& workspace = cpu.workspace;
  const Workspace::Scope scope(workspace);
  const Routing routing{workspace.take_as<int32_t>(rows),
                        workspace.take(rows),
                        workspace.take_as<int32_t>(rows),
                        workspace.take_as<int32_t>(rows),
                        workspace.take_as<int32_t>(experts + 1)};
  route(cpu, weights, s, x, tokens, routing);
  if (trace.experts_TK != nullptr) {
    std::copy_n(routing.experts_TK, rows, trace.experts_TK);
    std::copy_n(routing.weights_TK, rows, trace.weights_TK);
  }

  // All routed experts of a layer are stored alike, so the first one tells how.
  const SwigluWeights& some = weights.experts.front();
  const bool has_shared = !weights.shared.gate_proj.empty();
  auto* gated = workspace.take_as<GatedJob>(experts + 1);
  auto* down = workspace.take_as<LinearJob>(experts + 1);
  float* y_AD = workspace.take(rows * d);
  const HiddenRows h_AF = take_hidden(workspace, some.down_proj, rows);
  HiddenRows h_shared;
  if (has_shared) h_shared = take_hidden(workspace, weights.shared.down_proj, tokens);
  QuantisedRows quantised;
  if (some.gate_proj.packed || (has_shared && weights.shared.gate_proj.packed)) {
    quantised = quantise_activations(cpu, x, tokens, d);
  }
  float* x_AD = nullptr;  // inputs in expert order; packed products pick their rows themselves
  if (!some.gate_proj.packed) {
    x_AD = workspace.take(rows * d);
    cpu.pool.run(rows, std::max<int64_t>(1, 16384 / d), [&](int64_t begin, int64_t end, int) {
      for (int64_t a = begin; a < end; ++a) {
        std::memcpy(x_AD + a * d, x + routing.token_A[a] * d, static_cast<size_t>(d) * sizeof(float));
      }
    });
  }

  // One work list: the shared experts as one wider SwiGLU (unscaled: trap T7), then every expert that has tokens.
  size_t jobs = 0;
  const auto add = [&](const SwigluJobs& both) {
    gated[jobs] = both.gated;
    down[jobs] = both.down;
    ++jobs;
  };
  if (has_shared) add(swiglu_jobs(weights.shared, x, quantised, nullptr, tokens, h_shared, out));
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t first = routing.begin_E[e];
    const int64_t count = routing.begin_E[e + 1] - first;
    if (count == 0) continue;
    add(swiglu_jobs(weights.experts[static_cast<size_t>(e)],
                    x_AD != nullptr ? x_AD + first * d : nullptr,
                    quantised,
                    routing.token_A + first,
                    count,
                    hidden_from(h_AF, first, f),
                    y_AD + first * d));
  }
  run_gated(cpu, {gated, jobs});
  run_jobs(cpu, {down, jobs});

  // Each expert's output is weighted after W_down and summed in fp32 (trap T21), in ascending id.
  cpu.pool.run(tokens, std::max<int64_t>(1, 16384 / (d * k)), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* out_D = out + t * d;
      if (!has_shared) std::fill_n(out_D, d, 0.0F);
      for (int64_t i = t * k; i < (t + 1) * k; ++i) {
        cpu.kernels.axpy(out_D, routing.weights_TK[i], y_AD + routing.slot_TK[i] * d, d);
      }
    }
  });
}

int64_t swiglu_scratch_floats(int64_t hidden_size, int64_t width, int64_t tokens) {
  return 2 * Workspace::padded(tokens * width) + quantisable_floats(tokens, width) +
         quantisable_floats(tokens, hidden_size);
}

void swiglu_forward(const CpuContext& cpu, const SwigluWeights& weights, const float* x, int64_t tokens, float* out) {
  const Workspace::Scope scope(cpu.workspace);
  const HiddenRows hidden = take_hidden(cpu.workspace, weights.down_proj, tokens);
  QuantisedRows quantised;
  if (weights.gate_proj.packed) quantised = quantise_activations(cpu, x, tokens, weights.gate_proj.cols);
  const SwigluJobs jobs = swiglu_jobs(weights, x, quantised, nullptr, tokens, hidden, out);
  run_gated(cpu, {&jobs.gated, 1});
  run_jobs(cpu, {&jobs.down, 1});
}

}  // namespace lathe
