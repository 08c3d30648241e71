#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "lathe/lathe.h"
#include "lathe/lathe_c.h"
#include "support/compare.h"
#include "support/golden.h"
#include "support/temp_dir.h"

extern "C" int c_header_check(const char* model_name, char* text, size_t text_capacity);

namespace lathe::v1 {
namespace {

constexpr const char* kPrompt = "The king looked at the";
constexpr size_t kNul = LATHE_NUL_TERMINATED;

std::string story_folder() {
  return (std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller").string();
}

lathe_generate_options greedy() {
  lathe_generate_options options = LATHE_GENERATE_OPTIONS_INIT;
  options.max_tokens = 16;
  options.temperature = 0.0;
  return options;
}

// A lathe_completion that gives back its memory.
struct Answer {
  lathe_completion c = LATHE_COMPLETION_INIT;

  Answer() = default;
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  ~Answer() { clear(); }

  void clear() {
    lathe_free(c.text);
    lathe_free(c.token_ids);
    c = LATHE_COMPLETION_INIT;
  }

  std::string text() const { return {c.text, c.text_size}; }

  std::vector<int32_t> ids() const { return {c.token_ids, c.token_ids + c.token_count}; }
};

void expect_failure(lathe_status status, lathe_status expected, const std::string& message) {
  EXPECT_STREQ(lathe_status_name(status), lathe_status_name(expected));
  EXPECT_EQ(lathe_last_error(), message);
}

class CApi : public ::testing::Test {
 protected:
  void SetUp() override {
    lathe_open_options options = LATHE_OPEN_OPTIONS_INIT;
    options.threads = 2;
    options.context_size = 96;
    ASSERT_EQ(lathe_open(story_folder().c_str(), &options, &model_), LATHE_OK) << lathe_last_error();
  }

  void TearDown() override { lathe_close(model_); }

  std::vector<int32_t> tokenize(const std::string& text, uint32_t flags = 0) {
    int32_t* ids = nullptr;
    size_t count = 0;
    EXPECT_EQ(lathe_tokenize(model_, text.data(), text.size(), flags, &ids, &count), LATHE_OK) << lathe_last_error();
    std::vector<int32_t> out(ids, ids + count);
    lathe_free(ids);
    return out;
  }

  lathe_model* model_ = nullptr;
};

TEST_F(CApi, AnswersAsTheCppInterfaceDoes) {
  Expected<Model> model = Model::open(story_folder(), {.threads = 2, .context_size = 96});
  ASSERT_TRUE(model) << model.error().message;
  const Expected<Completion> expected = model->generate(kPrompt, {.max_tokens = 16, .temperature = 0.0});
  ASSERT_TRUE(expected) << expected.error().message;

  struct Seen {
    std::string text;
    std::vector<int32_t> ids;
  } seen;

  const auto collect = [](void* user, int32_t id, const char* text, size_t size) {
    EXPECT_EQ(std::strlen(text), size);
    auto* into = static_cast<Seen*>(user);
    into->text.append(text, size);
    into->ids.push_back(id);
    return 0;
  };
  const lathe_generate_options options = greedy();
  Answer answer;
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &options, collect, &seen, &answer.c), LATHE_OK) << lathe_last_error();
  EXPECT_EQ(answer.text(), expected->text);
  EXPECT_EQ(answer.c.text[answer.c.text_size], '\0');
  EXPECT_EQ(answer.ids(), expected->token_ids);
  EXPECT_EQ(answer.c.finish_reason, LATHE_FINISH_LENGTH);
  EXPECT_EQ(answer.c.prompt_token_count, expected->prompt_tokens);
  EXPECT_GT(answer.c.prefill_seconds, 0.0);
  EXPECT_GT(answer.c.decode_seconds, 0.0);
  EXPECT_EQ(seen.text, expected->text);
  EXPECT_EQ(seen.ids, expected->token_ids);

  answer.clear();
  const std::vector<int32_t> ids = tokenize(kPrompt, LATHE_TOKENIZE_ADD_BOS);
  EXPECT_EQ(ids, *model->tokenize(kPrompt, {.add_bos = true}));
  ASSERT_EQ(lathe_generate_ids(model_, ids.data(), ids.size(), &options, nullptr, nullptr, &answer.c), LATHE_OK);
  EXPECT_EQ(answer.ids(), expected->token_ids);

