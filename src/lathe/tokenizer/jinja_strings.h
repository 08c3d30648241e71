// String operations shared by methods and filters. Marks of untrusted ranges stay with their characters.
#pragma once

#include <string_view>

#include "lathe/tokenizer/jinja_value.h"

namespace lathe::jinja {

enum class Sides { kBoth, kLeft, kRight };
// Ways to map the case of a string.
enum class Case { kUpper, kLower, kCapitalize, kTitleMethod, kTitleFilter };
enum class From { kLeft, kRight };

// `characters` null: white space.
Result<Value> strip(Context& context, const Text& text, Sides sides, const Text* characters);
// `separator` null: runs of white space. Negative `limit`: no limit.
Result<Value> split(Context& context, const Text& text, const Text* separator, int64_t limit, From from);
Result<Value> split_lines(Context& context, const Text& text, bool keep_ends);
Result<Value> replace(Context& context, const Text& text, const Text& from, const Text& to, int64_t limit);
Result<Value> join(Context& context, const Text& separator, const std::vector<Value>& items);
Result<Value> change_case(Context& context, const Text& text, Case to);
Result<Value> indent(Context& context, const Text& text, const Text& by, bool first, bool blank);
Result<Value> reverse(Context& context, const Text& text);
// The characters [begin, end) by byte offsets, as a value.
Result<Value> substring(Context& context, const Text& text, size_t begin, size_t end);
// Byte offset of the first or last occurrence, -1 where there is none.
Result<int64_t> find_bytes(Context& context, std::string_view text, std::string_view what, From from);
Result<int64_t> count_occurrences(Context& context, std::string_view text, std::string_view what);

}  // namespace lathe::jinja
