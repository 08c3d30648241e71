#include "lathe/train/train_model.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "lathe/base/check.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"
#include "lathe/model/decoder.h"
#include "lathe/model/shapes.h"
#include "lathe/train/train_backend.h"

namespace lathe {
namespace {

constexpr std::string_view kRouterBias = "e_score_correction_bias";

// FNV-1a of a tensor's name: its stream of random numbers.
uint64_t name_hash(std::string_view name) {
  uint64_t hash = 14695981039346656037U;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211U;
  return hash;
}

// Element pairs 2i, 2i + 1 by Box and Muller from draws 2i, 2i + 1 of the tensor's stream.
void fill_normal(uint64_t seed, std::string_view name, double deviation, std::span<float> values) {
  constexpr double kTwoPi = 6.283185307179586;
  const uint64_t stream = name_hash(name);
  for (size_t i = 0; i < values.size(); i += 2) {
    const double radius = deviation * std::sqrt(-2.0 * std::log(1.0 - uniform(seed, stream, i)));
    const double angle = kTwoPi * uniform(seed, stream, i + 1);
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < values.size()) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

// "[64, 32]".
std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += str(i > 0 ? ", " : "", shape[i]);
  return text + "]";
}

// Without its multi-token prediction layer where that is not trained.
std::vector<Parameter> trained_parameters(ModelConfig config, const TrainOptions& options) {
  if (options.mtp_lambda == 0.0) config.num_nextn_predict_layers = 0;
  return model_parameters(config);
}

Status check_factor(std::string_view name, double value) {
  if (std::isfinite(value) && value >= 0.0) return {};
  return Error{Errc::kInvalidArgument, str(name, ": expected a number that is not negative, found ", value)};
}

Status check_options(const ModelConfig& c, const TrainOptions& o) {
  if (o.max_tokens < 1 || o.max_tokens > (int64_t{1} << 24)) {
    return Error{Errc::kInvalidArgument, str("max_tokens: expected 1 to 16777216, found ", o.max_tokens)};
  }
  LATHE_TRY(check_factor("expert_balance_alpha", o.expert_balance_alpha));
  LATHE_TRY(check_factor("device_balance_alpha", o.device_balance_alpha));
  LATHE_TRY(check_factor("communication_balance_alpha", o.communication_balance_alpha));
  LATHE_TRY(check_factor("sequence_balance_alpha", o.sequence_balance_alpha));
  LATHE_TRY(check_factor("bias_update_speed", o.bias_update_speed));
  LATHE_TRY(check_factor("init_std", o.init_std));
  LATHE_TRY(check_factor("capacity_factor", o.capacity_factor));
  LATHE_TRY(check_factor("protected_fraction", o.protected_fraction));
  LATHE_TRY(check_factor("mtp_lambda", o.mtp_lambda));
  if (o.mtp_lambda > 0.0 && c.num_nextn_predict_layers != 1) {
    return Error{
        Errc::kInvalidArgument,
        str("mtp_lambda: expected a model with num_nextn_predict_layers 1, found ", c.num_nextn_predict_layers)};
  }
  const bool softmax_losses =
      o.expert_balance_alpha > 0.0 || o.device_balance_alpha > 0.0 || o.communication_balance_alpha > 0.0;
  if (c.scoring_func == ScoringFunc::kSigmoid && softmax_losses) {
    return Error{Errc::kInvalidArgument,
                 "expert, device and communication balance losses need a softmax gate, found sigmoid: use "
                 "sequence_balance_alpha"};
  }
  if (c.scoring_func == ScoringFunc::kSoftmax && o.sequence_balance_alpha > 0.0) {
    return Error{Errc::kInvalidArgument,
                 "sequence_balance_alpha: expected a sigmoid gate, found softmax: use expert_balance_alpha"};
  }
  if (c.n_routed_experts == 0) return {};
  const int64_t groups = o.device_groups > 0 ? o.device_groups : c.n_group;
  if (o.device_groups < 0 || c.n_routed_experts % groups != 0) {
    return Error{Errc::kInvalidArgument,
                 str("device_groups: expected a divisor of ", c.n_routed_experts, " experts, found ", o.device_groups)};
  }
  if (o.device_limit < 0 || o.device_limit > groups) {
    return Error{Errc::kInvalidArgument,
                 str("device_limit: expected 0 to ", groups, " groups, found ", o.device_limit)};
  }
  if (c.n_routed_experts > 4096) {
    return Error{Errc::kUnsupported, str("training takes at most 4096 routed experts, found ", c.n_routed_experts)};
  }
  return {};
}

// Ascending from 0 and below `tokens`.
Status check_offsets(std::string_view name, std::span<const int64_t> offsets, int64_t tokens) {
  if (offsets.empty() || offsets[0] != 0) return Error{Errc::kInvalidArgument, str(name, ": expected to begin with 0")};
  for (size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] <= offsets[i - 1]) {
      return Error{Errc::kInvalidArgument,
                   str(name, " ", i, ": expected more than ", offsets[i - 1], ", found ", offsets[i])};
    }
  }
  if (offsets.back() >= tokens) {
    return Error{Errc::kInvalidArgument, str(name, ": expected less than ", tokens, ", found ", offsets.back())};
  }
  return {};
}

