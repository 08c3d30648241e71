// What templates tell about the answers of their models.
#include "lathe/chat/chat_format.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "lathe/base/json.h"
#include "support/golden.h"

namespace lathe {
namespace {

TEST(ChatFormat, NothingOfATextThatIsNoTemplate) {
  for (const char* text :
       {"", "{{", "{% tools", "tools", "{{ 'tools' }}", "{{ x.tools }}", "{{ my_tools }}", "{{ tools_ }}"}) {
    const ChatFormat format = detect_chat_format(text);
    EXPECT_EQ(format.tools, ToolFormat::kNone);
    EXPECT_FALSE(format.reasoning || format.arguments_as_objects) << text;
    EXPECT_EQ(format.lists_tools, std::string_view(text) == "{% tools") << text;
  }
}

TEST(ChatFormat, ToolsAreListedWhereTheCodeReadsThem) {
  EXPECT_TRUE(detect_chat_format("{% if tools %}x{% endif %}").lists_tools);
  EXPECT_TRUE(detect_chat_format("{{ 'it\\'s' ~ tools|tojson }}").lists_tools);
  EXPECT_TRUE(detect_chat_format("{%-for t in tools-%}{%-endfor-%}").lists_tools);
  EXPECT_FALSE(detect_chat_format("You have tools. {{ \"no tools here\" }} {{ message['tools'] }}").lists_tools);
}

TEST(ChatFormat, ArgumentsThatATemplateWritesAsJson) {
  EXPECT_TRUE(detect_chat_format("{{ tool['function']['arguments'] | tojson }}").arguments_as_objects);
  EXPECT_TRUE(detect_chat_format("{{ tool.function.arguments|tojson }}").arguments_as_objects);
  EXPECT_FALSE(detect_chat_format("{{ tool['function']['arguments'] + '\\n' }}").arguments_as_objects);
  EXPECT_FALSE(
      detect_chat_format("{{ arguments if arguments is string else arguments | tojson }}").arguments_as_objects);
}

TEST(ChatFormat, PromptsThatOpenReasoning) {
  EXPECT_TRUE(prompt_opens_reasoning("<｜Assistant｜><think>"));
  EXPECT_TRUE(prompt_opens_reasoning("<｜Assistant｜><think>\n"));
  EXPECT_FALSE(prompt_opens_reasoning("<｜Assistant｜><think></think>"));
  EXPECT_FALSE(prompt_opens_reasoning("<think>x"));
  EXPECT_FALSE(prompt_opens_reasoning(""));
}

TEST(ChatFormat, PromptsThatOpenReasoningAsIds) {
  const Tokenizer tokenizer =
      Tokenizer::open(std::filesystem::path(LATHE_SOURCE_DIR) / "models" / "storyteller").value();
  const auto opens = [&](const char* text) {
    return prompt_opens_reasoning(tokenizer, tokenizer.encode(text, AddedTokens::kText));
  };
  EXPECT_TRUE(opens("<think>"));
  EXPECT_TRUE(opens("A long text before it, of more than a few tokens, and then it comes: <think>\n\n"));
  EXPECT_FALSE(opens("<think>\nOnce"));
  EXPECT_FALSE(opens("<think></think>"));
  EXPECT_FALSE(prompt_opens_reasoning(tokenizer, std::vector<int32_t>()));
}

TEST(ChatFormat, PublishedTemplates) {
  const std::filesystem::path folder = testing::shared_golden_dir();
  if (folder.empty()) GTEST_SKIP() << "no shared golden data; set LATHE_GOLDEN";
  const Json document = read_json(folder / "chat" / "chat.json").value();
  const auto of = [&document](const char* name) {
    return detect_chat_format(document.find("templates")->find(name)->as_string());
  };
  for (const char* name : {"v2", "coder"}) EXPECT_EQ(of(name).tools, ToolFormat::kNone);
  for (const char* name : {"v3", "r1"}) EXPECT_EQ(of(name).tools, ToolFormat::kV3);
  EXPECT_EQ(of("v3.1").tools, ToolFormat::kV31);
  EXPECT_TRUE(of("r1").reasoning && of("v3.1").reasoning);
  EXPECT_FALSE(of("v2").reasoning || of("v3").reasoning);
  EXPECT_TRUE(of("v3.1").arguments_as_objects);
  EXPECT_FALSE(of("v3").arguments_as_objects || of("r1").arguments_as_objects);
  for (const char* name : {"v2", "v3", "r1", "v3.1", "coder"}) EXPECT_FALSE(of(name).lists_tools) << name;
}

}  // namespace
}  // namespace lathe
