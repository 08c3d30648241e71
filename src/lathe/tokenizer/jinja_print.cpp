// Values as text: str(), repr(), JSON; and JSON as values.
#include <algorithm>
#include <cmath>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/jinja_value.h"

namespace lathe::jinja {
namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

void append_hex(std::string& out, uint32_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out += kHexDigits[(value >> shift) & 15];
}

// One character as repr() shows it between `quote`s.
void append_repr_character(std::string& out, char32_t c, std::string_view raw, char quote) {
  if (c == '\\' || c == static_cast<char32_t>(quote)) {
    out += '\\';
    out += static_cast<char>(c);
  } else if (c == '\n') {
    out += "\\n";
  } else if (c == '\r') {
    out += "\\r";
  } else if (c == '\t') {
    out += "\\t";
  } else if (is_printable(c)) {
    out += raw;
  } else if (c < 0x100) {
    out += "\\x";
    append_hex(out, c, 2);
  } else if (c < 0x10000) {
    out += "\\u";
    append_hex(out, c, 4);
  } else {
    out += "\\U";
    append_hex(out, c, 8);
  }
}

void append_json_character(std::string& out, char32_t c, std::string_view raw, bool ascii) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\b':
      out += "\\b";
      return;
    default:
      break;
  }
  if (c >= 0x20 && (c <= 0x7f || !ascii)) {
    out += raw;
  } else if (c < 0x10000) {
    out += "\\u";
    append_hex(out, c, 4);
  } else {
    out += "\\u";
    append_hex(out, 0xd800 + ((c - 0x10000) >> 10), 4);
    out += "\\u";
    append_hex(out, 0xdc00 + ((c - 0x10000) & 0x3ff), 4);
  }
}

// Appends every piece of the text through `escape`, marks kept.
template <class Escape>
void append_escaped(const Text& text, TextBuilder& out, Escape escape) {
  for_each_piece(text, [&](std::string_view piece, bool literal) {
    std::string escaped;
    escaped.reserve(piece.size() + 8);
    for (size_t at = 0, size = 0; at < piece.size(); at += size) {
      const char32_t c = character_at(piece, at, size);
      if (c >= 0x20 && c < 0x7f && c != '\\' && c != '"' && c != '\'') {
        escaped += static_cast<char>(c);
      } else {
        escape(escaped, c, piece.substr(at, size));
      }
    }
    out.append(escaped, literal);
  });
}

void append_string_repr(const Text& text, TextBuilder& out) {
  const bool has_single = text.bytes.find('\'') != std::string::npos;
  const bool has_double = text.bytes.find('"') != std::string::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  const std::string_view quote_text(&quote, 1);
  out.append(quote_text);
  append_escaped(text, out, [&](std::string& escaped, char32_t c, std::string_view raw) {
    append_repr_character(escaped, c, raw, quote);
  });
  out.append(quote_text);
}

Status append_list_repr(Context& context, const List& list, TextBuilder& out) {
  if (list.form == ListForm::kRange || list.form == ListForm::kLazy) {
    return type_error("a generator or range has no text; use the list filter");
  }
  std::string_view open = "[", close = "]";
  if (list.form == ListForm::kTuple) open = "(", close = list.items.size() == 1 ? ",)" : ")";
  if (list.form == ListForm::kKeys) open = "dict_keys([", close = "])";
  if (list.form == ListForm::kValues) open = "dict_values([", close = "])";
  if (list.form == ListForm::kItems) open = "dict_items([", close = "])";
  out.append(open);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.append(", ");
    LATHE_TRY(append_repr(context, list.items[i], out));
  }
  out.append(close);
  return {};
}

Status append_dict_repr(Context& context, const Dict& dict, TextBuilder& out) {
  out.append("{");
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) out.append(", ");
    first = false;
    LATHE_TRY(append_repr(context, key, out));
    out.append(": ");
    LATHE_TRY(append_repr(context, value, out));
  }
  out.append("}");
  return {};
}

struct JsonWriter {
  Context& context;
  const JsonStyle& style;
  TextBuilder& out;

  void new_line(int level) {
    if (!style.indent) return;
    out.append("\n");
    for (int i = 0; i < level; ++i) out.append(*style.indent);
  }

  void string(const Text& text) {
    out.append("\"");
    append_escaped(text, out, [&](std::string& escaped, char32_t c, std::string_view raw) {
      append_json_character(escaped, c, raw, style.ascii);
    });
    out.append("\"");
  }

  static std::string number_text(const Value& value) {
    if (value.is(Value::Kind::kInt)) return str(value.as_int());
    const double d = value.as_double();
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
    return float_text(d);
  }

  // Keys that are not strings become the strings json.dumps makes of them.
  void key(const Value& value) {
    if (value.is_string()) {
      string(value.text());
    } else if (value.is_none()) {
      out.append("\"null\"");
    } else if (value.is(Value::Kind::kBool)) {
      out.append(value.as_bool() ? "\"true\"" : "\"false\"");
    } else {
      out.append(str('"', number_text(value), '"'));
    }
  }

  Status list(const List& list, int level) {
    if (list.items.empty()) {
      out.append("[]");
      return {};
    }
    out.append("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out.append(style.item_separator);
      new_line(level + 1);
      LATHE_TRY(write(list.items[i], level + 1));
    }
    new_line(level);
    out.append("]");
    return {};
  }

