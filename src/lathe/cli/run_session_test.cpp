#include "lathe/cli/run_session.h"

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "lathe/cli/common.h"
#include "support/temp_dir.h"

namespace lathe::cli {
namespace {

// A template that shows which turns it was given.
constexpr const char* kTemplate =
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:";

class RunSessionTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    EngineOptions options;
    options.model = std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller";
    options.threads = 1;
    options.ctx_size = 96;
    Result<std::unique_ptr<Engine>> engine = Engine::open(options);
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = engine->release();
  }

  static void TearDownTestSuite() {
    delete engine_;
    engine_ = nullptr;
  }

  RunSessionTest() {
    std::ofstream(dir_ / "chat.jinja") << kTemplate;
    options_.sampling.temperature = 0.0;
    options_.max_tokens = 8;
  }

  void chat() { options_.chat_template = (dir_ / "chat.jinja").string(); }

  std::unique_ptr<RunSession> session() {
    Result<std::unique_ptr<RunSession>> made = RunSession::create(*engine_, options_);
    EXPECT_TRUE(made) << made.error().message;
    return *std::move(made);
  }

  static Completion answer(RunSession& session, const std::string& text) {
    Result<Completion> completion = session.answer(text, [](std::string_view) { return true; });
    EXPECT_TRUE(completion) << completion.error().message;
    return *std::move(completion);
  }

  static std::string reply(RunSession& session, std::string_view line) {
    const Result<std::string> text = session.command(line);
    EXPECT_TRUE(text) << text.error().message;
    return text ? *text : "";
  }

  static std::string error(RunSession& session, std::string_view line) {
    const Result<std::string> text = session.command(line);
    EXPECT_FALSE(text) << *text;
    return text ? "" : text.error().message;
  }

  static Engine* engine_;
  const SignalScope signals_;
  testing::TempDir dir_;
  RunOptions options_;
};

Engine* RunSessionTest::engine_ = nullptr;

TEST_F(RunSessionTest, TurnsOfATextContinueIt) {
  const auto split = session();
  EXPECT_FALSE(split->is_chat());
  EXPECT_FALSE(split->can_continue());
  const Completion first = answer(*split, "Once upon a time");
  EXPECT_EQ(first.tokens.size(), 8u);
  EXPECT_TRUE(split->can_continue());
  const Completion second = answer(*split, "");
  options_.max_tokens = 16;
  const Completion whole = answer(*session(), "Once upon a time");
  EXPECT_EQ(first.text + second.text, whole.text);
  EXPECT_EQ(second.prompt_tokens, first.prompt_tokens + 8);
  (void)reply(*split, "/clear");
  EXPECT_FALSE(split->can_continue());
  EXPECT_EQ(answer(*split, "Once upon a time").text, first.text);
}

TEST_F(RunSessionTest, TurnsOfAChatAreRenderedAgain) {
  chat();
  options_.system = "Be brief.";
  const auto session = this->session();
  EXPECT_TRUE(session->is_chat());
  const Completion first = answer(*session, "Hello");
  const Completion second = answer(*session, "More");
  const auto& tokenizer = *engine_->tokenizer();
  const std::string prompt = "system: Be brief.\nuser: Hello\nassistant: " + first.text + "\nuser: More\nassistant:";
  EXPECT_GT(second.prompt_tokens, first.prompt_tokens + 8);
  // Pieces of the template and of messages are encoded apart, so the counts differ by a few from one piece.
  EXPECT_NEAR(static_cast<double>(second.prompt_tokens),
              static_cast<double>(tokenizer.encode(prompt, AddedTokens::kPlain).size()),
              12.0);
  EXPECT_EQ(reply(*session, "/system"), "Be brief.");
  EXPECT_NE(reply(*session, "/system Be brief!").find("forgotten"), std::string::npos);
  EXPECT_EQ(reply(*session, "/system"), "Be brief!");
  EXPECT_EQ(answer(*session, "Hello").prompt_tokens, first.prompt_tokens);
}

