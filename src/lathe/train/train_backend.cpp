#include "lathe/train/train_backend.h"

#include <algorithm>

#include "lathe/base/check.h"
#include "lathe/model/config_rope.h"
#include "lathe/model/weights.h"

namespace lathe {
namespace {

constexpr int64_t kTabledPositions = 8192;  // whose rotations are computed once

constexpr int64_t kNoLayer = -1;  // of operations outside the blocks

// Rows [T, d] somewhere in the arena; each operation lets them point to what it wrote.
class TrainRows final : public Activations {
 public:
  float* data = nullptr;
};

float* data_of(const Activations& x) {
  return static_cast<const TrainRows&>(x).data;
}

AttentionBlock attention_block(const ModelConfig& config) {
  if (config.attention == AttentionKind::kMla) return MlaBlock(mla_shape(config));
  return GqaBlock(gqa_shape(config));
}

RouterOptions router_options(const ModelConfig& config, const TrainOptions& options) {
  const MoeShape shape = moe_shape(config);
  const int64_t limit = options.device_limit > 0 ? options.device_limit : config.topk_group;
  return {.gate = shape.gate,
          .balance = {.experts = config.n_routed_experts,
                      .chosen = config.num_experts_per_tok,
                      .devices = options.device_groups > 0 ? options.device_groups : config.n_group,
                      .device_limit = limit,
                      .scoring_func = config.scoring_func,
                      .alpha1 = options.expert_balance_alpha,
                      .alpha2 = options.device_balance_alpha,
                      .alpha3 = options.communication_balance_alpha,
                      .alpha_v3 = options.sequence_balance_alpha,
                      .per_sequence = config.seq_aux},
          .drop = options.drop_tokens,
          .capacity_factor = options.capacity_factor};
}

}  // namespace

TrainBackend::TrainBackend(const ModelConfig& config,
                           const TrainOptions& options,
                           ThreadPool& pool,
                           const KernelTable& kernels)
    : config_(config),
      options_(options),
      context_{kernels, pool},
      attention_(attention_block(config)),
      moe_(moe_shape(config), router_options(config, options)),
      mtp_input_(config.hidden_size, config.rms_norm_eps),
      rope_(RopeTable::make(rope_parameters(config), std::min(options.max_tokens, kTabledPositions))) {}

void TrainBackend::take_kept(TrainArena& arena, KeptLayer& layer, bool with_moe, bool with_dense) const {
  const int64_t T = options_.max_tokens;
  std::visit([&](const auto& block) { block.take_kept(arena, T, layer.attention); }, attention_);
  if (with_moe) moe_.take_kept(arena, T, layer.moe);
  if (with_dense) layer.dense_gate_up = arena.take(T * 2 * config_.intermediate_size);
}

void TrainBackend::take_recomputed(TrainArena& arena, KeptLayer& layer) const {
  std::visit([&](const auto& block) { block.take_recomputed(arena, options_.max_tokens, layer.attention); },
             attention_);
  for (float*& normed : layer.normed) normed = arena.take(options_.max_tokens * config_.hidden_size);
}

void TrainBackend::take_rows(TrainArena& arena, Rows& rows, float* dhead) const {
  for (float** angles : {&rows.cos, &rows.sin, &rows.sin_back})
    *angles = arena.take(options_.max_tokens * rope_.pairs());
  rows.token_losses = arena.take(options_.max_tokens);
  rows.dhead = dhead;
}

void TrainBackend::plan(TrainArena& arena, int threads) {
  const int64_t T = options_.max_tokens;
  const int64_t d = config_.hidden_size;
  const int64_t L = blocks();
  bool any_moe = false;
  bool any_dense = false;
  for (int64_t layer = 0; layer < L; ++layer) (config_.is_moe_layer(layer) ? any_moe : any_dense) = true;

  context_.products = arena.take(threads * kSgemmScratchFloats);
  // After the embedding and after each addition; the multi-token prediction layer begins a stream of its own.
  stream_.resize(static_cast<size_t>(2 * L + (with_mtp() ? 2 : 1)));
  const size_t own = with_mtp() ? stream_.size() - 3 : stream_.size();
  float* middle = options_.recompute == Recompute::kLayers ? arena.take(T * d) : nullptr;
  for (size_t i = 0; i < stream_.size(); ++i) {
    const bool shared = options_.recompute == Recompute::kLayers && (i < own ? i : i - own) % 2 == 1;
    stream_[i] = shared ? middle : arena.take(T * d);
  }
  kept_.assign(static_cast<size_t>(options_.recompute == Recompute::kLayers ? 1 : L), {});
  KeptLayer shared;
  if (options_.recompute == Recompute::kLatents) take_recomputed(arena, shared);
  for (size_t i = 0; i < kept_.size(); ++i) {
    KeptLayer& layer = kept_[i];
    const bool is_moe = config_.is_moe_layer(static_cast<int64_t>(i));
    const bool one_for_all = options_.recompute == Recompute::kLayers;
    if (options_.recompute == Recompute::kLatents) {
      layer = shared;
    } else {
      take_recomputed(arena, layer);
    }
    layer.attention.kept = options_.recompute != Recompute::kLatents;
    take_kept(arena, layer, one_for_all ? any_moe : is_moe, one_for_all ? any_dense : !is_moe);
  }
  std::visit([&](const auto& block) { block.take_work(arena, T, threads, attention_work_); }, attention_);
  if (any_moe) moe_.take_work(arena, T, moe_work_);
  if (any_dense) {
    dense_act_ = arena.take(T * config_.intermediate_size);
    dense_dact_ = arena.take(T * config_.intermediate_size);
  }
  for (float** rows : {&delta_, &final_normed_, &dstream_, &dnormed_}) *rows = arena.take(T * d);
  partials_ = arena.take(column_sum_floats(T, d));
  if (with_mtp()) {
    take_rows(arena, main_, arena.take(T * d));
    take_rows(arena, mtp_, dnormed_);
    mtp_input_.take(arena, T);
    mtp_normed_ = arena.take(T * d);
  } else {
    take_rows(arena, main_, dnormed_);
  }
  head_.hidden = d;
  head_.vocab = config_.vocab_size;
  head_.logits = arena.take(head_rows(config_.vocab_size) * config_.vocab_size);
  head_.rows = arena.take(head_rows(config_.vocab_size) * d);
  head_.drows = arena.take(head_rows(config_.vocab_size) * d);
}

void TrainBackend::set_batch(const TrainBatch& batch, TrainPass pass, double scale) {
  main_.batch = batch;
  pass_ = pass;
  scale_ = scale;
  mtp_rows_ = {};
  if (with_mtp() && pass != TrainPass::kLogits) select_mtp_rows(batch, mtp_rows_);
}

Result<std::unique_ptr<Activations>> TrainBackend::allocate() {
  return std::unique_ptr<Activations>(std::make_unique<TrainRows>());
}

void TrainBackend::begin_step(const Step& step) {
  tape_.clear();
  statistics_.clear();
  streams_used_ = 0;
  layer_ = kNoLayer;
  mtp_.loss = 0.0;
  mtp_.targets = 0;
  begin_rows(step, main_);
}

void TrainBackend::begin_mtp(const Step& step, const float* /*hidden: rows of the step before*/) {
  mtp_.batch = mtp_rows_.batch();
  begin_rows(step, mtp_);
}

void TrainBackend::begin_rows(const Step& step, Rows& rows) {
  rows_ = &rows;
  const int64_t pairs = rope_.pairs();
  context_.pool.run(static_cast<int64_t>(step.chunks.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const SequenceChunk& chunk = step.chunks[static_cast<size_t>(i)];
      const auto at = static_cast<size_t>(chunk.first_row * pairs);
      const auto count = static_cast<size_t>(chunk.tokens * pairs);
      rope_.cos_sin_range(chunk.position, chunk.tokens, {rows.cos + at, count}, {rows.sin + at, count});
      for (size_t k = at; k < at + count; ++k) rows.sin_back[k] = -rows.sin[k];
    }
  });
  rows.attention = {.documents = rows.batch.documents,
                    .tokens = rows.tokens(),
                    .cos = rows.cos,
                    .sin = rows.sin,
                    .sin_back = rows.sin_back,
                    .pairs = pairs};
  rows.sequence_of.resize(rows.batch.token_ids.size());
  rows.is_protected.resize(rows.batch.token_ids.size());
  for (size_t b = 0; b < rows.batch.sequences.size(); ++b) {
    const int64_t first = rows.batch.sequences[b];
    const int64_t last = b + 1 < rows.batch.sequences.size() ? rows.batch.sequences[b + 1] : rows.tokens();
    const bool is_protected = b < rows.batch.sequence_ids.size() &&
                              is_protected_sequence(rows.batch.sequence_ids[b], options_.protected_fraction);
    for (int64_t t = first; t < last; ++t) {
      rows.sequence_of[static_cast<size_t>(t)] = static_cast<int32_t>(b);
      rows.is_protected[static_cast<size_t>(t)] = is_protected ? 1 : 0;
    }
  }
  rows.router = {.tokens = rows.tokens(),
                 .sequences = rows.batch.sequences,
                 .sequence_of_T = rows.sequence_of,
                 .is_protected_T = rows.is_protected,
                 .training = pass_ == TrainPass::kTrain};
  rows.loss = 0.0;
  rows.targets = std::ranges::count_if(rows.batch.targets, [](int32_t target) { return target >= 0; });
}