Status check_ids(std::string_view name, std::span<const int32_t> ids, int64_t vocab_size, bool may_be_ignored) {
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool good = ids[i] >= 0 ? ids[i] < vocab_size : may_be_ignored && ids[i] == kIgnoredTarget;
    if (!good) {
      return Error{Errc::kInvalidArgument,
                   str(name, " ", i, ": expected an id below ", vocab_size, ", found ", ids[i])};
    }
  }
  return {};
}

}  // namespace

double TrainLosses::total() const {
  const double mean = targets > 0 ? lm / static_cast<double>(targets) : 0.0;
  return mean + mtp + expert_balance + device_balance + communication_balance + sequence_balance;
}

struct TrainModel::State {
  State(const ModelConfig& model_config,
        const TrainOptions& train_options,
        ThreadPool& thread_pool,
        const KernelTable& table)
      : config(model_config), options(train_options), pool(thread_pool), backend(config, options, thread_pool, table) {}

  void chunks_of(const TrainBatch& batch);
  void forward(const TrainBatch& batch, TrainPass pass, double scale, float* logits);

  ModelConfig config;
  TrainOptions options;
  ThreadPool& pool;
  ParameterSet parameters;
  TrainBackend backend;
  Workspace memory;
  std::optional<Decoder> decoder;
  TrainMemory plan;
  std::vector<SequenceChunk> chunks;
  std::vector<std::vector<int64_t>> loads;  // [moe layer][expert], since the biases were updated
};

// A chunk for each document.
void TrainModel::State::chunks_of(const TrainBatch& batch) {
  const auto tokens = static_cast<int64_t>(batch.token_ids.size());
  chunks.clear();
  for (size_t i = 0; i < batch.documents.size(); ++i) {
    const int64_t last = i + 1 < batch.documents.size() ? batch.documents[i + 1] : tokens;
    SequenceChunk& chunk = chunks.emplace_back();
    chunk.sequence = i;
    chunk.first_row = batch.documents[i];
    chunk.tokens = last - batch.documents[i];
  }
}

// One pass of the decoder, the same that inference runs.
void TrainModel::State::forward(const TrainBatch& batch, TrainPass pass, double scale, float* logits) {
  chunks_of(batch);
  backend.set_batch(batch, pass, scale);
  const Step step{.token_ids = batch.token_ids, .chunks = chunks, .logit_rows = {}};
  decoder->forward(step, logits, nullptr);
  if (backend.mtp_batch().token_ids.empty()) return;
  chunks_of(backend.mtp_batch());
  decoder->forward_mtp(
      backend, {.token_ids = backend.mtp_batch().token_ids, .chunks = chunks, .logit_rows = {}}, nullptr, nullptr);
}

TrainModel::TrainModel() = default;
TrainModel::~TrainModel() = default;

