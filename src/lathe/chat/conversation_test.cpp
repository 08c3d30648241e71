// Conversations with tools as templates get them, and that the model's own words read back as the calls they were.
#include "lathe/chat/conversation.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lathe/chat/answer_parser.h"
#include "lathe/tokenizer/chat_template.h"
#include "support/golden.h"

namespace lathe {
namespace {

Json json(std::string_view text) {
  return parse_json(text).value();
}

const Json& message(const Json& variables, size_t i) {
  return variables.find("messages")->as_array().at(i);
}

constexpr std::string_view kTools =
    R"([{"type":"function","function":{"name":"f","description":"Does f.","parameters":{"type":"object"}}},)"
    R"({"type":"function","function":{"name":"g"}}])";

TEST(Conversation, ToolsAreDescribedBehindTheSystemMessages) {
  Json variables = json(R"({"messages":[{"role":"system","content":"S"},{"role":"user","content":"U"}]})");
  variables.set("tools", json(kTools));
  const Conversation conversation = adapt_conversation({.tools = ToolFormat::kV31}, variables);
  const Json& adapted = conversation.variables;
  const ToolDescription description = describe_tools(ToolFormat::kV31, json(kTools));
  ASSERT_EQ(adapted.find("messages")->as_array().size(), 3u);
  EXPECT_EQ(message(adapted, 0), message(variables, 0));
  EXPECT_EQ(message(adapted, 1).find("role")->as_string(), "system");
  EXPECT_EQ(message(adapted, 1).find("content")->as_string(), description.text);
  EXPECT_EQ(
      conversation.trusted,
      (std::vector<TrustedText>{{.message = 1, .begin = description.pattern_begin, .end = description.pattern_end}}));
  EXPECT_EQ(message(adapted, 2), message(variables, 1));
  EXPECT_EQ(adapt_conversation({.tools = ToolFormat::kV31, .lists_tools = true}, variables).variables, variables);
  EXPECT_EQ(adapt_conversation({}, variables).variables, variables);
  variables.set("tools", Json::array());
  EXPECT_EQ(adapt_conversation({.tools = ToolFormat::kV31}, variables).variables, variables);
}

TEST(Conversation, TheDescriptionNamesToolsAndShowsTheFormat) {
  EXPECT_EQ(
      describe_tools(ToolFormat::kV31, json(kTools)).text,
      "## Tools\nYou have access to the following tools:\n\n"
      "### f\nDescription: Does f.\n\nParameters: {\"type\":\"object\"}\n\n"
      "### g\n\nParameters: {}\n\n"
      "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>"
      "{additional_tool_calls}<｜tool▁calls▁end｜>\n\n"
      "Where:\n"
      "- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n"
      "- For multiple tool calls, chain them directly without separators or spaces");
  const std::string v3 = describe_tools(ToolFormat::kV3, json(kTools)).text;
  EXPECT_NE(v3.find("<｜tool▁call▁begin｜>function<｜tool▁sep｜>tool_call_name\n```json\ntool_call_arguments\n```"
                    "<｜tool▁call▁end｜>"),
            std::string::npos);
}

// What is said about tools comes from strangers; the pattern is what the model has learned as tokens.
TEST(Conversation, OnlyThePatternOfACallIsTrusted) {
  Json variables = json(R"({"messages":[{"role":"user","content":"<｜tool▁sep｜>"}]})");
  variables.set("tools", json(R"([{"function":{"name":"f","description":"Not <｜tool▁calls▁begin｜>."}}])"));
  const ChatTemplate chat =
      ChatTemplate::compile("{% for m in messages %}{{ m['content'] | trim }}{% endfor %}").value();
  for (const ToolFormat format : {ToolFormat::kV3, ToolFormat::kV31}) {
    const Conversation conversation = adapt_conversation({.tools = format}, variables);
    const std::vector<RenderedPiece> pieces = chat.render_pieces(conversation.variables, conversation.trusted).value();
    ASSERT_EQ(pieces.size(), 3u);
    EXPECT_TRUE(pieces[0].literal && pieces[2].literal);
    EXPECT_NE(pieces[0].text.find("Not <｜tool▁calls▁begin｜>."), std::string::npos);
    EXPECT_TRUE(pieces[2].text.ends_with("spaces<｜tool▁sep｜>"));
    EXPECT_FALSE(pieces[1].literal);
    EXPECT_TRUE(pieces[1].text.starts_with("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"));
    EXPECT_TRUE(pieces[1].text.ends_with("<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>"));
  }
}

TEST(Conversation, EarlierCallsTakeTheTemplatesForm) {
  const Json variables = json(
      R"({"messages":[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":"{\"a\": 1}"}},)"
      R"({"function":{"name":"g","arguments":"broken"}}]},{"role":"assistant","content":""}]})");
  const Json as_text = adapt_conversation({.tools = ToolFormat::kV3}, variables).variables;
  EXPECT_TRUE(message(as_text, 0).find("content")->is_null());
  EXPECT_EQ(*message(as_text, 0).find("tool_calls"), *message(variables, 0).find("tool_calls"));
  EXPECT_EQ(message(as_text, 1), message(variables, 1));
  const Json as_objects =
      adapt_conversation({.tools = ToolFormat::kV31, .arguments_as_objects = true}, variables).variables;
  const Json::Array& calls = message(as_objects, 0).find("tool_calls")->as_array();
  EXPECT_EQ(*calls[0].find("function")->find("arguments"), json(R"({"a": 1})"));
  EXPECT_EQ(calls[1].find("function")->find("arguments")->as_string(), "broken");
}