void TrainBackend::record(Entry entry, Activations& out) {
  layer_ = entry.layer;
  entry.rows = rows_;
  if (pass_ == TrainPass::kTrain) tape_.push_back(entry);
  run(entry);
  static_cast<TrainRows&>(out).data = entry.y;
}

AttentionPass TrainBackend::attention_pass(const Entry& e) {
  return {context_, e.rows->attention, weights_of(e.layer).attention, kept(e.layer).attention, attention_work_, e.x};
}

MoePass TrainBackend::moe_pass(const Entry& e) {
  return {context_, e.rows->router, weights_of(e.layer).moe, kept(e.layer).moe, moe_work_, e.x};
}

MtpInputPass TrainBackend::mtp_pass(const Entry& e) const {
  return {context_, weights_.mtp, weights_.embed_tokens, mtp_rows_.token_ids, mtp_rows_.rows, e.x};
}

void TrainBackend::run(const Entry& e) {
  const int64_t d = config_.hidden_size;
  const int64_t T = e.rows->tokens();
  switch (e.kind) {
    case Kind::kEmbed:
      return context_.pool.run(T, row_grain(d), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          std::copy_n(
              weights_.embed_tokens.value + e.rows->batch.token_ids[static_cast<size_t>(t)] * d, d, e.y + t * d);
        }
      });
    case Kind::kNorm:
    case Kind::kLastNorm:
      return norm_forward(context_, {e.x, d, T, d, config_.rms_norm_eps}, e.weight.value, e.y, d);
    case Kind::kAttention:
      return std::visit([&](const auto& block) { block.forward(attention_pass(e), e.y); }, attention_);
    case Kind::kDense:
      return swiglu_train_forward(context_,
                                  {T, d, config_.intermediate_size},
                                  weights_of(e.layer).dense,
                                  e.x,
                                  kept(e.layer).dense_gate_up,
                                  dense_act_,
                                  e.y,
                                  Sum::kStore);
    case Kind::kMoe:
      return moe_.forward(moe_pass(e), e.y);
    case Kind::kAdd:
      context_.pool.run(T, row_grain(d), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          std::copy_n(e.x + t * d, d, e.y + t * d);
          context_.kernels.add(e.y + t * d, delta_ + t * d, d);
        }
      });
      return;
    case Kind::kMtpInput:
      return mtp_input_.forward(mtp_pass(e), e.y);
    case Kind::kHead:
      return;
  }
}

