// Whole models: losses and gradients against the golden data (published code in float64), and against themselves under
// what must change no bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lathe/train/train_model.h"
#include "support/golden_file.h"

namespace lathe {
namespace {

using testing::golden_dir;
using testing::GoldenFile;

// One sequence of one document.
struct OneSequence : PackedRows {
  explicit OneSequence(std::vector<int32_t> tokens) {
    token_ids = std::move(tokens);
    targets.assign(token_ids.begin() + 1, token_ids.end());
    targets.push_back(kIgnoredTarget);
    sequences = {0};
    documents = {0};
    sequence_ids = {7};
  }
};

struct Model {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<TrainModel> train;
};

Model open_model(const std::string& name, TrainOptions options, int threads = 2) {
  Model model;
  model.pool = ThreadPool::create(threads).value();
  const Result<ParsedConfig> parsed = load_config(golden_dir() / name);
  EXPECT_TRUE(parsed.has_value());
  if (options.max_tokens == 0) options.max_tokens = 300;
  Result<std::unique_ptr<TrainModel>> created = TrainModel::create(parsed->config, options, *model.pool, kernels());
  EXPECT_TRUE(created.has_value()) << (created ? "" : created.error().message);
  model.train = std::move(*created);
  const Result<Checkpoint> checkpoint = Checkpoint::open(golden_dir() / name);
  EXPECT_TRUE(checkpoint.has_value());
  const Status loaded = model.train->load(*checkpoint);
  EXPECT_TRUE(loaded) << loaded.error().message;
  return model;
}

double norm_of(std::span<const float> values) {
  double sum = 0.0;
  for (const float v : values) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

double distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    sum += d * d;
  }
  return std::sqrt(sum);
}

// fp32 against float64: the golden README allows 1e-3 of a tensor's norm; measured errors stay below 3e-5.
constexpr double kGradient = 1e-4;
constexpr double kLoss = 1e-5;

void expect_golden_gradients(const std::string& name, Recompute recompute) {
  SCOPED_TRACE(name);
  const GoldenFile golden(golden_dir() / name / "gradients.safetensors");
  const Result<Json> json = read_json(golden_dir() / name / "gradients.json");
  ASSERT_TRUE(json.has_value());
  TrainOptions options;
  const Result<ParsedConfig> parsed = load_config(golden_dir() / name);
  if (parsed->config.n_routed_experts > 0) options.expert_balance_alpha = json->find("aux_loss_alpha")->as_double();
  options.recompute = recompute;
  Model model = open_model(name, options);
  const OneSequence sequence(golden.ints("input_ids"));
  ASSERT_TRUE(model.train->check(sequence.batch()));
  const TrainLosses losses = model.train->forward_backward(sequence.batch(), 1.0);
  EXPECT_NEAR(losses.lm / static_cast<double>(losses.targets), json->find("cross_entropy")->as_double(), kLoss);
  if (options.expert_balance_alpha > 0.0) {
    double balance = 0.0;
    for (const auto& [layer, value] : json->find("aux_loss_per_layer")->as_object()) balance += value.as_double();
    EXPECT_NEAR(losses.expert_balance, balance, 1e-6);
  }
  ParameterSet& parameters = model.train->parameters();
  double worst = 0.0;
  size_t compared = 0;
  for (size_t i = 0; i < parameters.list().size(); ++i) {
    const Parameter& p = parameters.list()[i];
    SCOPED_TRACE(p.name);
    const std::span<const float> actual = parameters.gradients(static_cast<int64_t>(i));
    const Json* norm = json->find("grad_l2_norm")->find(p.name);
    ASSERT_NE(norm, nullptr);
    const double expected_norm = norm->as_double();
    EXPECT_NEAR(norm_of(actual), expected_norm, kGradient * expected_norm + 1e-9);
    std::vector<float> expected;
    std::vector<float> chosen;
    if (golden.has("grad." + p.name)) {
      expected = golden.floats("grad." + p.name);
      chosen.assign(actual.begin(), actual.end());
    } else {
      expected = golden.floats("grad_sample." + p.name);
      for (const int32_t at : golden.ints("grad_sample_index." + p.name))
        chosen.push_back(actual[static_cast<size_t>(at)]);
    }
    ASSERT_EQ(chosen.size(), expected.size());
    const double share = std::sqrt(static_cast<double>(expected.size()) / static_cast<double>(p.size));
    const double scale = std::max(norm_of(expected), share * expected_norm);
    EXPECT_LE(distance(chosen, expected), kGradient * scale + 1e-9);
    if (scale > 1e-4) worst = std::max(worst, distance(chosen, expected) / scale);
    ++compared;
  }
  EXPECT_GT(compared, 10U);
  ::testing::Test::RecordProperty(name + "_worst_relative_error", std::to_string(worst));
}

TEST(TrainGradients, MatchTheGoldenOnesOfEveryVariant) {
  for (const char* name : {"v2lite-tiny", "v2-tiny", "deepseek-moe-tiny", "llama-gqa-tiny"}) {
    expect_golden_gradients(name, Recompute::kLatents);
  }
}

std::vector<float> gradients_of(const std::string& name, TrainOptions options, int threads, const TrainBatch& batch) {
  Model model = open_model(name, options, threads);
  model.train->forward_backward(batch, 0.5);
  const std::span<const float> all = model.train->parameters().gradients();
  return {all.begin(), all.end()};
}

// Several documents and sequences of random tokens below `vocabulary`.
struct Packed : PackedRows {
  explicit Packed(int32_t vocabulary) {
    uint64_t state = 5;
    for (int i = 0; i < 230; ++i) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      token_ids.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary)));
    }
    sequences = {0, 100};
    documents = {0, 37, 100, 101, 180};
    sequence_ids = {1, 2};
    targets.assign(token_ids.begin() + 1, token_ids.end());
    targets.push_back(kIgnoredTarget);
    for (const int64_t start : documents) {
      if (start > 0) targets[static_cast<size_t>(start - 1)] = kIgnoredTarget;
    }
  }
};

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST(TrainGradients, ThreadsAndRecomputationChangeNoBit) {
  for (const char* name : {"v2-tiny", "v3-tiny", "llama-gqa-tiny"}) {
    SCOPED_TRACE(name);
    const Packed packed(200);
    TrainOptions options;
    options.drop_tokens = true;
    if (std::string_view(name) == "v3-tiny") options.mtp_lambda = 0.3;
    const std::vector<float> expected = gradients_of(name, options, 1, packed.batch());
    EXPECT_GT(norm_of(expected), 0.0);
    for (const int threads : {2, 3})
      EXPECT_TRUE(same_bits(gradients_of(name, options, threads, packed.batch()), expected)) << threads;
    for (const Recompute recompute : {Recompute::kNothing, Recompute::kLayers}) {
      options.recompute = recompute;
      EXPECT_TRUE(same_bits(gradients_of(name, options, 2, packed.batch()), expected)) << static_cast<int>(recompute);
    }
  }
}