Result<TrainMemory> plan_train_memory(const ModelConfig& config, const TrainOptions& options, int threads) {
  LATHE_TRY(check_options(config, options));
  TrainMemory plan;
  const std::vector<Parameter> list = trained_parameters(config, options);
  plan.values = (list.back().offset + Workspace::padded(list.back().size)) * static_cast<int64_t>(sizeof(float));
  plan.gradients = plan.values;
  LATHE_TRY(const std::unique_ptr<ThreadPool> unused,
            ThreadPool::create(1));  // a backend has one; planning runs nothing
  TrainArena counter;
  TrainBackend backend(config, options, *unused, kernels());
  backend.plan(counter, threads);
  plan.activations = counter.used() * static_cast<int64_t>(sizeof(float));
  return plan;
}

Result<std::unique_ptr<TrainModel>> TrainModel::create(const ModelConfig& config,
                                                       const TrainOptions& options,
                                                       ThreadPool& pool,
                                                       const KernelTable& kernels) {
  LATHE_TRY(const TrainMemory plan, plan_train_memory(config, options, pool.threads()));
  std::unique_ptr<TrainModel> model(new TrainModel());
  model->state_ = std::make_unique<State>(config, options, pool, kernels);
  State& s = *model->state_;
  s.plan = plan;
  LATHE_TRY(s.parameters, ParameterSet::create(trained_parameters(config, options)));
  const auto floats = plan.activations / static_cast<int64_t>(sizeof(float));
  LATHE_TRY(s.memory, Workspace::create(floats));
  TrainArena arena(s.memory.take(floats));
  s.backend.plan(arena, pool.threads());
  s.backend.set_weights(bind_trained_weights(s.config, s.parameters));
  LATHE_TRY(Decoder decoder, Decoder::create(s.config, s.backend));
  s.decoder.emplace(std::move(decoder));
  return model;
}

const ModelConfig& TrainModel::config() const {
  return state_->config;
}

const TrainOptions& TrainModel::options() const {
  return state_->options;
}

ParameterSet& TrainModel::parameters() {
  return state_->parameters;
}

TrainMemory TrainModel::memory() const {
  return state_->plan;
}

void TrainModel::initialise(uint64_t seed) {
  ParameterSet& parameters = state_->parameters;
  const auto count = static_cast<int64_t>(parameters.list().size());
  state_->pool.run(count, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Parameter& p = parameters.list()[static_cast<size_t>(i)];
      if (p.shape.size() > 1) {
        fill_normal(seed, p.name, state_->options.init_std, parameters.values(i));
      } else {
        std::ranges::fill(parameters.values(i), p.name.ends_with("norm.weight") ? 1.0F : 0.0F);
      }
    }
  });
}

Status TrainModel::load(const Checkpoint& checkpoint, const BlockExpansion& expansion) {
  ParameterSet& parameters = state_->parameters;
  for (const ExpectedTensor& tensor : expected_tensors(state_->config)) {
    if (tensor.optional && checkpoint.find(tensor.name) != nullptr) {
      return Error{Errc::kUnsupported, str(tensor.name, ": this bias cannot be trained")};
    }
  }
  for (size_t i = 0; i < parameters.list().size(); ++i) {
    const Parameter& p = parameters.list()[i];
    const BlockExpansion::Source source = expansion.source(p.name);
    const StoredTensor* tensor = checkpoint.find(source.name);
    if (tensor == nullptr)
      return Error{Errc::kNotFound, str(source.name, ": expected in ", checkpoint.folder().string(), ", not found")};
    if (tensor->shape != p.shape) {
      return Error{Errc::kInvalidData,
                   str(source.name, ": expected ", shape_text(p.shape), ", found ", shape_text(tensor->shape))};
    }
    if (tensor->dtype != DType::kF32 && tensor->dtype != DType::kBF16 && tensor->dtype != DType::kF16) {
      return Error{Errc::kUnsupported,
                   str(source.name, ": expected F32, BF16 or F16 to train, found ", dtype_name(tensor->dtype))};
    }
    const std::span<float> values = parameters.values(static_cast<int64_t>(i));
    if (source.zero) {
      std::ranges::fill(values, 0.0F);
    } else {
      kernels().to_float(tensor->dtype, tensor->bytes.data(), values.data(), p.size);
    }
  }
  return {};
}

