#include "lathe/train/resume_check.h"

#include <gtest/gtest.h>

#include "lathe/train/recipe.h"

namespace lathe::train {
namespace {

TEST(ResumeCheck, KeysThatAreNewerThanTheRunHadTheirDefaults) {
  Json before = recipe_json({});
  Json optimizer = *before.find("optimizer");
  std::erase_if(optimizer.as_object(), [](const Json::Member& member) { return member.first == "kind"; });
  before.set("optimizer", optimizer);
  Recipe recipe;
  EXPECT_TRUE(check_same_recipe(before, recipe_json(recipe)).has_value());
  recipe.optimizer.kind = OptimizerKind::kMuon;
  const Status other = check_same_recipe(before, recipe_json(recipe));
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().message, "--resume: optimizer.kind: expected \"adamw\" as in the checkpoint, found \"muon\"");
}

TEST(ResumeCheck, ThePlanOfTheRateMayChangeAndTheRateMayNot) {
  const Json before = recipe_json({});
  Recipe recipe;
  recipe.train.max_steps += 1;
  recipe.schedule.final_ratio = 0.5;
  EXPECT_TRUE(check_same_recipe(before, recipe_json(recipe)).has_value());
  recipe.schedule.learning_rate = 0.25;
  const Status other = check_same_recipe(before, recipe_json(recipe));
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().message, "--resume: schedule.learning_rate: expected 0.001 as in the checkpoint, found 0.25");
}

}  // namespace
}  // namespace lathe::train
