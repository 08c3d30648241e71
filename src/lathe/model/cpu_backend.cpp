#include "lathe/model/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "lathe/base/check.h"
#include "lathe/model/config_rope.h"
#include "lathe/tensor/blocks.h"

namespace lathe {

namespace {

class CpuActivations final : public Activations {
 public:
  explicit CpuActivations(Workspace memory, int64_t floats) : memory_(std::move(memory)), data_(memory_.take(floats)) {}

  float* data() const { return data_; }

 private:
  Workspace memory_;
  float* data_;
};

float* data_of(const Activations& x) {
  return static_cast<const CpuActivations&>(x).data();
}

}  // namespace

CpuBackend::CpuBackend(const ModelWeights& weights,
                       const CacheLayout& cache,
                       ThreadPool& pool,
                       const KernelTable& kernels,
                       int64_t max_tokens)
    : weights_(weights),
      cache_(cache),
      pool_(pool),
      kernels_(kernels),
      max_tokens_(max_tokens),
      mla_(mla_shape(weights.config())),
      gqa_(gqa_shape(weights.config())),
      moe_(moe_shape(weights.config())),
      rope_(RopeTable::make(rope_parameters(weights.config()))) {}

int64_t CpuBackend::scratch_floats(const ModelConfig& c, int64_t max_tokens, int threads, MtpLayer mtp) {
  const int64_t attention = c.attention == AttentionKind::kMla ? mla_scratch_floats(mla_shape(c), max_tokens, threads)
                                                               : gqa_scratch_floats(gqa_shape(c), max_tokens, threads);
  const int64_t moe = c.n_routed_experts > 0 ? moe_scratch_floats(moe_shape(c), max_tokens) : 0;
  const bool has_dense = c.n_routed_experts == 0 || c.first_k_dense_replace > 0 || c.moe_layer_freq > 1;
  const int64_t dense = has_dense ? swiglu_scratch_floats(c.hidden_size, c.intermediate_size, max_tokens) : 0;
  const int64_t head = 2 * Workspace::padded(max_tokens * c.hidden_size);
  // Inside attention and head, one product at a time may need its input quantised.
  const int64_t heads =
      c.attention == AttentionKind::kMla ? c.num_attention_heads * c.v_head_dim : c.num_attention_heads * c.head_dim;
  const int64_t widest = std::max({c.hidden_size, heads, c.q_lora_rank}) + kBlock;
  const int64_t quantised = quantised_floats(max_tokens, widest / kBlock * kBlock);
  // [RMSNorm(e); RMSNorm(h)] of the multi-token prediction layer.
  const int64_t joined = mtp == MtpLayer::kUse ? Workspace::padded(max_tokens * 2 * c.hidden_size) +
                                                     quantised_floats(max_tokens, 2 * c.hidden_size / kBlock * kBlock)
                                               : 0;
  return std::max({attention + quantised, moe, dense, head + quantised, joined}) + Workspace::padded(1);
}

int64_t CpuBackend::total_floats(const ModelConfig& c, int64_t max_tokens, int threads, MtpLayer mtp) {
  const int64_t rows = mtp == MtpLayer::kUse ? 5 : 3;
  return scratch_floats(c, max_tokens, threads, mtp) + rows * Workspace::padded(max_tokens * c.hidden_size) +
         c.vocab_size;
}

Result<std::unique_ptr<CpuBackend>> CpuBackend::create(const ModelWeights& weights,
                                                       const CacheLayout& cache,
                                                       ThreadPool& pool,
                                                       const KernelTable& kernels,
                                                       int64_t max_tokens) {
  std::unique_ptr<CpuBackend> backend(new CpuBackend(weights, cache, pool, kernels, max_tokens));
  const MtpLayer mtp = weights.mtp() != nullptr ? MtpLayer::kUse : MtpLayer::kSkip;
  LATHE_TRY(backend->workspace_, Workspace::create(scratch_floats(weights.config(), max_tokens, pool.threads(), mtp)));
  const auto rope_floats = static_cast<size_t>(max_tokens * backend->rope_.pairs());
  backend->rope_cos_.resize(rope_floats);
  backend->rope_sin_.resize(rope_floats);
  return backend;
}

Result<std::unique_ptr<Activations>> CpuBackend::allocate() {
  const int64_t floats = max_tokens_ * weights_.config().hidden_size;
  LATHE_TRY(Workspace memory, Workspace::create(Workspace::padded(floats)));
  return std::unique_ptr<Activations>(std::make_unique<CpuActivations>(std::move(memory), floats));
}

void CpuBackend::begin_step(const Step& step) {
  begin(step, 0);
}

void CpuBackend::begin_mtp(const Step& step, const float* hidden) {
  LATHE_CHECK(weights_.mtp() != nullptr && hidden != nullptr);
  begin(step, 1);
  hidden_ = hidden;
}

void CpuBackend::begin(const Step& step, int64_t first_key) {
  step_ = &step;
  tokens_ = static_cast<int64_t>(step.token_ids.size());
  segments_.clear();
  const int64_t pairs = rope_.pairs();
  for (const SequenceChunk& chunk : step.chunks) {
    segments_.push_back(
        {.first_row = chunk.first_row,
         .tokens = chunk.tokens,
         .position = chunk.position,
         .expanded_until = chunk.expanded_until,
         .first_key = first_key,
         .cache = {
             .format = cache_.format, .row_elements = cache_.row_elements, .pages = chunk.pages, .layer_offset = 0}});
    const auto rows = static_cast<size_t>(chunk.tokens * pairs);
    rope_.cos_sin_range(chunk.position,
                        chunk.tokens,
                        std::span(rope_cos_).subspan(static_cast<size_t>(chunk.first_row * pairs), rows),
                        std::span(rope_sin_).subspan(static_cast<size_t>(chunk.first_row * pairs), rows));
  }
}

void CpuBackend::embed_token(int32_t id, float* row) {
  const WeightMatrix& table = weights_.embed_tokens();
  const int64_t d = table.cols;
  kernels_.to_float(table.dtype, table.data + id * table.row_stride(), row, d);
  if (table.scales == nullptr) return;
  for (int64_t i = 0; i < d; ++i) row[i] *= table.scales[(id / kFp8Block) * table.scale_cols() + i / kFp8Block];
}

void CpuBackend::embed(Activations& x) {
  const int64_t d = weights_.config().hidden_size;
  for (int64_t t = 0; t < tokens(); ++t) embed_token(step_->token_ids[static_cast<size_t>(t)], data_of(x) + t * d);
}

void CpuBackend::mtp_input(const Activations& /*h*/, Activations& x) {
  const MtpWeights& w = *weights_.mtp();
  const int64_t d = weights_.config().hidden_size;
  const auto eps = static_cast<float>(weights_.config().rms_norm_eps);
  const Workspace::Scope scope(workspace_);
  float* joined = workspace_.take(tokens() * 2 * d);
  pool_.run(tokens(), std::max<int64_t>(1, 32768 / d), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = joined + t * 2 * d;
      embed_token(step_->token_ids[static_cast<size_t>(t)], row);
      kernels_.rms_norm(row, w.enorm, row, d, eps);
      kernels_.rms_norm(hidden_ + t * d, w.hnorm, row + d, d, eps);
    }
  });
  linear(cpu(), w.eh_proj, nullptr, joined, tokens(), data_of(x));
}

