// MlaProblem: one MLA block with weights of its own and a sequence of inputs, for tests that call mla_attention.
#pragma once

#include <vector>

#include "lathe/attention/mla.h"
#include "support/kernels.h"
#include "support/paged_cache.h"

namespace lathe::testing {

// Values of MlaWeights' members; empty ones are absent.
struct MlaTensors {
  std::vector<float> q_proj, q_a_proj, q_b_proj, kv_a_proj_with_mqa, kv_b_proj, o_proj;
  std::vector<float> q_a_layernorm, kv_a_layernorm;
  std::vector<float> q_proj_bias, q_a_proj_bias, q_b_proj_bias, kv_a_proj_bias, o_proj_bias;

  // Borrows from this object.
  MlaWeights weights(const MlaShape& s) const {
    const auto matrix = [](const std::vector<float>& values, int64_t rows, int64_t cols) {
      return values.empty() ? WeightMatrix{} : matrix_of(values, rows, cols);
    };
    const auto vector = [](const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); };
    return {.q_proj = matrix(q_proj, s.num_heads * s.qk_head_dim(), s.hidden_size),
            .q_a_proj = matrix(q_a_proj, s.q_lora_rank, s.hidden_size),
            .q_b_proj = matrix(q_b_proj, s.num_heads * s.qk_head_dim(), s.q_lora_rank),
            .kv_a_proj_with_mqa = matrix(kv_a_proj_with_mqa, s.cache_row(), s.hidden_size),
            .kv_b_proj = matrix(kv_b_proj, s.num_heads * (s.qk_nope_head_dim + s.v_head_dim), s.kv_lora_rank),
            .o_proj = matrix(o_proj, s.hidden_size, s.num_heads * s.v_head_dim),
            .q_a_layernorm = vector(q_a_layernorm),
            .kv_a_layernorm = vector(kv_a_layernorm),
            .q_proj_bias = vector(q_proj_bias),
            .q_a_proj_bias = vector(q_a_proj_bias),
            .q_b_proj_bias = vector(q_b_proj_bias),
            .kv_a_proj_bias = vector(kv_a_proj_bias),
            .o_proj_bias = vector(o_proj_bias)};
  }
};

struct MlaProblem {
  MlaShape shape;
  RopeParameters rope;
  MlaTensors tensors;
  std::vector<float> x;  // [T, d]

  int64_t tokens() const { return static_cast<int64_t>(x.size()) / shape.hidden_size; }
};

struct MlaOptions {
  bool norms = true;
  bool biases = false;
};

// Random weights of a scale that keeps scores of order one, and inputs for `tokens` positions.
inline MlaProblem random_mla(const MlaShape& shape, int64_t tokens, uint64_t seed, const MlaOptions& options = {}) {
  Rng rng(seed);
  const auto matrix = [&](int64_t rows, int64_t cols) {
    return random_floats(rng, rows * cols, 1.0 / std::sqrt(static_cast<double>(cols)));
  };
  const auto norm = [&](int64_t n) {
    std::vector<float> values = random_floats(rng, options.norms ? n : 0, 0.2);
    for (float& v : values) v += 1.0F;
    return values;
  };
  const auto bias = [&](int64_t n) { return random_floats(rng, options.biases ? n : 0, 0.3); };
  const int64_t q_rows = shape.num_heads * shape.qk_head_dim();
  MlaProblem p{.shape = shape, .rope = {.dim = shape.qk_rope_head_dim, .theta = 100.0}, .tensors = {}, .x = {}};
  MlaTensors& w = p.tensors;
  if (shape.q_lora_rank > 0) {
    w.q_a_proj = matrix(shape.q_lora_rank, shape.hidden_size);
    w.q_a_proj_bias = bias(shape.q_lora_rank);
    w.q_a_layernorm = norm(shape.q_lora_rank);
    w.q_b_proj = matrix(q_rows, shape.q_lora_rank);
    w.q_b_proj_bias = bias(q_rows);
  } else {
    w.q_proj = matrix(q_rows, shape.hidden_size);
    w.q_proj_bias = bias(q_rows);
  }
  w.kv_a_proj_with_mqa = matrix(shape.cache_row(), shape.hidden_size);
  w.kv_a_proj_bias = bias(shape.cache_row());
  w.kv_a_layernorm = norm(shape.kv_lora_rank);
  w.kv_b_proj = matrix(shape.num_heads * (shape.qk_nope_head_dim + shape.v_head_dim), shape.kv_lora_rank);
  w.o_proj = matrix(shape.hidden_size, shape.num_heads * shape.v_head_dim);
  w.o_proj_bias = bias(shape.hidden_size);
  p.x = random_floats(rng, tokens * shape.hidden_size);
  return p;
}

struct MlaRun {
  int64_t expanded_until = 0;
  int64_t chunk = 1 << 20;  // tokens per call
  int threads = 1;
  CacheFormat cache_type = CacheFormat::kF32;
  uint64_t page_order = 0;
  const KernelTable* kernels = nullptr;
};

// The block's output [T, d] for the whole sequence. `cached` (may be null) receives the cache rows [T, r + d_r].
inline std::vector<float> run_mla(const MlaProblem& p, const MlaRun& how = {}, std::vector<float>* cached = nullptr) {
  const MlaShape& s = p.shape;
  const MlaWeights weights = p.tensors.weights(s);
  PagedCache cache(how.cache_type, s.cache_row(), p.tokens(), how.page_order);
  CpuBench bench(how.threads,
                 mla_scratch_floats(s, std::min(how.chunk, p.tokens()), how.threads),
                 how.kernels != nullptr ? *how.kernels : lathe::kernels());
  const RopeTable table = RopeTable::make(p.rope);
  std::vector<float> out(p.x.size(), std::nanf(""));
  for (int64_t begin = 0; begin < p.tokens(); begin += how.chunk) {
    const int64_t tokens = std::min(how.chunk, p.tokens() - begin);
    std::vector<float> cos(static_cast<size_t>(tokens * table.pairs()));
    std::vector<float> sin(cos.size());
    table.cos_sin_range(begin, tokens, cos, sin);
    const AttentionSegment segment{.first_row = 0,
                                   .tokens = tokens,
                                   .position = begin,
                                   .expanded_until = how.expanded_until,
                                   .cache = cache.view()};
    mla_attention(bench.context(),
                  {.weights = weights,
                   .shape = s,
                   .segments = {&segment, 1},
                   .tokens = tokens,
                   .x = p.x.data() + begin * s.hidden_size,
                   .rope_cos = cos.data(),
                   .rope_sin = sin.data(),
                   .out = out.data() + begin * s.hidden_size});
  }
  if (cached != nullptr) {
    cached->clear();
    for (int64_t t = 0; t < p.tokens(); ++t) {
      const std::vector<float> row = cache.load(t);
      cached->insert(cached->end(), row.begin(), row.end());
    }
  }
  return out;
}

}  // namespace lathe::testing
