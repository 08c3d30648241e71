#include "lathe/server/api_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lathe/base/str.h"

namespace lathe::server {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

const RequestLimits kLimits = {
    .vocab_size = 300, .defaults = {.do_sample = true, .temperature = 0.7}, .max_choices = 128};

GenerationRequest chat_of(const std::string& fields) {
  GenerationRequest out;
  const auto error = parse_chat_request(
      str(R"({"messages": [{"role": "user", "content": "hi"}])", fields.empty() ? "" : ",", fields, "}"), kLimits, out);
  EXPECT_FALSE(error.has_value()) << fields << ": " << error->message;
  return out;
}

GenerationRequest completion_of(const std::string& fields) {
  GenerationRequest out;
  const auto error = parse_completion_request("{" + fields + "}", kLimits, out);
  EXPECT_FALSE(error.has_value()) << fields << ": " << error->message;
  return out;
}

TEST(ApiRequest, LeavesDefaults) {
  const GenerationRequest chat = chat_of("");
  EXPECT_TRUE(chat.chat);
  EXPECT_EQ(chat.n, 1);
  EXPECT_EQ(chat.max_tokens, -1);
  EXPECT_EQ(chat.sampling.temperature, 0.7);
  EXPECT_EQ(chat.seed, std::nullopt);
  EXPECT_EQ(chat.logprobs, -1);
  EXPECT_FALSE(chat.stream);
  EXPECT_EQ(chat.tool_choice, ToolChoice::kNone);
  EXPECT_EQ(chat.template_variables.dump(),
            R"({"messages":[{"role":"user","content":"hi"}],"add_generation_prompt":true})");
  EXPECT_EQ(completion_of(R"("prompt": "a")").max_tokens, 16);
}

TEST(ApiRequest, GreedyAnswersHaveNoDryPenaltyUnlessAskedFor) {
  RequestLimits limits = {.vocab_size = 300,
                          .defaults = {.do_sample = true, .temperature = 0.7, .dry_multiplier = 0.8}};
  const auto multiplier = [&](const std::string& more) {
    GenerationRequest out;
    EXPECT_FALSE(parse_completion_request(R"({"prompt": "a")" + more + "}", limits, out).has_value()) << more;
    return out.sampling.dry.multiplier;
  };
  EXPECT_EQ(multiplier(""), 0.8);
  EXPECT_EQ(multiplier(R"(, "temperature": 0)"), 0.0);
  EXPECT_EQ(multiplier(R"(, "temperature": 0, "dry_multiplier": 0.5)"), 0.5);
  limits.defaults.do_sample = false;  // greedy unless a request says otherwise
  EXPECT_EQ(multiplier(""), 0.0);
  EXPECT_EQ(multiplier(R"(, "temperature": 0.7)"), 0.8);
}

TEST(ApiRequest, ReadsEveryField) {
  const GenerationRequest r = chat_of(
      R"("temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.1, "repeat_penalty": 1.5, "presence_penalty": -2,
         "frequency_penalty": 2, "dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 4,
         "dry_penalty_last_n": 64, "dry_sequence_breakers": "\n", "seed": -1, "n": 3, "max_completion_tokens": 7.0, "min_tokens": 6, "stop": "x",
         "stop_token_ids": [5],
         "logit_bias": {"7": -100}, "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true},
         "logprobs": true, "top_logprobs": 20, "return_token_ids": true, "model": "any", "nobody_knows": {}, "tools": null)");
  EXPECT_EQ(r.sampling.temperature, 0.0);
  EXPECT_EQ(r.sampling.top_p, 0.5);
  EXPECT_EQ(r.sampling.top_k, 0);
  EXPECT_EQ(r.sampling.min_p, 0.1);
  EXPECT_EQ(r.sampling.repetition_penalty, 1.5);
  EXPECT_EQ(r.sampling.presence_penalty, -2.0);
  EXPECT_EQ(r.sampling.frequency_penalty, 2.0);
  EXPECT_EQ(r.sampling.dry.multiplier, 0.8);
  EXPECT_EQ(r.sampling.dry.base, 2.0);
  EXPECT_EQ(r.sampling.dry.allowed_length, 4);
  EXPECT_EQ(r.sampling.dry.last_n, 64);
  EXPECT_THAT(r.sampling.dry.breakers, ElementsAre("\n"));
  EXPECT_EQ(r.seed, ~uint64_t{0});
  EXPECT_EQ(r.n, 3);
  EXPECT_EQ(r.max_tokens, 7);
  EXPECT_EQ(r.min_tokens, 6);
  EXPECT_THAT(r.stop, ElementsAre("x"));
  EXPECT_THAT(r.stop_token_ids, ElementsAre(5));
  EXPECT_THAT(r.sampling.logit_bias, ElementsAre(Pair(7, -100.0)));
  EXPECT_TRUE(r.ignore_eos && r.stream && r.include_usage && r.return_token_ids);
  EXPECT_EQ(r.logprobs, 20);
}

TEST(ApiRequest, ReadsPromptsOfEveryForm) {
  EXPECT_THAT(completion_of(R"("prompt": "a")").prompts, ElementsAre(PromptInput("a")));
  EXPECT_THAT(completion_of(R"("prompt": ["a", "b"])").prompts, ElementsAre(PromptInput("a"), PromptInput("b")));
  const PromptInput ids = std::vector<int32_t>{1, 299};
  EXPECT_THAT(completion_of(R"("prompt": [1, 299.0])").prompts, ElementsAre(ids));
  EXPECT_THAT(completion_of(R"("prompt": [[1, 299], [2]])").prompts,
              ElementsAre(ids, PromptInput(std::vector<int32_t>{2})));
}

TEST(ApiRequest, JoinsPartsAndRenamesDevelopers) {
  GenerationRequest out;
  ASSERT_FALSE(parse_chat_request(R"({"messages": [{"role": "developer", "content": "s", "cache": 1},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
      "chat_template_kwargs": {"x": 1}, "reasoning_effort": "none"})",
                                  kLimits,
                                  out));
  EXPECT_EQ(out.template_variables.find("messages")->dump(),
            R"([{"role":"system","content":"s"},{"role":"user","content":"ab"}])");
  EXPECT_EQ(out.template_variables.find("x")->as_int(), 1);
  EXPECT_FALSE(out.template_variables.find("thinking")->as_bool());
}

