// Ten steps of training against those of an independent program in float64 (tools/golden/make_training_curves.py):
// losses, gradient norms, dropped assignments, and every tensor after the last step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lathe/train/adamw.h"
#include "lathe/train/train_model.h"
#include "support/golden_file.h"

namespace lathe {
namespace {

using testing::golden_dir;

// fp32 against float64, relative. The models learn fast, so rounding grows with the steps: measured are losses within
// 5e-6 over the first five steps and 4.5e-5 later, gradient norms within 2e-4, norms of tensors within 4e-6.
constexpr double kEarlyLoss = 1e-5;
constexpr double kLateLoss = 1e-4;
constexpr size_t kEarlySteps = 5;
constexpr double kNorm = 5e-4;
constexpr double kWeight = 1e-5;

// The sequences of one step, end to end, each a document.
struct Batch : PackedRows {
  explicit Batch(const Json& json) {
    for (const Json& sequence : json.as_array()) {
      sequence_ids.push_back(sequences.size());
      sequences.push_back(static_cast<int64_t>(token_ids.size()));
      for (const Json& id : sequence.as_array()) token_ids.push_back(static_cast<int32_t>(id.as_int()));
      targets.insert(targets.end(), token_ids.begin() + sequences.back() + 1, token_ids.end());
      targets.push_back(kIgnoredTarget);
    }
    documents = sequences;
  }
};

double number_or(const Json& json, const char* key, double fallback) {
  const Json* value = json.find(key);
  return value == nullptr ? fallback : value->as_double();
}

double norm_of(std::span<const float> values) {
  double sum = 0.0;
  for (const float v : values) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

class TrainCurves : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    Result<Json> json = read_json(golden_dir() / "curves" / "curves.json");
    ASSERT_TRUE(json.has_value()) << json.error().message;
    golden_ = *std::move(json);
    for (const Json& run : golden_.find("runs")->as_array()) {
      if (run.find("name")->as_string() == GetParam()) run_ = run;
    }
    ASSERT_TRUE(run_.is_object());
  }

  TrainOptions options() const {
    TrainOptions out;
    out.max_tokens = 64;
    out.expert_balance_alpha = number_or(run_, "expert", 0.0);
    out.device_balance_alpha = number_or(run_, "device", 0.0);
    out.communication_balance_alpha = number_or(run_, "communication", 0.0);
    out.sequence_balance_alpha = number_or(run_, "sequence", 0.0);
    out.bias_update_speed = number_or(run_, "bias_speed", 0.0);
    out.mtp_lambda = number_or(run_, "mtp", 0.0);
    out.drop_tokens = run_.find("capacity") != nullptr;
    out.capacity_factor = number_or(run_, "capacity", 1.0);
    out.protected_fraction = 0.0;
    return out;
  }

  double value(const char* key, size_t step) const { return run_.find(key)->as_array()[step].as_double(); }

  Json golden_;
  Json run_;
};

TEST_P(TrainCurves, TenStepsMatchTheGoldenOnes) {
  const std::filesystem::path folder = golden_dir() / run_.find("model")->as_string();
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(2).value();
  const Result<ParsedConfig> parsed = load_config(folder);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  Result<std::unique_ptr<TrainModel>> model = TrainModel::create(parsed->config, options(), *pool, kernels());
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder);
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  ASSERT_TRUE((*model)->load(*checkpoint));
  ParameterSet& parameters = (*model)->parameters();
  const Json& settings = *golden_.find("settings");
  Result<AdamW> optimizer = AdamW::create({.beta1 = settings.find("beta1")->as_double(),
                                           .beta2 = settings.find("beta2")->as_double(),
                                           .epsilon = settings.find("epsilon")->as_double(),
                                           .weight_decay = settings.find("weight_decay")->as_double()},
                                          parameters.size(),
                                          *pool,
                                          kernels());
  ASSERT_TRUE(optimizer.has_value());
  const std::vector<Json>& batches = golden_.find("batches")->as_array();
  const double warmup = settings.find("warmup_steps")->as_double();
  const auto steps = static_cast<size_t>(golden_.find("steps")->as_int());
  for (size_t step = 0; step < steps; ++step) {
    SCOPED_TRACE(step);
    const Batch batch(batches[step % batches.size()]);
    ASSERT_TRUE((*model)->check(batch.batch()));
    parameters.zero_gradients(*pool);
    const TrainLosses losses = (*model)->forward_backward(batch.batch(), 1.0);
    const double tolerance = step < kEarlySteps ? kEarlyLoss : kLateLoss;
    const double loss = losses.lm / static_cast<double>(losses.targets);
    EXPECT_NEAR(loss, value("cross_entropy", step), tolerance * value("cross_entropy", step));
    EXPECT_NEAR(losses.mtp, value("mtp_loss", step), tolerance * value("mtp_loss", step));
    EXPECT_NEAR(losses.total() - loss - losses.mtp, value("balance", step), tolerance * value("balance", step));
    EXPECT_EQ(losses.dropped_assignments, static_cast<int64_t>(value("dropped", step)));
    const double norm = optimizer->global_norm(parameters);
    EXPECT_NEAR(norm, value("grad_norm", step), kNorm * value("grad_norm", step));
    const double rate =
        settings.find("learning_rate")->as_double() * std::min(1.0, static_cast<double>(step + 1) / warmup);
    optimizer->step(parameters, rate, AdamW::clip_factor(norm, settings.find("clip")->as_double()));
    (*model)->update_router_biases();
  }
  EXPECT_LT(value("cross_entropy", steps - 1), 0.9 * value("cross_entropy", 0));  // it did learn
  const Json::Object& norms = run_.find("weight_norms")->as_object();
  std::set<std::string> biases;
  for (size_t i = 0; i < parameters.list().size(); ++i) {
    const std::string& name = parameters.list()[i].name;
    SCOPED_TRACE(name);
    if (name.ends_with("e_score_correction_bias")) {
      biases.insert(name);
      continue;
    }
    const Json* expected = run_.find("weight_norms")->find(name);
    ASSERT_NE(expected, nullptr);
    const double actual = norm_of(parameters.values(static_cast<int64_t>(i)));
    EXPECT_NEAR(actual, expected->as_double(), kWeight * expected->as_double());
  }
  EXPECT_EQ(norms.size() + biases.size(), parameters.list().size());
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         TrainCurves,
                         ::testing::Values("v2lite", "v2", "v2_dropping", "v3", "v3_mtp", "deepseek_moe", "llama"),
                         [](const auto& run) { return std::string(run.param); });

}  // namespace
}  // namespace lathe