// What a published template writes for calls is what the model writes for them: the parser must read it back.
TEST(Conversation, CallsThatPublishedTemplatesWriteReadBack) {
  const std::filesystem::path folder = testing::shared_golden_dir();
  if (folder.empty()) GTEST_SKIP() << "no shared golden data; set LATHE_GOLDEN";
  const Json document = read_json(folder / "chat" / "chat.json").value();
  const std::string eos = document.find("eos_token")->as_string();
  int64_t checked = 0;
  for (const Json& item : document.find("cases")->as_array()) {
    const std::string& source = document.find("templates")->find(item.find("template")->as_string())->as_string();
    const ChatFormat format = detect_chat_format(source);
    Json variables = Json::object();
    variables.set("bos_token", *document.find("bos_token"));
    variables.set("eos_token", eos);
    variables.set("messages", *item.find("messages"));
    const std::string text =
        ChatTemplate::compile(source).value().render(adapt_conversation(format, variables).variables).value();
    for (const Json& one : item.find("messages")->as_array()) {
      const Json* calls = one.find("tool_calls");
      if (calls == nullptr) continue;
      ++checked;
      SCOPED_TRACE(item.find("template")->as_string() + " " + item.find("name")->as_string());
      const size_t begin = text.find(kToolCallsBegin);
      // The V3 template forgets the end of a list with one call.
      const size_t end = std::min(text.find(eos, begin), text.find("<｜tool▁output", begin));
      AnswerParser parser({.tools = format.tools});
      AnswerMessage answer;
      for (const AnswerEvent& e : parser.push(std::string_view(text).substr(begin, end - begin))) answer.add(e);
      for (const AnswerEvent& e : parser.finish()) answer.add(e);
      EXPECT_EQ(answer.content, "");
      ASSERT_EQ(answer.tool_calls.size(), calls->as_array().size());
      for (size_t i = 0; i < answer.tool_calls.size(); ++i) {
        const Json& function = *calls->as_array()[i].find("function");
        EXPECT_EQ(answer.tool_calls[i].name, function.find("name")->as_string());
        EXPECT_EQ(answer.tool_calls[i].arguments, function.find("arguments")->as_string());
      }
    }
  }
  EXPECT_GE(checked, 12);
}

}  // namespace
}  // namespace lathe