// The gradient along a random direction against a central difference of the loss, for what the golden data do not have:
// the V3 gate and its loss, several documents and sequences, all three balance losses, target weights.
void expect_directional_derivative(const std::string& name, TrainOptions options, double tolerance) {
  SCOPED_TRACE(name);
  Packed packed(200);
  std::vector<float> weights;
  for (size_t i = 0; i < packed.token_ids.size(); ++i) weights.push_back(i % 3 == 0 ? -0.5F : 1.5F);
  TrainBatch batch = packed.batch();
  batch.target_weights = weights;
  Model model = open_model(name, options);
  ParameterSet& parameters = model.train->parameters();
  model.train->forward_backward(batch, 1.0);
  const std::vector<float> gradient(parameters.gradients().begin(), parameters.gradients().end());
  const std::vector<float> values(parameters.values().begin(), parameters.values().end());
  // Along the gradient itself the difference is largest against rounding. The step is short enough that no token
  // changes its experts, which the loss jumps at and the gradient does not know.
  const double length = norm_of(gradient);
  ASSERT_GT(length, 0.0);
  const double step = 2e-4 / length;
  double losses[2] = {};
  std::vector<std::vector<int64_t>> loads[2];
  for (const int side : {0, 1}) {
    const double factor = side == 0 ? -step : step;
    for (size_t i = 0; i < values.size(); ++i)
      parameters.values()[i] = static_cast<float>(values[i] + factor * gradient[i]);
    const TrainLosses evaluated = model.train->evaluate(batch);
    losses[side] = evaluated.total();
    loads[side] = evaluated.expert_load;
  }
  ASSERT_EQ(loads[0], loads[1]);
  const double measured = (losses[1] - losses[0]) / (2.0 * step);
  EXPECT_NEAR(measured, length * length, tolerance * length * length);
}