void TrainBackend::embed(Activations& x) {
  record({.kind = Kind::kEmbed, .layer = kNoLayer, .y = stream_[streams_used_++]}, x);
}

void TrainBackend::input_norm(int64_t layer, const Activations& x, Activations& y) {
  record({Kind::kNorm, layer, weights_of(layer).input_layernorm, data_of(x), kept(layer).normed[0]}, y);
}

void TrainBackend::post_attention_norm(int64_t layer, const Activations& x, Activations& y) {
  record({Kind::kNorm, layer, weights_of(layer).post_attention_layernorm, data_of(x), kept(layer).normed[1]}, y);
}

void TrainBackend::final_norm(const Activations& x, Activations& y) {
  record({Kind::kLastNorm, kNoLayer, weights_.norm, data_of(x), final_normed_}, y);
}

void TrainBackend::mtp_input(const Activations& h, Activations& x) {
  record({.kind = Kind::kMtpInput, .layer = kNoLayer, .x = data_of(h), .y = stream_[streams_used_++]}, x);
}

void TrainBackend::mtp_norm(const Activations& x, Activations& y) {
  record({Kind::kLastNorm, kNoLayer, weights_.mtp.norm, data_of(x), mtp_normed_}, y);
}

void TrainBackend::attention(int64_t layer, const Activations& x, Activations& y) {
  record({Kind::kAttention, layer, {}, data_of(x), delta_}, y);
}

void TrainBackend::dense_ffn(int64_t layer, const Activations& x, Activations& y) {
  record({Kind::kDense, layer, {}, data_of(x), delta_}, y);
}

void TrainBackend::moe(int64_t layer, const Activations& x, Activations& y, MoeTrace* trace) {
  record({Kind::kMoe, layer, {}, data_of(x), delta_}, y);
  const Routing& routing = kept(layer).moe.routing;
  statistics_.push_back({routing.losses, routing.load, routing.dropped});
  if (trace == nullptr) return;
  const int64_t count = rows_->tokens() * config_.num_experts_per_tok;
  trace->experts.assign(routing.experts, routing.experts + count);
  trace->weights.assign(routing.weights, routing.weights + count);
}