TEST_F(RunSessionTest, ASignalStopsTheAnswerAndKeepsItsBeginning) {
  options_.max_tokens = 60;
  const auto session = this->session();
  int pieces = 0;
  const Result<Completion> stopped = session->answer("Once upon a time", [&](std::string_view) {
    if (++pieces == 3) (void)std::raise(SIGINT);
    return true;
  });
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(stopped->tokens.size(), 3u);
  EXPECT_TRUE(session->can_continue());
  SignalScope::reset();
  EXPECT_EQ(answer(*session, "").prompt_tokens, stopped->prompt_tokens + 3);
}

TEST_F(RunSessionTest, ASignalBeforeTheFirstTokenLeavesNoTrace) {
  const auto session = this->session();
  (void)std::raise(SIGINT);
  const Completion stopped = answer(*session, "Once upon a time");
  EXPECT_EQ(stopped.finish_reason, FinishReason::kCancelled);
  SignalScope::reset();
  EXPECT_EQ(session->can_continue(), !stopped.tokens.empty());
}

TEST_F(RunSessionTest, AListenerCanStop) {
  const auto session = this->session();
  const Result<Completion> stopped = session->answer("Once upon a time", [](std::string_view) { return false; });
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(stopped->tokens.size(), 1u);
}

TEST_F(RunSessionTest, FullContext) {
  options_.max_tokens.reset();
  options_.ignore_eos = true;
  const auto session = this->session();
  const Completion all = answer(*session, "Once upon a time");
  EXPECT_EQ(all.finish_reason, FinishReason::kLength);
  EXPECT_TRUE(session->is_full(all));
  EXPECT_EQ(all.prompt_tokens + static_cast<int64_t>(all.tokens.size()), 96);
  const Result<Completion> more = session->answer("more", [](std::string_view) { return true; });
  ASSERT_FALSE(more);
  EXPECT_NE(more.error().message.find("the context is full: expected fewer than 96 tokens (--ctx-size), found "),
            std::string::npos)
      << more.error().message;
  (void)reply(*session, "/clear");
  EXPECT_TRUE(session->answer("more", [](std::string_view) { return true; }));
}

TEST_F(RunSessionTest, ALimitIsNotAFullContext) {
  const auto session = this->session();
  EXPECT_FALSE(session->is_full(answer(*session, "Once upon a time")));
}

TEST_F(RunSessionTest, Settings) {
  options_.sampling.seed = 5;
  const auto session = this->session();
  EXPECT_EQ(reply(*session, "/set temperature 0.5"), "temperature 0.5");
  EXPECT_EQ(reply(*session, "/set  top_k   40 "), "top_k 40");
  EXPECT_EQ(reply(*session, "/set dry_multiplier 0.8"), "dry_multiplier 0.8");
  EXPECT_EQ(reply(*session, "/set dry_allowed_length 4"), "dry_allowed_length 4");
  EXPECT_EQ(reply(*session, "/set seed 9"), "seed 9");
  EXPECT_EQ(reply(*session, "/set max_tokens 3"), "max_tokens 3");
  const std::string all = reply(*session, "/set");
  EXPECT_NE(all.find("temperature 0.5, top_k 40"), std::string::npos) << all;
  EXPECT_NE(all.find("seed 9, max_tokens 3"), std::string::npos) << all;
  EXPECT_EQ(answer(*session, "Once upon a time").tokens.size(), 3u);
  (void)reply(*session, "/set max_tokens 0");
  EXPECT_NE(reply(*session, "/set").find("max_tokens 0 (no limit)"), std::string::npos);
}

TEST_F(RunSessionTest, SettingsThatAreRefusedChangeNothing) {
  const auto session = this->session();
  const std::string before = reply(*session, "/set");
  EXPECT_EQ(error(*session, "/set temperature warm"), "/set temperature: expected a number, found \"warm\"");
  EXPECT_EQ(error(*session, "/set temperature"), "/set temperature: expected a number, found \"\"");
  EXPECT_EQ(error(*session, "/set top_k 1.5"), "/set top_k: expected an integer from 0, found \"1.5\"");
  EXPECT_NE(error(*session, "/set top_p 2").find("/set: "), std::string::npos);
  EXPECT_NE(error(*session, "/set colour red").find("/set: expected temperature, top_k"), std::string::npos);
  EXPECT_EQ(reply(*session, "/set"), before);
}