  EXPECT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, nullptr), LATHE_OK);
}

TEST_F(CApi, ChatAnswersAsTheCppInterfaceDoes) {
  const lathe::testing::TempDir dir;
  for (const char* file : {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}) {
    std::filesystem::create_symlink(std::filesystem::path(story_folder()) / file, dir / file);
  }
  std::ofstream(dir / "tokenizer_config.json")
      << R"({"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>",
             "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"})";
  lathe_model* model = nullptr;
  ASSERT_EQ(lathe_open(dir.path().c_str(), nullptr, &model), LATHE_OK) << lathe_last_error();
  Expected<Model> cpp = Model::open(dir.path().string());
  ASSERT_TRUE(cpp) << cpp.error().message;
  const lathe_message messages[] = {{"system", "Short answers."}, {"user", "Tell me a story."}};
  const lathe_generate_options options = greedy();
  Answer answer;
  ASSERT_EQ(lathe_chat(model, messages, 2, &options, nullptr, nullptr, &answer.c), LATHE_OK) << lathe_last_error();
  const Expected<Completion> expected =
      cpp->chat({{"system", "Short answers."}, {"user", "Tell me a story."}}, {.max_tokens = 16, .temperature = 0.0});
  ASSERT_TRUE(expected) << expected.error().message;
  EXPECT_EQ(answer.ids(), expected->token_ids);
  EXPECT_EQ(answer.c.prompt_token_count, expected->prompt_tokens);
  expect_failure(lathe_chat(model, messages, 0, &options, nullptr, nullptr, nullptr),
                 LATHE_INVALID_ARGUMENT,
                 "messages: expected at least one, found none");
  lathe_close(model);
}

TEST_F(CApi, TextSizeMayLeaveOutTheRest) {
  const std::string longer = std::string(kPrompt) + " and what follows does not count";
  const lathe_generate_options options = greedy();
  Answer whole, part;
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, &whole.c), LATHE_OK);
  ASSERT_EQ(lathe_generate(model_, longer.data(), std::strlen(kPrompt), &options, nullptr, nullptr, &part.c), LATHE_OK);
  EXPECT_EQ(part.ids(), whole.ids());
  Answer empty;
  EXPECT_EQ(lathe_generate(model_, nullptr, 0, &options, nullptr, nullptr, &empty.c), LATHE_OK) << "BOS alone";
  EXPECT_EQ(empty.c.prompt_token_count, 1);
}

TEST_F(CApi, CallbackStops) {
  int calls = 0;
  const auto third = [](void* user, int32_t, const char*, size_t) { return ++*static_cast<int*>(user) == 3 ? -1 : 0; };
  const lathe_generate_options options = greedy();
  Answer answer;
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &options, third, &calls, &answer.c), LATHE_OK) << lathe_last_error();
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(answer.c.finish_reason, LATHE_FINISH_CANCELLED);
  EXPECT_EQ(answer.c.token_count, 3u);
}

TEST_F(CApi, StopTextStops) {
  lathe_generate_options options = greedy();
  Answer whole;
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, &whole.c), LATHE_OK);
  const std::string middle(1, whole.text().at(whole.text().size() / 2));
  const char* stop[] = {middle.c_str()};
  options.stop = stop;
  options.stop_count = 1;
  Answer answer;
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, &answer.c), LATHE_OK);
  EXPECT_EQ(answer.c.finish_reason, LATHE_FINISH_STOP);
  EXPECT_EQ(answer.text(), whole.text().substr(0, whole.text().find(middle)));
  stop[0] = "";
  answer.clear();
  expect_failure(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, &answer.c),
                 LATHE_INVALID_ARGUMENT,
                 "stop: expected texts that are not empty, found an empty one");
}

