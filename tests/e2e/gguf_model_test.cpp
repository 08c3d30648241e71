// Whole models out of GGUF files, in the forms that converters have written: golden tokens from the engine, golden
// logits from the reference, and the two traps of this format.
#include "support/gguf_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lathe/attention/rope.h"
#include "lathe/model/config_rope.h"
#include "lathe/model/model_files.h"
#include "lathe/reference/reference_backend.h"
#include "lathe/runtime/engine.h"
#include "support/golden_file.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using testing::Forward;
using testing::forward_once;
using testing::gguf_of;
using testing::GgufDraft;
using testing::golden_dir;
using testing::golden_models;
using testing::GoldenFile;
using testing::GoldenModel;
using testing::LatentForm;
using testing::logit_tolerance;
using testing::TempDir;

ModelConfig config_of(const std::filesystem::path& path) {
  const Result<ModelFiles> files = ModelFiles::open(path);
  EXPECT_TRUE(files.has_value()) << (files ? "" : files.error().message);
  const Result<ParsedConfig> parsed = files->config();
  EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
  return parsed ? parsed->config : ModelConfig{};
}

// The first prompts of a model that are short enough for the reference.
std::vector<std::string> short_prompts(const GoldenModel& model, const GoldenFile& expected) {
  std::vector<std::string> out;
  for (const std::string& prompt : model.prompts) {
    if (expected.ints(prompt + ".input_ids").size() <= 64) out.push_back(prompt);
  }
  return out;
}

TEST(GgufModel, EngineGivesTheGoldenTokens) {
  const TempDir dir;
  int compared = 0;
  for (const GoldenModel& model : golden_models()) {
    if (model.name == "v3-tiny-fp8" || model.name == "storyteller") continue;  // no such type; no tokens
    const GoldenFile expected(model.expected / "expected.safetensors");
    for (const LatentForm form : {LatentForm::kJoint, LatentForm::kSplit}) {
      SCOPED_TRACE(model.name);
      gguf_of(model.folder, {.latent = form}).write(dir / "m.gguf");
      EngineOptions options;
      options.model = dir / "m.gguf";
      options.threads = 2;
      options.ctx_size = 256;
      options.compute = Compute::kF32;
      Result<std::unique_ptr<Engine>> engine = Engine::open(options);
      ASSERT_TRUE(engine.has_value()) << engine.error().message;
      EXPECT_EQ((*engine)->tokenizer(), nullptr);
      EXPECT_FALSE((*engine)->warnings().empty());  // says that there is no tokenizer
      for (const std::string& prompt : short_prompts(model, expected)) {
        Request request;
        request.prompt = expected.ints(prompt + ".input_ids");
        const std::vector<int32_t> wanted = expected.ints(prompt + ".greedy_ids");
        request.max_tokens = static_cast<int64_t>(wanted.size());
        request.sampling.temperature = 0.0;
        const Result<Completion> completion = (*engine)->generate(std::move(request));
        ASSERT_TRUE(completion.has_value()) << completion.error().message;
        std::vector<int32_t> ids;
        for (const SampledToken& token : completion->tokens) ids.push_back(token.id);
        EXPECT_EQ(ids, wanted) << prompt;
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 12);
}

TEST(GgufModel, ReferenceReadsTheSplitForm) {
  const TempDir dir;
  for (const GoldenModel& model : golden_models()) {
    if (model.name != "v2-tiny" && model.name != "v2lite-tiny" && model.name != "v3-tiny") continue;
    SCOPED_TRACE(model.name);
    gguf_of(model.folder, {.latent = LatentForm::kSplit}).write(dir / "m.gguf");
    const ModelConfig config = config_of(dir / "m.gguf");
    Result<Checkpoint> checkpoint = Checkpoint::open(dir / "m.gguf");
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    const auto weights = ModelWeights::bind(config, std::make_shared<const Checkpoint>(std::move(*checkpoint)));
    ASSERT_TRUE(weights.has_value()) << weights.error().message;
    const GoldenFile expected(model.expected / "expected.safetensors");
    const std::string prompt = short_prompts(model, expected).front();
    reference::ReferenceBackend backend(**weights);
    const Forward run = forward_once(config, backend, expected.ints(prompt + ".input_ids"), {});
    const std::vector<float> logits = expected.floats(prompt + ".logits");
    ASSERT_EQ(run.logits.size(), logits.size());
    for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(run.logits[i], logits[i], logit_tolerance(model, prompt));
  }
}

// Other engines put 1 + 0.1 ln s on cosines and sines and take it out again; a file of theirs has only the softmax
// factor's constant. Cosines and sines must stay as they are, and the scores get the square of g once.
TEST(Traps, T18_GgufYarnScalesScoresOnly) {
  const TempDir dir;
  for (const auto& [name, multiplier] : {std::pair<const char*, double>{"v2lite-tiny", 0.0707}, {"v2-tiny", 0.1}}) {
    SCOPED_TRACE(name);
    gguf_of(golden_dir() / name).write(dir / "m.gguf");
    const ModelConfig config = config_of(dir / "m.gguf");
    const RopeParameters rope = rope_parameters(config);
    const double g = 1.0 + multiplier * std::log(config.rope_scaling.factor);
    EXPECT_EQ(rope_cos_sin_factor(rope), 1.0);
    EXPECT_NEAR(rope_softmax_factor(rope), g * g, 1e-12);
    EXPECT_EQ(attention_scale(config), attention_scale(config_of(golden_dir() / name)));
    RopeParameters wrong = rope;  // what the class default of mscale would make of the same constant
    wrong.mscale = 2.0;
    EXPECT_NE(rope_cos_sin_factor(wrong), 1.0);
  }
}

TEST(Traps, T19_GgufWithoutAGatingFunctionMeansSoftmax) {
  const TempDir dir;
  GgufDraft draft = gguf_of(golden_dir() / "v2-tiny");
  for (const auto& [key, value] : draft.metadata) ASSERT_NE(key, "deepseek2.expert_gating_func");
  draft.write(dir / "m.gguf");
  const ModelConfig softmax = config_of(dir / "m.gguf");
  EXPECT_EQ(softmax.scoring_func, ScoringFunc::kSoftmax);
  EXPECT_EQ(softmax.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(softmax.model_type, ModelType::kDeepseekV2);
  draft.set("deepseek2.expert_gating_func", uint32_t{2});
  draft.write(dir / "m.gguf");
  EXPECT_EQ(config_of(dir / "m.gguf").scoring_func, ScoringFunc::kSigmoid);
  EXPECT_EQ(config_of(dir / "m.gguf").topk_method, TopkMethod::kNoauxTc);
}

}  // namespace
}  // namespace lathe