struct Wrong {
  const char* fields;
  const char* param;
  const char* message;
};

TEST(ApiRequest, NamesTheFieldThatIsWrong) {
  for (const Wrong& w : std::initializer_list<Wrong>{
           {R"("temperature": 2.5)", "temperature", "temperature: expected a number from 0 to 2, found 2.5"},
           {R"("top_p": 0)", "top_p", "top_p: expected a number above 0, found 0"},
           {R"("max_tokens": 0)", "max_tokens", "max_tokens: expected a whole number from 1 to 2147483647, found 0"},
           {R"("max_tokens": 4, "min_tokens": 5)", "min_tokens", "min_tokens: expected at most max_tokens, 4, found 5"},
           {R"("n": 129)", "n", "n: expected a whole number from 1 to 128, found 129"},
           {R"("stop": [""])", "stop", "stop: expected strings of 1 to 1024 bytes, found \"\""},
           {R"("logit_bias": {"300": 1})", "logit_bias", "logit_bias: expected token ids from 0 to 299, found \"300\""},
           {R"("top_logprobs": 1)", "top_logprobs", "top_logprobs: expected it only with \"logprobs\": true"},
           {R"("stream_options": {})", "stream_options", "stream_options: expected it only with \"stream\": true"},
           {R"("stream": true, "stream_options": {"include_usage": 1})",
            "stream_options.include_usage",
            "stream_options.include_usage: expected true or false, found 1"},
           {R"("chat_template_kwargs": {"bos_token": "x"})",
            "chat_template_kwargs",
            "chat_template_kwargs: expected other names than \"bos_token\""},
           {R"("tool_choice": "required")", "tool_choice", "tool_choice: expected \"tools\" with \"required\""}}) {
    GenerationRequest out;
    const auto error =
        parse_chat_request(str(R"({"messages": [{"role": "user", "content": "hi"}],)", w.fields, "}"), kLimits, out);
    ASSERT_TRUE(error.has_value()) << w.fields;
    EXPECT_EQ(error->status, 400);
    EXPECT_EQ(error->param, w.param);
    EXPECT_EQ(error->message, w.message);
  }
}

TEST(ApiRequest, RefusesWhatIsNoObject) {
  GenerationRequest out;
  for (const char* body : {"", "[]", "{", "\"x\"", R"({"a": 1, "a": 2})"}) {
    const auto error = parse_chat_request(body, kLimits, out);
    ASSERT_TRUE(error.has_value()) << body;
    EXPECT_EQ(error->code, "invalid_json") << body;
    EXPECT_TRUE(error->message.starts_with("body: ")) << error->message;
  }
}