TEST(TrainGradients, AreTheSlopeOfTheLoss) {
  TrainOptions v2;
  v2.expert_balance_alpha = 0.5;
  v2.device_balance_alpha = 0.5;
  v2.communication_balance_alpha = 0.5;
  expect_directional_derivative("v2-tiny", v2, 2e-3);
  TrainOptions v3;
  v3.sequence_balance_alpha = 0.5;
  expect_directional_derivative("v3-tiny", v3, 2e-3);
  expect_directional_derivative("llama-gqa-tiny", {}, 2e-3);
  expect_directional_derivative("llama-mqa-tiny", {}, 2e-3);
}

// The loss of the multi-token prediction layer out of the golden logits of its rows.
TEST(TrainModel, MultiTokenPredictionMatchesTheGoldenLogits) {
  const GoldenFile golden(golden_dir() / "v3-tiny" / "expected.safetensors");
  for (const char* prompt : {"short", "mid", "long"}) {
    SCOPED_TRACE(prompt);
    const OneSequence sequence(golden.ints(std::string(prompt) + ".input_ids"));
    const std::vector<float> logits = golden.floats(std::string(prompt) + ".mtp_postnorm.logits");
    TrainOptions options;
    options.mtp_lambda = 0.25;
    Model model = open_model("v3-tiny", options);
    const TrainLosses losses = model.train->evaluate(sequence.batch());
    const auto V = static_cast<size_t>(model.train->config().vocab_size);
    const size_t rows = sequence.token_ids.size() - 2;
    ASSERT_EQ(logits.size(), (rows + 1) * V);
    double expected = 0.0;
    for (size_t t = 0; t < rows; ++t) {
      double sum = 0.0;
      for (size_t i = 0; i < V; ++i) sum += std::exp(static_cast<double>(logits[t * V + i]));
      expected += std::log(sum) - logits[t * V + static_cast<size_t>(sequence.token_ids[t + 2])];
    }
    EXPECT_NEAR(losses.mtp, 0.25 * expected / static_cast<double>(rows), kLoss);
    const std::vector<int32_t> chosen = golden.ints(std::string(prompt) + ".mtp_postnorm.router_idx");
    std::vector<int64_t> load(static_cast<size_t>(model.train->config().n_routed_experts), 0);
    for (const int32_t expert : chosen) ++load[static_cast<size_t>(expert)];
    EXPECT_EQ(losses.expert_load.back(), load);
  }
}

// Documents are as if alone: the logits of the packed batch are those of each document by itself, and of inference.
TEST(TrainModel, LogitsMatchTheGoldenOnes) {
  for (const char* name : {"v2lite-tiny",
                           "v2-tiny",
                           "v3-tiny",
                           "deepseek-moe-tiny",
                           "llama-gqa-tiny",
                           "llama-mha-tiny",
                           "llama-mqa-tiny"}) {
    SCOPED_TRACE(name);
    const GoldenFile golden(golden_dir() / name / "expected.safetensors");
    for (const testing::GoldenModel& variant : testing::golden_models()) {
      if (variant.name != name) continue;
      for (const std::string& prompt : variant.prompts) {
        OneSequence sequence(golden.ints(prompt + ".input_ids"));
        if (sequence.token_ids.size() > 300) continue;
        SCOPED_TRACE(prompt);
        Model model = open_model(name, {});
        const int64_t vocabulary = model.train->config().vocab_size;
        std::vector<float> logits(sequence.token_ids.size() * static_cast<size_t>(vocabulary));
        model.train->logits(sequence.batch(), logits.data());
        const std::vector<float> expected = golden.floats(prompt + ".logits");
        ASSERT_EQ(logits.size(), expected.size());
        double worst = 0.0;
        for (size_t i = 0; i < logits.size(); ++i)
          worst = std::max(worst, std::fabs(static_cast<double>(logits[i]) - expected[i]));
        EXPECT_LE(worst, testing::logit_tolerance(variant, prompt));
      }
    }
  }
}

}  // namespace
}  // namespace lathe