void CpuBackend::mtp_norm(const Activations& x, Activations& y) {
  norm(weights_.mtp()->norm, x, y);
}

void CpuBackend::store_rows(int64_t layer, const Activations& x) {
  mla_store(cpu(), mla_args(layer, x));
}

void CpuBackend::norm(const float* weight, const Activations& x, Activations& y) {
  const int64_t d = weights_.config().hidden_size;
  const auto eps = static_cast<float>(weights_.config().rms_norm_eps);
  pool_.run(tokens(), std::max<int64_t>(1, 65536 / d), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) kernels_.rms_norm(data_of(x) + t * d, weight, data_of(y) + t * d, d, eps);
  });
}

void CpuBackend::input_norm(int64_t layer, const Activations& x, Activations& y) {
  norm(weights_.layers()[static_cast<size_t>(layer)].input_layernorm, x, y);
}

void CpuBackend::post_attention_norm(int64_t layer, const Activations& x, Activations& y) {
  norm(weights_.layers()[static_cast<size_t>(layer)].post_attention_layernorm, x, y);
}

void CpuBackend::final_norm(const Activations& x, Activations& y) {
  norm(weights_.norm(), x, y);
}

void CpuBackend::point_at(int64_t layer) {
  for (AttentionSegment& segment : segments_) segment.cache.layer_offset = layer * cache_.layer_bytes();
}

