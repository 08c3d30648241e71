#include "lathe/chat/call_head.h"

#include <algorithm>
#include <array>

#include "lathe/base/ascii.h"

namespace lathe {

namespace {

constexpr std::array<std::string_view, 5> kOpeners = {
    kToolCallBegin, kToolCallsBegin, "<｜tool_calls_begin｜>", "<｜tool calls begin｜>", "<｜tool▁calls｜>"};
constexpr std::string_view kType = "function";
constexpr std::string_view kFence = "```json";
constexpr size_t kMaxName = 64;
constexpr size_t kMaxSpace = 16;

bool is_name_char(char c) {
  return is_ascii_alnum(c) || c == '_' || c == '-' || c == '.';
}

// Each takes something from the front of `rest`, which stays as it is unless the answer is kYes.
TextMatch take(std::string_view& rest, std::string_view expected) {
  if (rest.starts_with(expected)) {
    rest.remove_prefix(expected.size());
    return TextMatch::kYes;
  }
  return expected.starts_with(rest) ? TextMatch::kPartial : TextMatch::kNo;
}

TextMatch take_space(std::string_view& rest) {
  const std::string_view after = without_leading_space(rest);
  if (rest.size() - after.size() > kMaxSpace) return TextMatch::kNo;
  if (after.empty()) return TextMatch::kPartial;
  rest = after;
  return TextMatch::kYes;
}

TextMatch take_name(std::string_view& rest, std::string& name) {
  const auto end = static_cast<size_t>(std::ranges::find_if_not(rest, is_name_char) - rest.begin());
  if (end > kMaxName) return TextMatch::kNo;
  if (end == rest.size()) return TextMatch::kPartial;
  if (end == 0) return TextMatch::kNo;
  name = rest.substr(0, end);
  rest.remove_prefix(end);
  return TextMatch::kYes;
}

// "function" sep NAME, white space, ```json; models forget the fence now and then.
TextMatch take_v3(std::string_view& rest, std::string& name) {
  for (const std::string_view expected : {kType, kToolSep}) {
    if (const TextMatch match = take(rest, expected); match != TextMatch::kYes) return match;
  }
  if (const TextMatch match = take_name(rest, name); match != TextMatch::kYes) return match;
  if (const TextMatch match = take_space(rest); match != TextMatch::kYes) return match;
  if (rest.starts_with('{')) return TextMatch::kYes;
  return take(rest, kFence);
}

// NAME sep.
TextMatch take_v31(std::string_view& rest, std::string& name) {
  if (const TextMatch match = take_name(rest, name); match != TextMatch::kYes) return match;
  return take(rest, kToolSep);
}

}  // namespace

std::span<const std::string_view> call_openers() {
  return kOpeners;
}

TextMatch match_call_head(ToolFormat format, std::string_view text, CallHead& out) {
  std::string_view rest = text;
  if (take(rest, kToolCallBegin) != TextMatch::kYes) {
    const auto* const list = std::ranges::find_if(kOpeners, [text](std::string_view o) { return text.starts_with(o); });
    rest.remove_prefix(list->size());
    if (const TextMatch match = take_space(rest); match != TextMatch::kYes) return match;
    // Models forget the second marker now and then, too.
    if (take(rest, kToolCallBegin) == TextMatch::kPartial) return TextMatch::kPartial;
  }
  const TextMatch match = format == ToolFormat::kV3 ? take_v3(rest, out.name) : take_v31(rest, out.name);
  if (match == TextMatch::kYes) out.bytes = text.size() - rest.size();
  return match;
}

}  // namespace lathe
