// Gradients of whole models in fp32 against central differences of the loss that the paper's equations give in double:
// the two share no arithmetic, so an error of either shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lathe/reference/reference_backend.h"
#include "lathe/train/train_model.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using reference::ReferenceBackend;
using reference::Vec;
using testing::TempDir;
using testing::TinyModel;

constexpr int64_t kPerTensor = 8;  // elements that change in one difference, all of a tensor when it has fewer

// Of the change that gradients of the tensor's mean size would make. Measured: at most 1.6e-5, rounding of the fp32
// gradients.
constexpr double kTolerance = 5e-5;

// Two sequences of two and of one document, so that attention must stop and balance is counted per sequence.
struct Batch : PackedRows {
  explicit Batch(const ModelConfig& config) {
    token_ids = testing::random_ids(config, 20, 17);
    sequences = {0, 11};
    documents = {0, 6, 11};
    sequence_ids = {3, 4};
    targets.assign(token_ids.begin() + 1, token_ids.end());
    targets.push_back(kIgnoredTarget);
    for (const size_t last : {size_t{5}, size_t{10}}) targets[last] = kIgnoredTarget;
  }
};

struct Losses {
  double total = 0.0;
  std::vector<std::vector<int32_t>> experts;  // per layer: the choice, which the loss jumps with
};

// Eq. 23-31 of one sequence, or V3's loss with sigmoid gates, as their text reads.
double balance_loss(const ModelConfig& c,
                    const TrainOptions& o,
                    std::span<const Vec> s_T,
                    std::span<const int32_t> experts_TK) {
  const auto T = static_cast<double>(s_T.size());
  const auto K = static_cast<size_t>(c.num_experts_per_tok);
  const int64_t E = c.n_routed_experts;
  const int64_t D = c.n_group;
  const bool sigmoid = c.scoring_func == ScoringFunc::kSigmoid;
  double expert_loss = 0.0;
  double device_loss = 0.0;
  double communication_loss = 0.0;
  for (int64_t d = 0; d < D; ++d) {
    double f_device = 0.0;
    double P_device = 0.0;
    for (int64_t i = d * E / D; i < (d + 1) * E / D; ++i) {
      double P = 0.0;
      for (const Vec& s : s_T) {
        double sum = 0.0;
        for (const double one : s) sum += one;
        P += s[static_cast<size_t>(i)] / (sigmoid ? sum : 1.0) / T;
      }
      const auto count = static_cast<double>(std::ranges::count(experts_TK, static_cast<int32_t>(i)));
      const double f = static_cast<double>(E) / (static_cast<double>(K) * T) * count;
      expert_loss += f * P;
      f_device += f * static_cast<double>(D) / static_cast<double>(E);
      P_device += P;
    }
    double tokens = 0.0;
    for (size_t t = 0; t < s_T.size(); ++t) {
      const auto chosen = experts_TK.subspan(t * K, K);
      tokens += std::ranges::any_of(chosen, [&](int32_t i) { return i / (E / D) == d; }) ? 1.0 : 0.0;
    }
    device_loss += f_device * P_device;
    communication_loss += static_cast<double>(D) / (static_cast<double>(c.topk_group) * T) * tokens * P_device;
  }
  if (sigmoid) return o.sequence_balance_alpha * expert_loss;
  return o.expert_balance_alpha * expert_loss + o.device_balance_alpha * device_loss +
         o.communication_balance_alpha * communication_loss;
}