MlaArgs CpuBackend::mla_args(int64_t layer, const Activations& x) {
  point_at(layer);
  return {.weights = weights_.layers()[static_cast<size_t>(layer)].mla,
          .shape = mla_,
          .segments = segments_,
          .tokens = tokens(),
          .x = data_of(x),
          .rope_cos = rope_cos_.data(),
          .rope_sin = rope_sin_.data(),
          .out = nullptr};
}

void CpuBackend::attention(int64_t layer, const Activations& x, Activations& y) {
  if (weights_.config().attention == AttentionKind::kMla) {
    MlaArgs args = mla_args(layer, x);
    args.out = data_of(y);
    return mla_attention(cpu(), args);
  }
  point_at(layer);
  gqa_attention(cpu(),
                {.weights = weights_.layers()[static_cast<size_t>(layer)].gqa,
                 .shape = gqa_,
                 .segments = segments_,
                 .tokens = tokens(),
                 .x = data_of(x),
                 .rope_cos = rope_cos_.data(),
                 .rope_sin = rope_sin_.data(),
                 .out = data_of(y)});
}

void CpuBackend::dense_ffn(int64_t layer, const Activations& x, Activations& y) {
  swiglu_forward(cpu(), weights_.layers()[static_cast<size_t>(layer)].dense, data_of(x), tokens(), data_of(y));
}

void CpuBackend::moe(int64_t layer, const Activations& x, Activations& y, MoeTrace* trace) {
  RoutingTrace routing;
  if (trace != nullptr) {
    const auto n = static_cast<size_t>(tokens() * moe_.gate.num_experts_per_tok);
    trace->experts.resize(n);
    trace->weights.resize(n);
    routing = {trace->experts.data(), trace->weights.data()};
  }
  moe_forward(
      cpu(), weights_.layers()[static_cast<size_t>(layer)].moe, moe_, data_of(x), tokens(), data_of(y), routing);
}

void CpuBackend::add(Activations& x, const Activations& y) {
  const int64_t d = weights_.config().hidden_size;
  pool_.run(tokens(), std::max<int64_t>(1, 65536 / d), [&](int64_t begin, int64_t end, int) {
    kernels_.add(data_of(x) + begin * d, data_of(y) + begin * d, (end - begin) * d);
  });
}

void CpuBackend::head(const Activations& x, float* out) {
  const auto rows = static_cast<int64_t>(step_->logit_rows.size());
  if (rows == 0) return;
  const int64_t d = weights_.config().hidden_size;
  const Workspace::Scope scope(workspace_);
  float* wanted = workspace_.take(rows * d);
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(wanted + i * d,
                data_of(x) + step_->logit_rows[static_cast<size_t>(i)] * d,
                static_cast<size_t>(d) * sizeof(float));
  }
  linear(cpu(), weights_.lm_head(), nullptr, wanted, rows, out);
}

void CpuBackend::read(const Activations& x, float* out) {
  std::copy_n(data_of(x), tokens() * weights_.config().hidden_size, out);
}

}  // namespace lathe