TEST(ApiRequest, TakesSchemasUnderTheNamesOfVllm) {
  for (const char* fields : {R"("guided_json": {"type": "null"})",
                             R"("guided_json": "{\"type\": \"null\"}")",
                             R"("structured_outputs": {"json": {"type": "null"}, "regex": null})",
                             R"("structured_outputs": {"json": "{\"type\": \"null\"}"})"}) {
    const GenerationRequest r = chat_of(fields);
    EXPECT_EQ(r.format, ResponseFormat::kJsonSchema) << fields;
    EXPECT_EQ(r.schema.dump(), R"({"type":"null"})") << fields;
    EXPECT_TRUE(std::string_view(fields).starts_with(str("\"", r.format_field, "\""))) << fields;
  }
  GenerationRequest out;
  for (const auto& [fields, param] :
       {std::pair(R"("guided_json": "{")", "guided_json"),
        std::pair(R"("guided_json": [1])", "guided_json"),
        std::pair(R"("guided_json": {}, "response_format": {"type": "json_object"})", "guided_json"),
        std::pair(R"("guided_json": {}, "structured_outputs": {"json": {}})", "structured_outputs"),
        std::pair(R"("structured_outputs": {"choice": ["a"]})", "structured_outputs")}) {
    const auto error =
        parse_chat_request(str(R"({"messages": [{"role": "user", "content": "hi"}],)", fields, "}"), kLimits, out);
    ASSERT_TRUE(error.has_value()) << fields;
    EXPECT_EQ(error->param, param);
  }
}

TEST(ApiRequest, MakesAtLeastAsManyAnswersAsItTells) {
  EXPECT_EQ(chat_of(R"("n": 3, "best_of": 7)").best_of, 3) << "completions only";
  for (const auto& [fields, best_of] : {std::pair(R"("n": 3)", 3),
                                        std::pair(R"("n": 3, "best_of": 1)", 3),
                                        std::pair(R"("n": 3, "best_of": 7)", 7),
                                        std::pair(R"("best_of": 0)", 1)}) {
    EXPECT_EQ(completion_of(str(R"("prompt": "a", )", fields)).best_of, best_of) << fields;
  }
  GenerationRequest out;
  for (const auto& [fields, param] : {std::pair(R"("n": 3, "best_of": 2)", "best_of"),
                                      std::pair(R"("n": 1, "best_of": 2, "stream": true)", "best_of"),
                                      std::pair(R"("best_of": 65)", "n")}) {
    const auto error = parse_completion_request(str(R"({"prompt": ["a", "b"],)", fields, "}"), kLimits, out);
    ASSERT_TRUE(error.has_value()) << fields;
    EXPECT_EQ(error->param, param) << fields;
  }
}

TEST(ApiRequest, TakesASuffixBehindATextOnly) {
  EXPECT_EQ(completion_of(R"("prompt": "a", "suffix": "b")").suffix, "b");
  EXPECT_EQ(completion_of(R"("prompt": [1], "suffix": "", "echo": true)").suffix, "");
  GenerationRequest out;
  for (const char* wrong : {R"({"prompt": "a", "suffix": "b", "echo": true})",
                            R"({"prompt": [1], "suffix": "b"})",
                            R"({"prompt": "a", "suffix": 1})"}) {
    const auto error = parse_completion_request(wrong, kLimits, out);
    ASSERT_TRUE(error.has_value()) << wrong;
    EXPECT_EQ(error->param, "suffix");
  }
  EXPECT_EQ(
      parse_chat_request(R"({"messages": [{"role": "user", "content": "a"}], "suffix": "b"})", kLimits, out)->param,
      "suffix");
}

TEST(ApiRequest, RefusesMoreAnswersThanAllowed) {
  GenerationRequest out;
  const auto error = parse_completion_request(R"({"prompt": ["a", "b"], "n": 65})", kLimits, out);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->message, "n: expected at most 128 answers in all, found 130");
}

TEST(ApiRequest, TokenizesEitherTextOrMessages) {
  TokenizeRequest out;
  ASSERT_FALSE(parse_tokenize_request(R"({"content": "a", "add_special": false, "with_pieces": true})", out));
  EXPECT_EQ(out.text, "a");
  EXPECT_FALSE(out.add_special_tokens);
  EXPECT_TRUE(out.with_pieces);
  EXPECT_EQ(parse_tokenize_request("{}", out)->message, "prompt: expected it or \"messages\", found neither");
  EXPECT_EQ(parse_tokenize_request(R"({"prompt": "a", "messages": [{"role": "user", "content": "b"}]})", out)->message,
            "prompt: expected it or \"messages\", found both");
  DetokenizeRequest ids;
  ASSERT_FALSE(parse_detokenize_request(R"({"tokens": [1, 2]})", kLimits, ids));
  EXPECT_THAT(ids.tokens, ElementsAre(1, 2));
  EXPECT_EQ(parse_detokenize_request("{}", kLimits, ids)->param, "tokens");
}

}  // namespace
}  // namespace lathe::server