TEST_F(CApi, NoExceptionOfACallbackGetsThrough) {
  const lathe_generate_options options = greedy();
  const auto standard = [](void*, int32_t, const char*, size_t) -> int {
    throw std::runtime_error("thrown through C");
  };
  expect_failure(
      lathe_generate(model_, kPrompt, kNul, &options, standard, nullptr, nullptr), LATHE_INTERNAL, "thrown through C");
  const auto odd = [](void*, int32_t, const char*, size_t) -> int { throw 7; };
  expect_failure(lathe_generate(model_, kPrompt, kNul, &options, odd, nullptr, nullptr),
                 LATHE_INTERNAL,
                 "an exception of the callback that is not a std::exception");
  const auto memory = [](void*, int32_t, const char*, size_t) -> int { throw std::bad_alloc(); };
  expect_failure(
      lathe_generate(model_, kPrompt, kNul, &options, memory, nullptr, nullptr), LATHE_OUT_OF_MEMORY, "out of memory");
  EXPECT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, nullptr), LATHE_OK);
  EXPECT_STREQ(lathe_last_error(), "out of memory") << "success leaves it";
}

TEST_F(CApi, SeedsAndOlderStructs) {
  lathe_generate_options options = LATHE_GENERATE_OPTIONS_INIT;
  options.max_tokens = 16;
  options.temperature = 1.5;
  options.seed = 11;
  options.use_seed = 1;
  Answer first, second, older;
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, &first.c), LATHE_OK);
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, &second.c), LATHE_OK);
  EXPECT_EQ(first.ids(), second.ids());

  // A caller whose options ended after temperature, whose results ended after the ids: greedy is all it could ask for.
  lathe_generate_options short_options = greedy();
  short_options.struct_size = offsetof(lathe_generate_options, top_k);
  short_options.top_k = -99;
  short_options.stop_count = 1u << 30;
  older.c.struct_size = offsetof(lathe_completion, prompt_token_count);
  older.c.prompt_token_count = 77;
  ASSERT_EQ(lathe_generate(model_, kPrompt, kNul, &short_options, nullptr, nullptr, &older.c), LATHE_OK)
      << lathe_last_error();
  EXPECT_EQ(older.c.token_count, 16u);
  EXPECT_EQ(older.c.prompt_token_count, 77) << "not part of the older struct";
}

TEST_F(CApi, WrongStructSizesAreRefused) {
  lathe_generate_options options = greedy();
  options.struct_size = 0;
  expect_failure(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, nullptr),
                 LATHE_INVALID_ARGUMENT,
                 "generate options.struct_size: expected a multiple of 8 from 8 to 4096, found 0");
  lathe_completion completion = LATHE_COMPLETION_INIT;
  completion.struct_size = 16;
  expect_failure(lathe_generate(model_, kPrompt, kNul, nullptr, nullptr, nullptr, &completion),
                 LATHE_INVALID_ARGUMENT,
                 "completion.struct_size: expected a multiple of 8 from 40 to 4096, found 16");
  lathe_model_info info{};
  expect_failure(lathe_get_model_info(model_, &info),
                 LATHE_INVALID_ARGUMENT,
                 "info.struct_size: expected a multiple of 8 from 8 to 4096, found 0");
}

TEST_F(CApi, FailureLeavesNothingToFree) {
  lathe_generate_options options = greedy();
  options.top_p = 2.0;
  lathe_completion completion = LATHE_COMPLETION_INIT;
  completion.text = reinterpret_cast<char*>(&completion);
  completion.token_count = 9;
  EXPECT_EQ(lathe_generate(model_, kPrompt, kNul, &options, nullptr, nullptr, &completion), LATHE_INVALID_ARGUMENT);
  EXPECT_EQ(completion.text, nullptr);
  EXPECT_EQ(completion.token_ids, nullptr);
  EXPECT_EQ(completion.token_count, 0u);
  EXPECT_EQ(completion.struct_size, sizeof completion);
}