  Status dict(const Dict& dict, int level) {
    if (dict.entries.empty()) {
      out.append("{}");
      return {};
    }
    std::vector<size_t> order(dict.entries.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (style.sort_keys) {
      LATHE_TRY(context.budget.steps(static_cast<int64_t>(order.size()) * 16));
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        const Value& x = dict.entries[a].first;
        const Value& y = dict.entries[b].first;
        return x.is_string() && y.is_string() && x.bytes() < y.bytes();
      });
    }
    out.append("{");
    bool first = true;
    for (size_t i : order) {
      if (!first) out.append(style.item_separator);
      first = false;
      new_line(level + 1);
      key(dict.entries[i].first);
      out.append(style.key_separator);
      LATHE_TRY(write(dict.entries[i].second, level + 1));
    }
    new_line(level);
    out.append("}");
    return {};
  }

  Status write(const Value& value, int level) {
    LATHE_TRY(context.budget.steps());
    LATHE_TRY(out.status());
    switch (value.kind()) {
      case Value::Kind::kNone:
        out.append("null");
        return {};
      case Value::Kind::kBool:
        out.append(value.as_bool() ? "true" : "false");
        return {};
      case Value::Kind::kInt:
      case Value::Kind::kFloat:
        out.append(number_text(value));
        return {};
      case Value::Kind::kString:
        string(value.text());
        return {};
      case Value::Kind::kList:
        if (value.list()->form > ListForm::kTuple) break;
        return list(*value.list(), level);
      case Value::Kind::kDict:
        return dict(*value.dict(), level);
      case Value::Kind::kUndefined:
        return undefined_error(value);
      default:
        break;
    }
    return type_error(str("a value of type ", value.type_name(), " has no JSON form"));
  }
};

}  // namespace

Status append_repr(Context& context, const Value& value, TextBuilder& out) {
  LATHE_TRY(context.budget.steps());
  LATHE_TRY(out.status());
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      out.append("Undefined");
      return {};
    case Value::Kind::kNone:
      out.append("None");
      return {};
    case Value::Kind::kBool:
      out.append(value.as_bool() ? "True" : "False");
      return {};
    case Value::Kind::kInt:
      out.append(str(value.as_int()));
      return {};
    case Value::Kind::kFloat:
      out.append(float_text(value.as_double()));
      return {};
    case Value::Kind::kString:
      append_string_repr(value.text(), out);
      return {};
    case Value::Kind::kList:
      return append_list_repr(context, *value.list(), out);
    case Value::Kind::kDict:
      return append_dict_repr(context, *value.dict(), out);
    default:
      return type_error(str("a value of type ", value.type_name(), " has no text"));
  }
}

Status append_str(Context& context, const Value& value, TextBuilder& out) {
  if (value.is_undefined()) return {};
  if (!value.is_string()) return append_repr(context, value, out);
  out.append(value.text());
  return out.status();
}

Result<Value> to_str(Context& context, const Value& value) {
  if (value.is_string()) return value;
  TextBuilder out(context.budget);
  LATHE_TRY(append_str(context, value, out));
  return make_text(out);
}

Status append_json(Context& context, const Value& value, const JsonStyle& style, TextBuilder& out) {
  JsonWriter writer{context, style, out};
  LATHE_TRY(writer.write(value, 0));
  return out.status();
}

Result<Value> from_json(const Json& json, bool literal, int depth) {
  if (depth >= kMaxValueDepth) {
    return Error{Errc::kInvalidArgument, str("JSON nests deeper than ", kMaxValueDepth)};
  }
  switch (json.kind()) {
    case Json::Kind::kNull:
      return Value(None{});
    case Json::Kind::kBool:
      return Value(json.as_bool());
    case Json::Kind::kInt:
      return Value(json.as_int());
    case Json::Kind::kDouble:
      return Value(json.as_double());
    case Json::Kind::kString: {
      const std::string& text = json.as_string();
      return Value(Text(is_valid_utf8(text) ? text : to_valid_utf8(text), literal));
    }
    case Json::Kind::kArray: {
      List list;
      for (const Json& item : json.as_array()) {
        LATHE_TRY(Value value, from_json(item, literal, depth + 1));
        list.depth = std::max(list.depth, value.depth() + 1);
        list.items.push_back(std::move(value));
      }
      return Value(std::make_shared<const List>(std::move(list)));
    }
    case Json::Kind::kObject:
      break;
  }
  // What the assistant said earlier is the model's own output: its <think> and the like are tokens again. An element of
  // a list of messages lies at depth 1.
  const Json* role = json.find("role");
  if (depth == 1 && role != nullptr && *role == Json("assistant")) literal = false;
  Dict dict;
  for (const auto& [key, member] : json.as_object()) {
    LATHE_TRY(Value value, from_json(member, literal, depth + 1));
    dict.depth = std::max(dict.depth, value.depth() + 1);
    dict.entries.emplace_back(Value(Text(is_valid_utf8(key) ? key : to_valid_utf8(key), literal)), std::move(value));
  }
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

}  // namespace lathe::jinja
