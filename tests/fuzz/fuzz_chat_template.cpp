// A chat template, zero byte, the variables as JSON (a default conversation where they are absent). Small limits hold.
#include "fuzz.h"
#include "lathe/base/json.h"
#include "lathe/tokenizer/chat_template.h"

using lathe::fuzz::require;

namespace {

constexpr const char* kDefaultVariables =
    R"({"messages":[{"role":"system","content":"S"},{"role":"user","content":"{{ x }} <b>"},)"
    R"({"role":"assistant","content":"A</think>B"},{"role":"user","content":"ü"}],)"
    R"("add_generation_prompt":true,"bos_token":"<s>","eos_token":"</s>"})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const std::string_view source = lathe::fuzz::take_part(rest);
  const lathe::TemplateLimits limits{.max_steps = 20'000, .max_output_bytes = 1 << 16, .max_depth = 32};
  const lathe::Result<lathe::ChatTemplate> compiled = lathe::ChatTemplate::compile(source, limits);
  if (!compiled) {
    lathe::fuzz::require_clean_message(compiled.error().message);
    return 0;
  }
  const lathe::Result<lathe::Json> variables = lathe::parse_json(rest.empty() ? kDefaultVariables : rest);
  if (!variables || !variables->is_object()) return 0;
  const lathe::Result<std::vector<lathe::RenderedPiece>> pieces = compiled->render_pieces(*variables);
  const lathe::Result<std::string> text = compiled->render(*variables);
  require(pieces.has_value() == text.has_value(), "render and render_pieces disagree");
  if (!text) {
    lathe::fuzz::require_clean_message(text.error().message);
    return 0;
  }
  std::string joined;
  for (const lathe::RenderedPiece& piece : *pieces) joined += piece.text;
  require(joined == *text, "the pieces do not add up to the text");
  require(text->size() <= static_cast<size_t>(limits.max_output_bytes), "more output than allowed");
  return 0;
}
