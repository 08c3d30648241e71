#include "lathe/model/generation_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "lathe/base/str.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using ::testing::ElementsAre;

TEST(GenerationDefaults, ReadsWhatIsThereAndKeepsTheRest) {
  const Result<GenerationDefaults> golden = load_generation_defaults(testing::golden_dir() / "v2-tiny");
  ASSERT_TRUE(golden.has_value()) << golden.error().message;
  EXPECT_TRUE(golden->do_sample);
  EXPECT_EQ(golden->temperature, 0.3);
  EXPECT_EQ(golden->top_p, 0.95);
  EXPECT_EQ(golden->top_k, 0);
  EXPECT_THAT(golden->eos_token_ids, ElementsAre(319));

  const testing::TempDir folder;
  EXPECT_EQ(load_generation_defaults(folder.path())->temperature, 1.0);
  const std::filesystem::path file = folder / "generation_config.json";
  std::ofstream(file) << R"({"temperature": null, "top_k": 50.0, "eos_token_id": [1, 2], "max_new_tokens": 7})";
  const Result<GenerationDefaults> some = load_generation_defaults(folder.path());
  ASSERT_TRUE(some.has_value()) << some.error().message;
  EXPECT_EQ(some->temperature, 1.0);
  EXPECT_EQ(some->top_k, 50);
  EXPECT_THAT(some->eos_token_ids, ElementsAre(1, 2));
  EXPECT_EQ(some->dry_multiplier, 0.0);
  std::ofstream(file) << R"({"dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3})";
  const Result<GenerationDefaults> dry = load_generation_defaults(folder.path());
  ASSERT_TRUE(dry.has_value()) << dry.error().message;
  EXPECT_EQ(dry->dry_multiplier, 0.8);
  EXPECT_EQ(dry->dry_base, 2.0);
  EXPECT_EQ(dry->dry_allowed_length, 3);
}

TEST(GenerationDefaults, ErrorsNameFileAndField) {
  const testing::TempDir folder;
  const std::filesystem::path file = folder / "generation_config.json";
  const auto message = [&](std::string_view text) {
    std::ofstream(file) << text;
    const Result<GenerationDefaults> result = load_generation_defaults(folder.path());
    return result ? std::string("accepted") : result.error().message;
  };
  EXPECT_EQ(message(R"({"top_p": 0})"), str(file, ": top_p: expected a number above 0 and at most 1, found 0"));
  EXPECT_EQ(message(R"({"temperature": "hot"})"),
            str(file, ": temperature: expected a number from 0 to 1000, found \"hot\""));
  EXPECT_EQ(message(R"({"dry_allowed_length": 0})"),
            str(file, ": dry_allowed_length: expected an integer from 1 to 1048576, found 0"));
  EXPECT_EQ(message(R"({"eos_token_id": [1, null]})"),
            str(file, ": eos_token_id: expected an integer from 0 to 16777215, found null"));
  EXPECT_EQ(message("[]"), str(file, ": expected an object, found an array"));
}

}  // namespace
}  // namespace lathe