// The loss in double of the weights in `folder`.
Losses reference_losses(const std::filesystem::path& folder, const TrainOptions& options, const Batch& batch) {
  const Result<std::unique_ptr<const ModelWeights>> weights = testing::open_weights(folder);
  EXPECT_TRUE(weights.has_value()) << (weights ? "" : weights.error().message);
  const ModelConfig& config = (*weights)->config();
  ReferenceBackend backend(**weights);
  Decoder decoder = Decoder::create(config, backend).value();
  std::vector<SequenceChunk> chunks;
  for (size_t i = 0; i < batch.documents.size(); ++i) {
    const int64_t end =
        i + 1 < batch.documents.size() ? batch.documents[i + 1] : static_cast<int64_t>(batch.token_ids.size());
    SequenceChunk& chunk = chunks.emplace_back();
    chunk.sequence = i;
    chunk.first_row = batch.documents[i];
    chunk.tokens = end - batch.documents[i];
  }
  std::vector<int64_t> rows(batch.token_ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> rounded(batch.token_ids.size() * static_cast<size_t>(config.vocab_size));
  ForwardTrace trace;
  decoder.forward({.token_ids = batch.token_ids, .chunks = chunks, .logit_rows = rows}, rounded.data(), &trace);

  Losses out;
  double counted = 0.0;
  for (size_t t = 0; t < batch.token_ids.size(); ++t) {
    if (batch.targets[t] < 0) continue;
    const Vec p = reference::softmax(backend.values().logits[t]);
    out.total -= std::log(p[static_cast<size_t>(batch.targets[t])]);
    counted += 1.0;
  }
  out.total /= counted;
  const auto K = static_cast<size_t>(config.num_experts_per_tok);
  for (const MoeTrace& layer : trace.routing) {
    if (layer.experts.empty()) continue;
    const std::span<const Vec> s_T = backend.values().affinities[out.experts.size()];
    for (size_t b = 0; b < batch.sequences.size(); ++b) {
      const auto first = static_cast<size_t>(batch.sequences[b]);
      const size_t last = b + 1 < batch.sequences.size() ? static_cast<size_t>(batch.sequences[b + 1]) : s_T.size();
      out.total += balance_loss(config,
                                options,
                                s_T.subspan(first, last - first),
                                std::span(layer.experts).subspan(first * K, (last - first) * K)) /
                   static_cast<double>(batch.sequences.size());
    }
    out.experts.push_back(layer.experts);
  }
  return out;
}

// For every tensor: some elements, drawn by the seed, move by steps of random sign; the slope of the reference's loss
// along them is the sum of gradient times step.
void expect_differences(const std::string& what, TinyModel model, TrainOptions options) {
  SCOPED_TRACE(what);
  const ModelConfig config = model.config();
  const Batch batch(config);
  const TempDir folder;
  model.write(folder.path());
  options.max_tokens = static_cast<int64_t>(batch.token_ids.size());
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(2).value();
  Result<std::unique_ptr<TrainModel>> train = TrainModel::create(config, options, *pool, kernels());
  ASSERT_TRUE(train.has_value()) << train.error().message;
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.has_value());
  ASSERT_TRUE((*train)->load(*checkpoint));
  ASSERT_TRUE((*train)->check(batch.batch()));
  const TrainLosses losses = (*train)->forward_backward(batch.batch(), 1.0);
  const Losses at_rest = reference_losses(folder.path(), options, batch);
  EXPECT_NEAR(losses.total(), at_rest.total, 1e-5);

  Rng rng(23);
  ParameterSet& parameters = (*train)->parameters();
  for (size_t i = 0; i < parameters.list().size(); ++i) {
    const Parameter& p = parameters.list()[i];
    SCOPED_TRACE(p.name);
    const std::span<const float> gradient = parameters.gradients(static_cast<int64_t>(i));
    std::vector<float>& values = model.at(p.name).values;
    const std::vector<float> start = values;
    double norm = 0.0;
    for (const float g : gradient) norm += static_cast<double>(g) * g;
    norm = std::sqrt(norm / static_cast<double>(p.size));  // of one element
    std::vector<std::pair<size_t, double>> steps;
    for (int64_t k = 0; k < std::min(kPerTensor, p.size); ++k) {
      const int64_t at =
          p.size <= kPerTensor ? k : rng.next_int(k * p.size / kPerTensor, (k + 1) * p.size / kPerTensor - 1);
      steps.emplace_back(static_cast<size_t>(at), rng.next_uniform() < 0.5 ? -0x1p-13 : 0x1p-13);
    }
    double expected = 0.0;
    double length = 0.0;
    double sides[2] = {};
    for (const int side : {0, 1}) {
      values = start;
      for (const auto& [at, step] : steps) {
        values[at] = static_cast<float>(start[at] + (side == 0 ? -step : step));
        const double moved = static_cast<double>(values[at]) - start[at];  // as rounded
        expected += (side == 0 ? -moved : moved) * gradient[at];
        length += moved * moved;
      }
      model.write(folder.path());
      const Losses losses_there = reference_losses(folder.path(), options, batch);
      ASSERT_EQ(losses_there.experts, at_rest.experts);
      sides[side] = losses_there.total;
    }
    values = start;
    const double measured = sides[1] - sides[0];
    const double scale = norm * std::sqrt(2.0 * length) + 1e-13;
    EXPECT_NEAR(measured, expected, kTolerance * scale);
  }
}

Json without_groups(Json json) {
  json.set("topk_method", "greedy");
  json.set("n_group", 1);
  json.set("topk_group", 1);
  json.set("q_lora_rank", Json());
  return json;
}

TEST(TrainDifferences, LatentAttentionAndGreedyExperts) {
  TrainOptions options;
  options.expert_balance_alpha = 0.3;
  expect_differences("v2_lite", TinyModel(without_groups(testing::tiny_v2_config())), options);
}

TEST(TrainDifferences, CompressedQueriesGroupsAndAllThreeBalanceLosses) {
  TrainOptions options;
  options.expert_balance_alpha = 0.3;
  options.device_balance_alpha = 0.5;
  options.communication_balance_alpha = 0.2;
  expect_differences("v2", TinyModel(testing::tiny_v2_config()), options);
}

TEST(TrainDifferences, SigmoidGateWithBiasAndSequenceLoss) {
  TrainOptions options;
  options.sequence_balance_alpha = 0.3;
  expect_differences("v3", TinyModel(testing::tiny_v3_config()), options);
}

TEST(TrainDifferences, GroupedQueriesAndTiedEmbeddings) {
  expect_differences("llama", TinyModel(testing::tiny_llama_config()), {});
  Json tied = testing::tiny_llama_config();
  tied.set("tie_word_embeddings", true);
  tied.set("num_key_value_heads", 1);
  expect_differences("llama_tied", TinyModel(tied), {});
}

}  // namespace
}  // namespace lathe