TEST_F(RunSessionTest, Commands) {
  const auto session = this->session();
  EXPECT_NE(reply(*session, "/help").find("/system TEXT"), std::string::npos);
  EXPECT_NE(reply(*session, "/stats").find("last answer: none yet\ncontext: 0 of 96 tokens"), std::string::npos);
  (void)answer(*session, "Once upon a time");
  EXPECT_NE(reply(*session, "/stats").find("prompt tokens"), std::string::npos);
  EXPECT_NE(error(*session, "/nonsense").find("\"/nonsense\": expected /help, /clear"), std::string::npos);
  EXPECT_EQ(error(*session, "/clear now"), "/clear: expected nothing after it, found \"now\"");
  EXPECT_EQ(error(*session, "/system x"), "/system: expected a model with a chat template, found none");
  EXPECT_FALSE(session->ended());
  (void)reply(*session, "/exit");
  EXPECT_TRUE(session->ended());
}

TEST_F(RunSessionTest, SameSeedSameSession) {
  options_.sampling.temperature = 1.0;
  options_.sampling.seed = 11;
  const auto one = session();
  const auto other = session();
  EXPECT_EQ(answer(*one, "The dog").text, answer(*other, "The dog").text);
  EXPECT_EQ(answer(*one, " and").text, answer(*other, " and").text);
}

TEST_F(RunSessionTest, RefusesWhatDoesNotFitTheModel) {
  const auto message = [&] {
    const Result<std::unique_ptr<RunSession>> made = RunSession::create(*engine_, options_);
    return made ? std::string() : made.error().message;
  };
  options_.system = "Be brief.";
  EXPECT_EQ(message(), "--system: expected a model with a chat template, found none");
  options_.system.reset();
  options_.sampling.temperature = -1.0;
  EXPECT_NE(message().find("temperature"), std::string::npos);
  options_.sampling.temperature = 0.0;
  options_.chat_template = (dir_ / "none.jinja").string();
  EXPECT_NE(message().find("none.jinja"), std::string::npos);
  options_.raw = true;
  EXPECT_EQ(message(), "");
}

TEST_F(RunSessionTest, AnswersTakeTheFormThatIsAskedFor) {
  options_.format.json_schema = R"({"enum": ["a king", "a queen"]})";
  options_.max_tokens = 30;
  for (const bool is_chat : {false, true}) {
    if (is_chat) chat();
    const std::unique_ptr<RunSession> made = session();
    EXPECT_TRUE(made->is_json());
    for (int turn = 0; turn < 2; ++turn) {
      const Completion completion = answer(*made, "Who?");
      EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
      EXPECT_TRUE(completion.text.ends_with("\"a king\"") || completion.text.ends_with("\"a queen\""))
          << completion.text;
    }
  }
  options_.format.json_schema = R"({"not": {}})";
  EXPECT_EQ(RunSession::create(*engine_, options_).error().message,
            "--json-schema: #/not: this keyword is not supported");
  options_.format.json_schema = "{";
  EXPECT_TRUE(RunSession::create(*engine_, options_).error().message.starts_with("--json-schema: "));
  std::ofstream(dir_ / "schema.json") << "[1]";
  options_.format.json_schema = (dir_ / "schema.json").string();
  EXPECT_EQ(RunSession::create(*engine_, options_).error().message, "--json-schema: expected an object, found array");
}

// The thoughts that the prompt opens are free; the vocabulary has no token that could end them.
TEST_F(RunSessionTest, AFormatBehindThoughtsNeedsATokenThatEndsThem) {
  std::ofstream(dir_ / "thinks.jinja") << "{{ messages[0]['content'] }}<think>\n";
  options_.chat_template = (dir_ / "thinks.jinja").string();
  options_.format.json_object = true;
  const Result<Completion> completion = session()->answer("Hi", [](std::string_view) { return true; });
  ASSERT_FALSE(completion);
  EXPECT_EQ(completion.error().message,
            "--json-object: expected a vocabulary with </think> where the prompt ends in <think>, found none");
}

}  // namespace
}  // namespace lathe::cli
