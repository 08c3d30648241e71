#include "lathe/tokenizer/jinja_strings.h"

#include <algorithm>

#include "lathe/base/utf8.h"

namespace lathe::jinja {
namespace {

std::u32string sorted_characters(std::string_view text) {
  std::u32string out;
  for (size_t at = 0, size = 0; at < text.size(); at += size) out += character_at(text, at, size);
  std::sort(out.begin(), out.end());
  return out;
}

// Cuts `text` at the given [begin, end) gaps.
Result<Value> cut(Context& context, const Text& text, const std::vector<ByteRange>& gaps) {
  std::vector<Value> parts;
  LATHE_TRY(context.budget.steps(static_cast<int64_t>(gaps.size())));
  size_t at = 0;
  for (const ByteRange& gap : gaps) {
    LATHE_TRY(Value part, substring(context, text, at, gap.begin));
    parts.push_back(std::move(part));
    at = gap.end;
  }
  LATHE_TRY(Value last, substring(context, text, at, text.bytes.size()));
  parts.push_back(std::move(last));
  return make_list(context, std::move(parts));
}

std::vector<ByteRange> find_all(std::string_view text, std::string_view what, int64_t limit) {
  std::vector<ByteRange> found;
  const Finder finder(what);
  for (size_t at = finder.find(text, 0); at != std::string_view::npos; at = finder.find(text, at + what.size())) {
    if (limit >= 0 && static_cast<int64_t>(found.size()) >= limit) break;
    found.push_back({at, at + what.size()});
  }
  return found;
}

Result<Value> split_words(Context& context, const Text& text, int64_t limit, From from) {
  const std::string_view bytes = text.bytes;
  std::vector<ByteRange> words;
  for (size_t at = skip_space(bytes, 0); at < bytes.size();) {
    size_t end = at;
    for (size_t size = 0; end < bytes.size() && !is_space(character_at(bytes, end, size)); end += size) {
    }
    words.push_back({at, end});
    at = skip_space(bytes, end);
  }
  LATHE_TRY(context.budget.steps(static_cast<int64_t>(words.size())));
  if (limit >= 0 && static_cast<int64_t>(words.size()) > limit) {
    // The rest stays in one part, without white space at the outer end.
    if (from == From::kLeft) {
      words[static_cast<size_t>(limit)].end = bytes.size();
      words.resize(static_cast<size_t>(limit) + 1);
    } else {
      const size_t rest = words.size() - static_cast<size_t>(limit) - 1;
      words[rest].begin = 0;
      words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(rest));
    }
  }
  std::vector<Value> parts;
  for (const ByteRange& word : words) {
    LATHE_TRY(Value part, substring(context, text, word.begin, word.end));
    parts.push_back(std::move(part));
  }
  return make_list(context, std::move(parts));
}

Result<std::vector<Value>> lines_of(Context& context, const Text& text, bool keep_ends) {
  const std::string_view bytes = text.bytes;
  LATHE_TRY(context.budget.bytes(bytes.size()));
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    size_t size = 0;
    const char32_t c = character_at(bytes, at, size);
    if (!is_line_end(c)) {
      at += size;
      continue;
    }
    size_t next = at + size;
    if (c == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
    LATHE_TRY(context.budget.steps());
    LATHE_TRY(Value line, substring(context, text, begin, keep_ends ? next : at));
    lines.push_back(std::move(line));
    begin = at = next;
  }
  if (begin < bytes.size()) {
    LATHE_TRY(Value line, substring(context, text, begin, bytes.size()));
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace

Result<Value> substring(Context& context, const Text& text, size_t begin, size_t end) {
  TextBuilder out(context.budget);
  out.append_slice(text, begin, end);
  return make_text(out);
}

Result<Value> strip(Context& context, const Text& text, Sides sides, const Text* characters) {
  const std::string_view bytes = text.bytes;
  LATHE_TRY(context.budget.bytes(bytes.size()));
  std::u32string set;
  if (characters != nullptr) {
    LATHE_TRY(context.budget.bytes(characters->bytes.size() * 8));
    set = sorted_characters(characters->bytes);
  }
  const auto goes = [&](char32_t c) {
    return characters == nullptr ? is_space(c) : std::binary_search(set.begin(), set.end(), c);
  };
  size_t begin = 0, end = bytes.size();
  if (sides != Sides::kRight) {
    for (size_t size = 0; begin < end && goes(character_at(bytes, begin, size)); begin += size) {
    }
  }
  while (sides != Sides::kLeft && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<uint8_t>(bytes[last]) & 0xc0) == 0x80) --last;
    size_t size = 0;
    if (!goes(character_at(bytes, last, size))) break;
    end = last;
  }
  return substring(context, text, begin, end);
}

Result<Value> split(Context& context, const Text& text, const Text* separator, int64_t limit, From from) {
  LATHE_TRY(context.budget.bytes(text.bytes.size() * 2));
  if (separator == nullptr) return split_words(context, text, limit, from);
  if (separator->bytes.empty()) return type_error("split: the separator is empty");
  if (from == From::kLeft) return cut(context, text, find_all(text.bytes, separator->bytes, limit));
  const std::string backwards(text.bytes.rbegin(), text.bytes.rend());
  const std::string what(separator->bytes.rbegin(), separator->bytes.rend());
  std::vector<ByteRange> gaps = find_all(backwards, what, limit);
  std::reverse(gaps.begin(), gaps.end());
  for (ByteRange& gap : gaps) gap = {backwards.size() - gap.end, backwards.size() - gap.begin};
  return cut(context, text, gaps);
}

Result<Value> split_lines(Context& context, const Text& text, bool keep_ends) {
  LATHE_TRY(std::vector<Value> lines, lines_of(context, text, keep_ends));
  return make_list(context, std::move(lines));
}

Result<Value> replace(Context& context, const Text& text, const Text& from, const Text& to, int64_t limit) {
  LATHE_TRY(context.budget.bytes(text.bytes.size()));
  TextBuilder out(context.budget);
  size_t at = 0;
  if (from.bytes.empty()) {  // as in Python: before every character and at the end
    for (int64_t done = 0; limit < 0 || done < limit; ++done) {
      out.append(to);
      LATHE_TRY(out.status());
      LATHE_TRY(context.budget.steps());
      if (at >= text.bytes.size()) return make_text(out);
      size_t size = 0;
      character_at(text.bytes, at, size);
      out.append_slice(text, at, at + size);
      at += size;
    }
  } else {
    const std::vector<ByteRange> gaps = find_all(text.bytes, from.bytes, limit);
    LATHE_TRY(context.budget.steps(static_cast<int64_t>(gaps.size())));
    for (const ByteRange& gap : gaps) {
      out.append_slice(text, at, gap.begin);
      out.append(to);
      at = gap.end;
    }
  }
  out.append_slice(text, at, text.bytes.size());
  return make_text(out);
}

Result<Value> join(Context& context, const Text& separator, const std::vector<Value>& items) {
  TextBuilder out(context.budget);
  for (size_t i = 0; i < items.size(); ++i) {
    LATHE_TRY(context.budget.steps());
    if (i > 0) out.append(separator);
    LATHE_TRY(append_str(context, items[i], out));
  }
  return make_text(out);
}

Result<Value> change_case(Context& context, const Text& text, Case to) {
  LATHE_TRY(context.budget.bytes(text.bytes.size()));
  TextBuilder out(context.budget);
  bool at_start = true;  // of the text, or of a word
  for_each_piece(text, [&](std::string_view piece, bool literal) {
    std::string changed;
    changed.reserve(piece.size());
    for (size_t at = 0, size = 0; at < piece.size(); at += size) {
      const char32_t c = character_at(piece, at, size);
      const bool upper = to == Case::kUpper || (to != Case::kLower && at_start);
      if (upper && c == 0xdf) {
        changed += to == Case::kUpper ? "SS" : "Ss";
      } else {
        append_utf8(changed, upper ? to_upper(c) : to_lower(c));
      }
      if (to == Case::kCapitalize) at_start = false;
      if (to == Case::kTitleMethod) at_start = !is_cased(c);
      if (to == Case::kTitleFilter) {
        at_start = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
      }
    }
    out.append(changed, literal);
  });
  return make_text(out);
}

Result<Value> indent(Context& context, const Text& text, const Text& by, bool first, bool blank) {
  // The line end that the original appends "for splitlines" makes a last empty line count.
  TextBuilder ended(context.budget);
  ended.append(text);
  ended.append("\n");
  LATHE_TRY(const Text with_end, ended.take());
  LATHE_TRY(const std::vector<Value> lines, lines_of(context, with_end, false));
  TextBuilder out(context.budget);
  bool is_first = true;
  for (const Value& line : lines) {
    if (!is_first) out.append("\n");
    if (is_first ? first : blank || !line.bytes().empty()) out.append(by);
    out.append(line.text());
    LATHE_TRY(out.status());
    is_first = false;
  }
  return make_text(out);
}

Result<Value> reverse(Context& context, const Text& text) {
  TextBuilder out(context.budget);
  LATHE_TRY(context.budget.steps(static_cast<int64_t>(text.bytes.size() / 8)));
  for (size_t end = text.bytes.size(); end > 0;) {
    size_t begin = end - 1;
    while (begin > 0 && (static_cast<uint8_t>(text.bytes[begin]) & 0xc0) == 0x80) --begin;
    out.append_slice(text, begin, end);
    end = begin;
  }
  return make_text(out);
}

Result<int64_t> find_bytes(Context& context, std::string_view text, std::string_view what, From from) {
  LATHE_TRY(context.budget.bytes(text.size() + what.size()));
  if (what.empty()) return from == From::kLeft ? int64_t{0} : static_cast<int64_t>(text.size());
  if (from == From::kLeft) {
    const size_t at = Finder(what).find(text, 0);
    return at == std::string_view::npos ? int64_t{-1} : static_cast<int64_t>(at);
  }
  const std::string backwards(text.rbegin(), text.rend());
  const std::string reversed(what.rbegin(), what.rend());
  const size_t at = Finder(reversed).find(backwards, 0);
  return at == std::string_view::npos ? int64_t{-1} : static_cast<int64_t>(text.size() - at - what.size());
}

Result<int64_t> count_occurrences(Context& context, std::string_view text, std::string_view what) {
  LATHE_TRY(context.budget.bytes(text.size() + what.size()));
  if (what.empty()) return static_cast<int64_t>(count_characters(text)) + 1;
  return static_cast<int64_t>(find_all(text, what, -1).size());
}

}  // namespace lathe::jinja