TEST_F(CApi, NullArgumentsAreRefused) {
  const auto refused = [](lathe_status status, const char* name) {
    expect_failure(status, LATHE_INVALID_ARGUMENT, std::string(name) + ": expected a pointer, found NULL");
  };
  int32_t* ids = nullptr;
  char* text = nullptr;
  size_t count = 0;
  float logit = 0.0f;
  const int32_t one = 1;
  lathe_model_info info{};
  info.struct_size = sizeof info;
  const lathe_message no_role[] = {{"user", "a"}, {nullptr, "a"}};
  const lathe_message no_content[] = {{"user", nullptr}};
  lathe_model* other = model_;
  refused(lathe_open(nullptr, nullptr, &other), "name");
  EXPECT_EQ(other, nullptr) << "a failed open leaves NULL";
  refused(lathe_open("x", nullptr, nullptr), "model");
  refused(lathe_get_model_info(nullptr, &info), "model");
  refused(lathe_get_model_info(model_, nullptr), "info");
  refused(lathe_tokenize(nullptr, "a", 1, 0, &ids, &count), "model");
  refused(lathe_tokenize(model_, nullptr, 1, 0, &ids, &count), "text");
  refused(lathe_tokenize(model_, nullptr, kNul, 0, &ids, &count), "text");
  refused(lathe_tokenize(model_, "a", 1, 0, nullptr, &count), "ids");
  refused(lathe_tokenize(model_, "a", 1, 0, &ids, nullptr), "count");
  refused(lathe_detokenize(nullptr, &one, 1, 0, &text, &count), "model");
  refused(lathe_detokenize(model_, nullptr, 1, 0, &text, &count), "ids");
  refused(lathe_detokenize(model_, &one, 1, 0, nullptr, &count), "text");
  refused(lathe_generate(nullptr, "a", 1, nullptr, nullptr, nullptr, nullptr), "model");
  refused(lathe_generate(model_, nullptr, 1, nullptr, nullptr, nullptr, nullptr), "prompt");
  refused(lathe_generate_ids(model_, nullptr, 1, nullptr, nullptr, nullptr, nullptr), "ids");
  refused(lathe_chat(model_, nullptr, 1, nullptr, nullptr, nullptr, nullptr), "messages");
  refused(lathe_chat(model_, no_role, 2, nullptr, nullptr, nullptr, nullptr), "messages[1].role");
  refused(lathe_chat(model_, no_content, 1, nullptr, nullptr, nullptr, nullptr), "messages[0].content");
  refused(lathe_logits(nullptr, &one, 1, LATHE_LOGITS_ALL, &logit, 1), "model");
  refused(lathe_logits(model_, nullptr, 1, LATHE_LOGITS_ALL, &logit, 1 << 20), "ids");
  refused(lathe_logits(model_, &one, 1, LATHE_LOGITS_ALL, nullptr, 1), "logits");
  lathe_close(nullptr);
  lathe_free(nullptr);
}

TEST_F(CApi, TokenizesAndDetokenizes) {
  const std::string text = "The king's 12 naïve cats.";
  const std::vector<int32_t> ids = tokenize(text);
  char* back = nullptr;
  size_t size = 0;
  ASSERT_EQ(lathe_detokenize(model_, ids.data(), ids.size(), 0, &back, &size), LATHE_OK) << lathe_last_error();
  EXPECT_EQ(std::string(back, size), text);
  EXPECT_EQ(back[size], '\0');
  lathe_free(back);

  const std::string bos = "<｜begin▁of▁sentence｜>";
  EXPECT_EQ(tokenize(bos, LATHE_TOKENIZE_RECOGNISE_SPECIAL), (std::vector<int32_t>{0}));
  EXPECT_GT(tokenize(bos).size(), 1u);
  const int32_t bos_id = 0;
  ASSERT_EQ(lathe_detokenize(model_, &bos_id, 1, LATHE_DETOKENIZE_KEEP_SPECIAL, &back, nullptr), LATHE_OK);
  EXPECT_EQ(back, bos);
  lathe_free(back);
  ASSERT_EQ(lathe_detokenize(model_, nullptr, 0, 0, &back, &size), LATHE_OK);
  EXPECT_STREQ(back, "");
  lathe_free(back);

  int32_t* none = nullptr;
  size_t count = 5;
  ASSERT_EQ(lathe_tokenize(model_, "", kNul, 0, &none, &count), LATHE_OK);
  EXPECT_NE(none, nullptr);
  EXPECT_EQ(count, 0u);
  lathe_free(none);
  expect_failure(
      lathe_tokenize(model_, "a", 1, 4, &none, &count), LATHE_INVALID_ARGUMENT, "flags: expected bits of 3, found 4");
  expect_failure(lathe_detokenize(model_, &bos_id, 1, 2, &back, &size),
                 LATHE_INVALID_ARGUMENT,
                 "flags: expected bits of 1, found 2");
  const int32_t beyond = 4096;
  expect_failure(lathe_detokenize(model_, &beyond, 1, 0, &back, &size),
                 LATHE_INVALID_ARGUMENT,
                 "ids[0]: expected token ids from 0 to 4095, found 4096");
  EXPECT_EQ(back, nullptr);
}

