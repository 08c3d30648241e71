#include "lathe/api/c_structs.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>

namespace lathe::v1 {
namespace {

// What a newer header might have made of the options.
struct NewerGenerateOptions {
  lathe_generate_options known;
  uint64_t news[2];
};

lathe_generate_options initial() {
  return LATHE_GENERATE_OPTIONS_INIT;
}

std::string message_of(const lathe_generate_options& options) {
  const Expected<GenerateOptions> typed = to_generate_options(&options);
  if (typed) return "accepted";
  EXPECT_EQ(typed.error().code, ErrorCode::kInvalidArgument);
  return typed.error().message;
}

std::string message_of(const lathe_open_options& options) {
  const Expected<OpenOptions> typed = to_open_options(&options);
  if (typed) return "accepted";
  EXPECT_EQ(typed.error().code, ErrorCode::kInvalidArgument);
  return typed.error().message;
}

void expect_defaults(const Expected<GenerateOptions>& options) {
  ASSERT_TRUE(options) << options.error().message;
  const GenerateOptions defaults;
  EXPECT_EQ(options->max_tokens, defaults.max_tokens);
  EXPECT_EQ(options->temperature, defaults.temperature);
  EXPECT_EQ(options->top_k, defaults.top_k);
  EXPECT_EQ(options->top_p, defaults.top_p);
  EXPECT_EQ(options->min_p, defaults.min_p);
  EXPECT_EQ(options->repetition_penalty, defaults.repetition_penalty);
  EXPECT_EQ(options->presence_penalty, defaults.presence_penalty);
  EXPECT_EQ(options->frequency_penalty, defaults.frequency_penalty);
  EXPECT_EQ(options->seed, defaults.seed);
  EXPECT_EQ(options->stop, defaults.stop);
  EXPECT_EQ(options->dry_multiplier, defaults.dry_multiplier);
  EXPECT_EQ(options->dry_base, defaults.dry_base);
  EXPECT_EQ(options->dry_allowed_length, defaults.dry_allowed_length);
  EXPECT_EQ(options->dry_penalty_last_n, defaults.dry_penalty_last_n);
  EXPECT_EQ(options->dry_sequence_breakers, defaults.dry_sequence_breakers);
  EXPECT_EQ(options->ignore_eos, defaults.ignore_eos);
}

TEST(GenerateOptionsOfC, InitMacroAndNullAreTheDefaultsOfCpp) {
  const lathe_generate_options options = initial();
  expect_defaults(to_generate_options(&options));
  expect_defaults(to_generate_options(nullptr));
}

TEST(GenerateOptionsOfC, EveryFieldArrives) {
  const char* stop[] = {"\n\n", "End"};
  lathe_generate_options options = initial();
  options.max_tokens = 7;
  options.temperature = 0.5;
  options.top_k = 3;
  options.top_p = 0.25;
  options.min_p = 0.125;
  options.repetition_penalty = 1.5;
  options.presence_penalty = -1.0;
  options.frequency_penalty = 2.0;
  options.seed = 99;
  options.ignore_eos = 1;
  options.stop = stop;
  options.stop_count = 2;
  options.dry_multiplier = 0.8;
  options.dry_base = 1.5;
  options.dry_allowed_length = 4;
  options.dry_penalty_last_n = 256;
  options.dry_sequence_breakers = stop;
  options.dry_sequence_breaker_count = 1;
  EXPECT_EQ(to_generate_options(&options)->seed, std::nullopt) << "use_seed is 0";
  options.use_seed = 1;
  const Expected<GenerateOptions> typed = to_generate_options(&options);
  ASSERT_TRUE(typed) << typed.error().message;
  EXPECT_EQ(typed->max_tokens, 7);
  EXPECT_EQ(typed->temperature, 0.5);
  EXPECT_EQ(typed->top_k, 3);
  EXPECT_EQ(typed->top_p, 0.25);
  EXPECT_EQ(typed->min_p, 0.125);
  EXPECT_EQ(typed->repetition_penalty, 1.5);
  EXPECT_EQ(typed->presence_penalty, -1.0);
  EXPECT_EQ(typed->frequency_penalty, 2.0);
  EXPECT_EQ(typed->seed, 99u);
  EXPECT_TRUE(typed->ignore_eos);
  EXPECT_EQ(typed->stop, (std::vector<std::string>{"\n\n", "End"}));
  EXPECT_EQ(typed->dry_multiplier, 0.8);
  EXPECT_EQ(typed->dry_base, 1.5);
  EXPECT_EQ(typed->dry_allowed_length, 4);
  EXPECT_EQ(typed->dry_penalty_last_n, 256);
  EXPECT_EQ(typed->dry_sequence_breakers, std::vector<std::string>{"\n\n"});
  options.dry_sequence_breaker_count = 0;
  EXPECT_EQ(to_generate_options(&options)->dry_sequence_breakers, std::vector<std::string>());
}

TEST(GenerateOptionsOfC, FieldsBeyondAnOlderCallersStructTakeDefaults) {
  lathe_generate_options options = initial();
  options.max_tokens = 5;
  options.temperature = 0.25;
  options.top_k = 9;  // here the older struct ends; what follows is not the caller's
  options.top_p = -77.0;
  options.stop_count = 1'000'000;
  options.struct_size = offsetof(lathe_generate_options, top_p);
  const Expected<GenerateOptions> typed = to_generate_options(&options);
  ASSERT_TRUE(typed) << typed.error().message;
  EXPECT_EQ(typed->max_tokens, 5);
  EXPECT_EQ(typed->temperature, 0.25);
  EXPECT_EQ(typed->top_k, 9);
  EXPECT_EQ(typed->top_p, std::nullopt);
  EXPECT_TRUE(typed->stop.empty());

  options.struct_size = sizeof(size_t);
  expect_defaults(to_generate_options(&options));
}

TEST(GenerateOptionsOfC, NewerCallersStructIsAcceptedIfItsNewsAreZero) {
  NewerGenerateOptions newer{.known = initial(), .news = {0, 0}};
  newer.known.struct_size = sizeof newer;
  newer.known.max_tokens = 5;
  const Expected<GenerateOptions> typed = to_generate_options(&newer.known);
  ASSERT_TRUE(typed) << typed.error().message;
  EXPECT_EQ(typed->max_tokens, 5);

  newer.news[1] = uint64_t{1} << 63;  // the very last byte
  EXPECT_EQ(message_of(newer.known),
            "generate options: expected zeros in the fields that this version does not know, found others");
}

TEST(GenerateOptionsOfC, WrongStructSizesAreRefused) {
  lathe_generate_options options = initial();
  const std::string expected = "generate options.struct_size: expected a multiple of 8 from 8 to 4096, found ";
  for (const size_t size : {size_t{0}, size_t{4}, size_t{20}, size_t{4104}, std::numeric_limits<size_t>::max()}) {
    options.struct_size = size;
    EXPECT_EQ(message_of(options), expected + std::to_string(size));
  }
}

TEST(GenerateOptionsOfC, StopTextsAreChecked) {
  lathe_generate_options options = initial();
  options.stop_count = 2;
  EXPECT_EQ(message_of(options), "generate options.stop: expected 2 texts, found NULL");
  const char* stop[] = {"a", nullptr};
  options.stop = stop;
  EXPECT_EQ(message_of(options), "generate options.stop[1]: expected a text, found NULL");
  options.stop_count = 1;
  options.dry_sequence_breakers = stop;
  options.dry_sequence_breaker_count = 2;
  EXPECT_EQ(message_of(options), "generate options.dry_sequence_breakers[1]: expected a text, found NULL");
}

TEST(OpenOptionsOfC, InitMacroAndNullAreTheDefaultsOfCpp) {
  const lathe_open_options initialised = LATHE_OPEN_OPTIONS_INIT;
  for (const lathe_open_options* options : {&initialised, static_cast<const lathe_open_options*>(nullptr)}) {
    const Expected<OpenOptions> typed = to_open_options(options);
    ASSERT_TRUE(typed) << typed.error().message;
    EXPECT_EQ(typed->threads, 0);
    EXPECT_EQ(typed->context_size, 0);
    EXPECT_EQ(typed->cache_type, CacheType::kAuto);
    EXPECT_EQ(typed->compute, Compute::kAuto);
    EXPECT_EQ(typed->weight_type, "");
    EXPECT_EQ(typed->packed_folder, "");
  }
}

TEST(OpenOptionsOfC, EveryFieldArrives) {
  lathe_open_options options = LATHE_OPEN_OPTIONS_INIT;
  options.threads = 2;
  options.context_size = 128;
  options.compute = LATHE_COMPUTE_F32;
  options.weight_type = "q4_0";
  options.packed_folder = "somewhere";
  const std::pair<int32_t, CacheType> types[] = {{LATHE_CACHE_F32, CacheType::kF32},
                                                 {LATHE_CACHE_F16, CacheType::kF16},
                                                 {LATHE_CACHE_BF16, CacheType::kBF16},
                                                 {LATHE_CACHE_Q8, CacheType::kQ8},
                                                 {LATHE_CACHE_Q6, CacheType::kQ6}};
  for (const auto& [number, type] : types) {
    options.cache_type = number;
    const Expected<OpenOptions> typed = to_open_options(&options);
    ASSERT_TRUE(typed) << typed.error().message;
    EXPECT_EQ(typed->threads, 2);
    EXPECT_EQ(typed->context_size, 128);
    EXPECT_EQ(typed->cache_type, type);
    EXPECT_EQ(typed->compute, Compute::kF32);
    EXPECT_EQ(typed->weight_type, "q4_0");
    EXPECT_EQ(typed->packed_folder, "somewhere");
  }
}

TEST(OpenOptionsOfC, UnknownValuesAreRefused) {
  lathe_open_options options = LATHE_OPEN_OPTIONS_INIT;
  options.cache_type = 6;
  EXPECT_EQ(message_of(options), "open options.cache_type: expected 0 to 5, found 6");
  options = LATHE_OPEN_OPTIONS_INIT;
  options.compute = -1;
  EXPECT_EQ(message_of(options), "open options.compute: expected 0 or 1, found -1");
  options = LATHE_OPEN_OPTIONS_INIT;
  options.reserved = 1;
  EXPECT_EQ(message_of(options), "open options.reserved: expected 0, found 1");
  options = LATHE_OPEN_OPTIONS_INIT;
  options.struct_size = 7;
  EXPECT_EQ(message_of(options), "open options.struct_size: expected a multiple of 8 from 8 to 4096, found 7");
}

TEST(ResultsOfC, AreCutToAnOlderStructAndZeroedInANewerOne) {
  struct Newer {
    lathe_completion known;
    uint64_t news;
  };

  lathe_completion result = LATHE_COMPLETION_INIT;
  result.text_size = 3;
  result.prompt_token_count = 4;
  result.decode_seconds = 5.0;

  Newer newer{.known = LATHE_COMPLETION_INIT, .news = 77};
  newer.known.struct_size = sizeof newer;
  write_result(result, &newer.known);
  EXPECT_EQ(newer.known.struct_size, sizeof newer);
  EXPECT_EQ(newer.known.text_size, 3u);
  EXPECT_EQ(newer.known.decode_seconds, 5.0);
  EXPECT_EQ(newer.news, 0u);

  lathe_completion older = LATHE_COMPLETION_INIT;
  older.struct_size = offsetof(lathe_completion, prompt_token_count);
  older.prompt_token_count = 88;
  write_result(result, &older);
  EXPECT_EQ(older.text_size, 3u);
  EXPECT_EQ(older.prompt_token_count, 88) << "beyond the older struct";
}

}  // namespace
}  // namespace lathe::v1