Status TrainModel::check(const TrainBatch& batch) const {
  const State& s = *state_;
  const auto tokens = static_cast<int64_t>(batch.token_ids.size());
  if (tokens < 1 || tokens > s.options.max_tokens) {
    return Error{Errc::kInvalidArgument, str("batch: expected 1 to ", s.options.max_tokens, " tokens, found ", tokens)};
  }
  if (batch.targets.size() != batch.token_ids.size()) {
    return Error{Errc::kInvalidArgument, str("targets: expected ", tokens, ", found ", batch.targets.size())};
  }
  if (!batch.target_weights.empty() && batch.target_weights.size() != batch.token_ids.size()) {
    return Error{Errc::kInvalidArgument,
                 str("target_weights: expected ", tokens, " or none, found ", batch.target_weights.size())};
  }
  if (!batch.sequence_ids.empty() && batch.sequence_ids.size() != batch.sequences.size()) {
    return Error{Errc::kInvalidArgument,
                 str("sequence_ids: expected ", batch.sequences.size(), ", found ", batch.sequence_ids.size())};
  }
  LATHE_TRY(check_ids("token", batch.token_ids, s.config.vocab_size, false));
  LATHE_TRY(check_ids("target", batch.targets, s.config.vocab_size, true));
  LATHE_TRY(check_offsets("sequences", batch.sequences, tokens));
  LATHE_TRY(check_offsets("documents", batch.documents, tokens));
  if (!std::ranges::includes(batch.documents, batch.sequences)) {
    return Error{Errc::kInvalidArgument, "documents: expected every start of a sequence among them"};
  }
  return {};
}

TrainLosses TrainModel::forward_backward(const TrainBatch& batch, double scale) {
  State& s = *state_;
  s.forward(batch, TrainPass::kTrain, scale, nullptr);
  s.backend.backward();
  TrainLosses losses = s.backend.losses();
  s.loads.resize(losses.expert_load.size());
  for (size_t layer = 0; layer < s.loads.size(); ++layer) {
    s.loads[layer].resize(losses.expert_load[layer].size());
    for (size_t e = 0; e < s.loads[layer].size(); ++e) s.loads[layer][e] += losses.expert_load[layer][e];
  }
  return losses;
}

TrainLosses TrainModel::evaluate(const TrainBatch& batch) {
  state_->forward(batch, TrainPass::kEvaluate, 0.0, nullptr);
  return state_->backend.losses();
}

std::span<const float> TrainModel::token_losses() const {
  return state_->backend.token_losses();
}

void TrainModel::logits(const TrainBatch& batch, float* out) {
  state_->forward(batch, TrainPass::kLogits, 0.0, out);
}

void TrainModel::update_router_biases() {
  State& s = *state_;
  size_t moe_layer = 0;
  for (size_t i = 0; i < s.parameters.list().size() && moe_layer < s.loads.size(); ++i) {
    if (!s.parameters.list()[i].name.ends_with(kRouterBias)) continue;
    const std::vector<int64_t>& load = s.loads[moe_layer++];
    int64_t total = 0;
    for (const int64_t n : load) total += n;
    const std::span<float> bias = s.parameters.values(static_cast<int64_t>(i));
    const auto experts = static_cast<int64_t>(load.size());
    for (size_t e = 0; e < load.size(); ++e) {  // sign(mean - load), without dividing
      const int64_t difference = total - load[e] * experts;
      const double sign = difference > 0 ? 1.0 : difference < 0 ? -1.0 : 0.0;
      bias[e] = static_cast<float>(bias[e] + s.options.bias_update_speed * sign);
    }
  }
  s.loads.clear();
}

}  // namespace lathe