TEST_F(CApi, LogitsFillTheCallersBuffer) {
  Expected<Model> model = Model::open(story_folder(), {.threads = 2, .context_size = 96});
  const std::vector<int32_t> ids = tokenize(kPrompt, LATHE_TOKENIZE_ADD_BOS);
  const Logits expected = *model->logits(ids);
  const float untouched = -12345.0f;
  std::vector<float> logits(ids.size() * 4096 + 1, untouched);
  ASSERT_EQ(lathe_logits(model_, ids.data(), ids.size(), LATHE_LOGITS_ALL, logits.data(), logits.size()), LATHE_OK)
      << lathe_last_error();
  lathe::testing::expect_same_bits(std::span(logits).first(logits.size() - 1), expected.values);
  EXPECT_EQ(logits.back(), untouched);
  std::vector<float> last(4096);
  ASSERT_EQ(lathe_logits(model_, ids.data(), ids.size(), LATHE_LOGITS_LAST, last.data(), last.size()), LATHE_OK);
  lathe::testing::expect_same_bits(last, expected.row(expected.rows - 1));

  expect_failure(lathe_logits(model_, ids.data(), 2, LATHE_LOGITS_ALL, logits.data(), 2 * 4096 - 1),
                 LATHE_INVALID_ARGUMENT,
                 "capacity: expected at least 2 x 4096 floats, found 8191");
  expect_failure(lathe_logits(model_, ids.data(), 1, 2, logits.data(), logits.size()),
                 LATHE_INVALID_ARGUMENT,
                 "rows: expected 0 or 1, found 2");
  expect_failure(lathe_logits(model_, ids.data(), 0, LATHE_LOGITS_LAST, logits.data(), logits.size()),
                 LATHE_INVALID_ARGUMENT,
                 "ids: expected 1 to 96 (the context size), found 0");
  const int32_t negative = -1;
  expect_failure(lathe_logits(model_, &negative, 1, LATHE_LOGITS_LAST, logits.data(), logits.size()),
                 LATHE_INVALID_ARGUMENT,
                 "ids[0]: expected token ids from 0 to 4095, found -1");
}

TEST_F(CApi, InfoForOlderAndNewerCallers) {
  struct Newer {
    lathe_model_info known;
    uint64_t news;
  } newer{{}, 55};

  newer.known.struct_size = sizeof newer;
  ASSERT_EQ(lathe_get_model_info(model_, &newer.known), LATHE_OK) << lathe_last_error();
  EXPECT_EQ(newer.known.struct_size, sizeof newer);
  EXPECT_EQ(newer.news, 0u);
  EXPECT_STREQ(newer.known.architecture, "DeepseekV2ForCausalLM");
  EXPECT_EQ(newer.known.vocab_size, 4096);
  EXPECT_EQ(newer.known.context_size, 96);
  EXPECT_EQ(newer.known.max_context_size, 512);
  EXPECT_EQ(newer.known.layer_count, 9);
  EXPECT_EQ(newer.known.hidden_size, 256);
  EXPECT_EQ(newer.known.attention_head_count, 8);
  EXPECT_EQ(newer.known.routed_expert_count, 16);
  EXPECT_EQ(newer.known.experts_per_token, 2);
  EXPECT_EQ(newer.known.cache_bytes_per_token, 9 * (64 + 16) * 2);
  EXPECT_EQ(newer.known.cache_bytes, 128u * 9 * (64 + 16) * 2) << "whole pages";
  EXPECT_GT(newer.known.parameter_count, newer.known.active_parameter_count);
  EXPECT_GT(newer.known.weight_bytes, 0u);
  EXPECT_GT(newer.known.scratch_bytes, 0u);
  EXPECT_EQ(newer.known.thread_count, 2);
  EXPECT_EQ(newer.known.has_tokenizer, 1);
  EXPECT_EQ(newer.known.bos_token_id, 0);
  EXPECT_EQ(newer.known.eos_token_id, 1);
  EXPECT_GT(newer.known.load_seconds, 0.0);

  lathe_model_info older{};
  older.struct_size = offsetof(lathe_model_info, context_size);
  older.context_size = 66;
  ASSERT_EQ(lathe_get_model_info(model_, &older), LATHE_OK);
  EXPECT_EQ(older.vocab_size, 4096);
  EXPECT_EQ(older.context_size, 66);
}

