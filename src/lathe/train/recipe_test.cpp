#include "lathe/train/recipe.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lathe/base/file.h"
#include "lathe/train/model_setup.h"
#include "lathe/train/schedule.h"
#include "lathe/train/spike_guard.h"
#include "lathe/train/toml.h"
#include "support/temp_dir.h"

namespace lathe::train {
namespace {

Result<Recipe> parsed(std::string_view text) {
  LATHE_TRY(const Json json, parse_toml(text, "r.toml"));
  return parse_recipe(json);
}

std::string error_of(std::string_view text) {
  const Result<Recipe> recipe = parsed(text);
  return recipe ? std::string("no error") : recipe.error().message;
}

TEST(Recipe, ReadsEverySectionAndKeepsDefaults) {
  const Result<Recipe> recipe = parsed(R"(
title = "t"
seed = 7
[model]
hidden_size = 64
num_hidden_layers = 2
[data]
train = "a.txt"
valid = ["b.txt", "c.jsonl.zst"]
[schedule]
kind = "step"
steps = [0.8, 0.9]
[balance]
drop_tokens = true
devices = 4
device_limit = 2
[[variant]]
name = "other"
set = {"balance.expert" = 0.0}
)");
  ASSERT_TRUE(recipe) << recipe.error().message;
  EXPECT_EQ(recipe->seed, 7u);
  EXPECT_EQ(recipe->model.fields.find("hidden_size")->as_int(), 64);
  EXPECT_EQ(recipe->data.train, std::vector<std::string>{"a.txt"});
  EXPECT_EQ(recipe->data.valid.size(), 2u);
  EXPECT_EQ(recipe->schedule.kind, ScheduleKind::kStep);
  EXPECT_EQ(recipe->schedule.steps, (std::vector<double>{0.8, 0.9}));
  EXPECT_EQ(recipe->optimizer.beta2, 0.95);
  EXPECT_EQ(recipe->balance.device_limit, 2);
  ASSERT_EQ(recipe->variants.size(), 1u);
  EXPECT_EQ(recipe->variants[0].set.find("balance.expert")->as_double(), 0.0);
}

TEST(Recipe, NamesWhatIsWrong) {
  EXPECT_EQ(error_of("[eval]\nevry = 3"), "eval.\"evry\": unknown key, expected one of every or tokens in [eval]");
  EXPECT_EQ(error_of("[train]\nmax_steps = 0"), "train.max_steps: expected an integer from 1 to 2147483648, found 0");
  EXPECT_EQ(error_of("[train]\nmax_steps = \"a\""),
            "train.max_steps: expected an integer from 1 to 2147483648, found \"a\"");
  EXPECT_EQ(error_of("[schedule]\nkind = \"linear\""),
            "schedule.kind: expected constant, cosine or step, found \"linear\"");
  EXPECT_EQ(error_of("[optimizer]\nkind = \"lion\""), "optimizer.kind: expected adamw or muon, found \"lion\"");
  EXPECT_EQ(error_of("[optimizer]\nnewton_schulz_steps = 0"),
            "optimizer.newton_schulz_steps: expected an integer from 1 to 100, found 0");
  EXPECT_EQ(error_of("[checkpoint]\ndtype = \"f16\""), "checkpoint.dtype: expected f32 or bf16, found \"f16\"");
  EXPECT_EQ(error_of("train = 3"), "train: expected a table, found 3");
  EXPECT_EQ(error_of("[data]\ntrain = [1]"), "data.train: expected a list of texts, found 1");
  EXPECT_EQ(error_of("[data]\ntrain = \"a\"\nweights = [1.0, 2.0]"),
            "data.weights: expected one number for each of the 1 files in data.train, found 2");
  EXPECT_EQ(error_of("[data]\nboilerplate_documents = 1"),
            "data.boilerplate_documents: expected 0 or at least 2, found 1, which would take out every line");
  EXPECT_EQ(error_of("[train]\nbatch_sequences_start = 4"),
            "train.batch_ramp_tokens: expected it together with batch_sequences_start, found one of them alone");
  EXPECT_EQ(error_of("[[variant]]\nname = \"a/b\""),
            "variant[0].name: expected letters, digits, - and _, found \"a/b\"");
  EXPECT_TRUE(error_of("[model]\nhiden_size = 3").starts_with("model.\"hiden_size\": unknown key, expected one of "));
  EXPECT_TRUE(error_of("[train\n").starts_with("r.toml: line 1, column 7: ")) << error_of("[train\n");
  EXPECT_TRUE(error_of("title = 2020-01-01").starts_with("r.toml: line 1: expected text, a number, true or false"));
}

TEST(Recipe, OverridesReplaceAndMakeKeys) {
  testing::TempDir folder;
  ASSERT_TRUE(write_file_atomically(folder / "r.toml", "[train]\nmax_steps = 5\n"));
  const std::vector<std::string> overrides{"train.max_steps=9",
                                           "data.train=/x/y.txt",
                                           "output=2024-11-26",
                                           "schedule.learning_rate=3e-4",
                                           "data.valid=[\"a\", \"b\"]"};
  Json document;
  const Result<Recipe> recipe = load_recipe(folder / "r.toml", overrides, &document);
  ASSERT_TRUE(recipe) << recipe.error().message;
  EXPECT_EQ(recipe->train.max_steps, 9);
  EXPECT_EQ(recipe->data.train, std::vector<std::string>{"/x/y.txt"});
  EXPECT_EQ(recipe->output, "2024-11-26");
  EXPECT_EQ(recipe->schedule.learning_rate, 3e-4);
  EXPECT_EQ(recipe->data.valid, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(document.find("train")->find("max_steps")->as_int(), 9);
  EXPECT_EQ(load_recipe(folder / "r.toml", std::vector<std::string>{"x"}).error().message,
            "--set: expected key=value, found \"x\"");
  EXPECT_EQ(load_recipe(folder / "r.toml", std::vector<std::string>{"train.max_steps.x=1"}).error().message,
            "--set: train.max_steps.x: expected a table before x, found integer");
  EXPECT_EQ(load_recipe(folder / "none.toml", {}).error().code, Errc::kNotFound);
}

TEST(Recipe, WhatIsPrintedReadsBackTheSame) {
  Result<Recipe> recipe = parsed("[model]\nhidden_size = 8\n[balance]\nscope = \"batch\"\n[guard]\naction = \"stop\"");
  ASSERT_TRUE(recipe);
  const Json printed = recipe_json(*recipe);
  const Result<Recipe> again = parse_recipe(printed);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(recipe_json(*again), printed);
}

TEST(Schedule, WarmsUpDecaysAndGrowsTheBatch) {
  Recipe recipe;
  recipe.train = {.max_steps = 100, .sequence_length = 10, .batch_sequences = 4};
  recipe.schedule = {.kind = ScheduleKind::kStep, .learning_rate = 1.0, .warmup_steps = 10};
  const Schedule steps(recipe);
  EXPECT_EQ(steps.total_tokens(), 4000);
  EXPECT_DOUBLE_EQ(steps.learning_rate(0, 0), 0.1);
  EXPECT_DOUBLE_EQ(steps.learning_rate(9, 360), 1.0);
  EXPECT_DOUBLE_EQ(steps.learning_rate(59, 2360), 1.0);
  EXPECT_DOUBLE_EQ(steps.learning_rate(60, 2400), 0.316);
  EXPECT_DOUBLE_EQ(steps.learning_rate(90, 3600), 0.316 * 0.316);
  recipe.schedule = {
      .kind = ScheduleKind::kCosine, .learning_rate = 2.0, .warmup_steps = 0, .final_ratio = 0.1, .decay_start = 0.5};
  const Schedule cosine(recipe);
  EXPECT_DOUBLE_EQ(cosine.learning_rate(10, 400), 2.0);
  EXPECT_NEAR(cosine.learning_rate(75, 3000), 2.0 * 0.55, 1e-12);
  EXPECT_NEAR(cosine.learning_rate(100, 4000), 0.2, 1e-12);

  recipe.train.batch_sequences_start = 1;
  recipe.train.batch_ramp_tokens = 300;
  const Schedule ramp(recipe);
  int64_t tokens = 0;
  int64_t last = 0;
  for (int64_t step = 0; step < 100; ++step) {
    EXPECT_GE(ramp.rows(tokens), last);
    last = ramp.rows(tokens);
    tokens += last * 10;
  }
  EXPECT_EQ(ramp.rows(0), 1);
  EXPECT_EQ(last, 4);
  EXPECT_EQ(tokens, ramp.total_tokens());
}

TEST(TrainOptions, RecomputesWhatMemoryAsksFor) {
  Result<Recipe> recipe = parsed(R"(
[model]
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
intermediate_size = 128
[data]
train = "a.txt"
)");
  ASSERT_TRUE(recipe) << recipe.error().message;
  const Result<ModelSetup> setup = set_up_model(*recipe, nullptr);
  ASSERT_TRUE(setup) << setup.error().message;
  constexpr uint64_t kEnough = uint64_t{1} << 40;
  const auto level = [&](uint64_t room) { return train_options(*recipe, setup->config, 2, room)->recompute; };
  const auto needed = [&](Recompute recompute) {
    TrainOptions options = *train_options(*recipe, setup->config, 2, kEnough);
    options.recompute = recompute;
    const TrainMemory plan = *plan_train_memory(setup->config, options, 2);
    return static_cast<uint64_t>(plan.total_with_moments());
  };
  EXPECT_EQ(level(kEnough), Recompute::kNothing);
  EXPECT_EQ(level(2 * needed(Recompute::kNothing)), Recompute::kNothing);
  EXPECT_EQ(level(2 * needed(Recompute::kNothing) - 1), Recompute::kLatents);
  EXPECT_EQ(level(1), Recompute::kLayers);
  recipe->train.recompute = "latents";
  EXPECT_EQ(level(1), Recompute::kLatents);
}

TEST(SpikeGuard, CatchesWhatIsNotFiniteAndWhatIsFarAbove) {
  SpikeGuard guard({.action = GuardAction::kSkip, .margin = 1.0, .deviations = 6.0, .after_steps = 20, .patience = 3});
  EXPECT_TRUE(guard.is_bad(NAN, 1.0));
  EXPECT_TRUE(guard.is_bad(5.0, INFINITY));
  EXPECT_EQ(guard.in_a_row(), 2);
  EXPECT_FALSE(guard.is_bad(9.0, 1.0));
  EXPECT_EQ(guard.in_a_row(), 0);
  for (int i = 0; i < 200; ++i) EXPECT_FALSE(guard.is_bad(5.0 + 0.1 * (i % 3), 1.0)) << i;
  EXPECT_NEAR(guard.mean(), 5.1, 0.1);
  EXPECT_FALSE(guard.is_bad(5.9, 1.0));
  EXPECT_TRUE(guard.is_bad(6.6, 1.0));
  EXPECT_EQ(guard.bad_steps(), 3);
  // Its state, through text, decides the same.
  SpikeGuard copy({.after_steps = 20});
  ASSERT_TRUE(copy.restore(*parse_json(guard.state().dump())));
  EXPECT_EQ(copy.mean(), guard.mean());
  EXPECT_FALSE(copy.restore(Json::object()));
  SpikeGuard off({.action = GuardAction::kOff});
  EXPECT_FALSE(off.is_bad(NAN, 1.0));
}

}  // namespace
}  // namespace lathe::train