void TrainBackend::add(Activations& x, const Activations& y) {
  LATHE_DCHECK(data_of(y) == delta_);
  (void)y;
  record({.kind = Kind::kAdd, .layer = layer_, .x = data_of(x), .y = stream_[streams_used_++]}, x);
}

void TrainBackend::read(const Activations& x, float* out) {
  std::copy_n(data_of(x), rows_->tokens() * config_.hidden_size, out);
}

void TrainBackend::head(const Activations& x, float* out) {
  const int64_t d = config_.hidden_size;
  Rows& rows = *rows_;
  if (pass_ == TrainPass::kLogits) {
    linear_forward(
        context_, {rows.tokens(), d, config_.vocab_size}, data_of(x), weights_.lm_head.value, out, Sum::kStore);
    return;
  }
  if (pass_ == TrainPass::kTrain) tape_.push_back({.kind = Kind::kHead, .layer = kNoLayer, .rows = rows_});
  const double weight = rows_ == &mtp_ ? options_.mtp_lambda : 1.0;
  head_.head = weights_.lm_head;
  head_.x = data_of(x);
  head_.targets = rows.batch.targets;
  head_.weights = rows.batch.target_weights;
  head_.factor = rows.targets > 0 ? scale_ * weight / static_cast<double>(rows.targets) : 0.0;
  head_.dx = pass_ == TrainPass::kTrain ? rows.dhead : nullptr;
  head_.token_losses = {rows.token_losses, rows.batch.targets.size()};
  rows.loss = head_cross_entropy(context_, head_);
}

// Runs the operations of a layer again, up to its last addition at `last`.
void TrainBackend::replay_layer(size_t last) {
  size_t begin = last;
  while (begin > 0 && tape_[begin - 1].layer == tape_[last].layer) --begin;
  for (size_t i = begin; i < last; ++i) run(tape_[i]);
}

void TrainBackend::step_back(size_t index) {
  const Entry& e = tape_[index];
  const int64_t d = config_.hidden_size;
  const int64_t T = e.rows->tokens();
  const bool sub_layer = e.kind == Kind::kAttention || e.kind == Kind::kDense || e.kind == Kind::kMoe;
  if (sub_layer && options_.recompute == Recompute::kLatents) run(tape_[index - 1]);  // its norm
  switch (e.kind) {
    case Kind::kHead:  // has left its derivative in rows->dhead
      return;
    case Kind::kNorm:
    case Kind::kLastNorm:
      return norm_backward(context_,
                           {.rows = {e.x, d, T, d, config_.rms_norm_eps},
                            .weight = e.weight,
                            .dy = e.kind == Kind::kLastNorm ? e.rows->dhead : dnormed_,
                            .dy_stride = d,
                            .dx = dstream_,
                            .dx_stride = d,
                            .sum = e.kind == Kind::kLastNorm ? Sum::kStore : Sum::kAdd,
                            .partials = partials_});
    case Kind::kAdd:  // passes the gradient on to both
      if (options_.recompute == Recompute::kLayers && tape_[index - 1].kind != Kind::kAttention) replay_layer(index);
      return;
    case Kind::kAttention:
      return std::visit([&](const auto& block) { block.backward(attention_pass(e), dstream_, dnormed_); }, attention_);
    case Kind::kDense:
      return swiglu_train_backward(context_,
                                   {T, d, config_.intermediate_size},
                                   weights_of(e.layer).dense,
                                   {.x = e.x,
                                    .dy = dstream_,
                                    .gate_up = kept(e.layer).dense_gate_up,
                                    .act = dense_act_,
                                    .dact = dense_dact_,
                                    .dx = dnormed_});
    case Kind::kMoe:
      return moe_.backward(moe_pass(e), dstream_, scale_, dnormed_);
    case Kind::kMtpInput:
      return mtp_input_.backward(mtp_pass(e), dstream_, main_.dhead);
    case Kind::kEmbed:
      return embedding_backward(context_, e.rows->batch.token_ids, dstream_, d, weights_.embed_tokens.gradient);
  }
}

void TrainBackend::backward() {
  for (size_t i = tape_.size(); i > 0; --i) step_back(i - 1);
  tape_.clear();
}

TrainLosses TrainBackend::losses() const {
  TrainLosses out;
  out.lm = main_.loss;
  out.targets = main_.targets;
  if (mtp_.targets > 0) out.mtp = options_.mtp_lambda * mtp_.loss / static_cast<double>(mtp_.targets);
  for (const Statistics& layer : statistics_) {
    out.expert_balance += layer.losses.expert;
    out.device_balance += layer.losses.device;
    out.communication_balance += layer.losses.communication;
    out.sequence_balance += layer.losses.sequence;
    out.dropped_assignments += layer.dropped;
    out.expert_load.push_back(layer.load);
  }
  return out;
}

}  // namespace lathe