TEST_F(CApi, LastErrorBelongsToItsThread) {
  expect_failure(lathe_open("", nullptr, nullptr), LATHE_INVALID_ARGUMENT, "model: expected a pointer, found NULL");
  const std::string mine = lathe_last_error();
  std::thread([] {
    EXPECT_STREQ(lathe_last_error(), "");
    lathe_model* model = nullptr;
    EXPECT_EQ(lathe_open("no/such/folder/here", nullptr, &model), LATHE_NOT_FOUND);
    EXPECT_NE(std::string(lathe_last_error()).find("no/such/folder/here"), std::string::npos);
  }).join();
  EXPECT_EQ(lathe_last_error(), mine);
}

TEST_F(CApi, TwoThreadsShareAModel) {
  const lathe_generate_options options = greedy();
  const std::array<const char*, 2> prompts = {kPrompt, "Once upon a time"};
  std::array<std::vector<int32_t>, 2> alone, together;
  for (size_t i = 0; i < 2; ++i) {
    Answer answer;
    ASSERT_EQ(lathe_generate(model_, prompts[i], kNul, &options, nullptr, nullptr, &answer.c), LATHE_OK);
    alone[i] = answer.ids();
  }
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      Answer answer;
      if (lathe_generate(model_, prompts[i], kNul, &options, nullptr, nullptr, &answer.c) == LATHE_OK) {
        together[i] = answer.ids();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(together, alone);
}

TEST(COpen, ReportsWhatIsWrong) {
  lathe_model* model = reinterpret_cast<lathe_model*>(&model);
  expect_failure(
      lathe_open("no/such/folder/here", nullptr, &model),
      LATHE_NOT_FOUND,
      "model \"no/such/folder/here\": no such file or folder, and not a name ORG/NAME[@REVISION] of the hub cache");
  EXPECT_EQ(model, nullptr);
  lathe_open_options options = LATHE_OPEN_OPTIONS_INIT;
  options.context_size = -1;
  expect_failure(lathe_open(story_folder().c_str(), &options, &model),
                 LATHE_INVALID_ARGUMENT,
                 "context_size: expected 0 (automatic) or more, found -1");
  options.struct_size = 3;
  expect_failure(lathe_open(story_folder().c_str(), &options, &model),
                 LATHE_INVALID_ARGUMENT,
                 "open options.struct_size: expected a multiple of 8 from 8 to 4096, found 3");
}

TEST(CNames, OfStatusAndVersion) {
  EXPECT_EQ(lathe_abi_version(), static_cast<uint32_t>(LATHE_ABI_VERSION));
  EXPECT_STREQ(lathe_version(), LATHE_VERSION);
  EXPECT_STREQ(lathe_status_name(LATHE_OK), "ok");
  EXPECT_STREQ(lathe_status_name(LATHE_INVALID_ARGUMENT), "invalid argument");
  EXPECT_STREQ(lathe_status_name(LATHE_INTERNAL), "internal error");
  for (int32_t status = LATHE_OK; status <= LATHE_INTERNAL; ++status) {
    EXPECT_STRNE(lathe_status_name(status), "unknown status") << status;
  }
  EXPECT_STREQ(lathe_status_name(10), "unknown status");
  EXPECT_STREQ(lathe_status_name(-1), "unknown status");
}

TEST(CHeader, ServesAC99Program) {
  char text[4096] = "";
  ASSERT_EQ(c_header_check(story_folder().c_str(), text, sizeof text), 0) << lathe_last_error();
  Expected<Model> model = Model::open(story_folder(), {.threads = 1});
  EXPECT_EQ(model->generate("The king", {.max_tokens = 8, .temperature = 0.0})->text, text);
}

}  // namespace
}  // namespace lathe::v1
