// Filters. Arguments have jinja2's names and defaults, so both calling styles work.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_builtins.h"
#include "lathe/tokenizer/jinja_strings.h"

namespace lathe::jinja {
namespace {

using Bound = std::vector<const Value*>;

bool truth_of(const Value* value) {
  return value != nullptr && value->truth();
}

Status no_arguments(std::string_view who, const Args& args) {
  LATHE_TRY(const Bound bound, bind(who, args, {}));
  return {};
}

// str(input), which most string filters begin with.
Result<Value> as_text(Context& context, const Value& input) {
  return to_str(context, input);
}

template <Case kTo>
Result<Value> filter_case(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("case filter", args));
  LATHE_TRY(const Value text, as_text(context, input));
  return change_case(context, text.text(), kTo);
}

Result<Value> filter_string(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("string", args));
  return as_text(context, input);
}

Result<Value> filter_trim(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("trim", args, {"chars"}));
  LATHE_TRY(const Value text, as_text(context, input));
  if (bound[0] == nullptr || bound[0]->is_none()) return strip(context, text.text(), Sides::kBoth, nullptr);
  LATHE_TRY(const Text characters, text_argument("trim", *bound[0]));
  return strip(context, text.text(), Sides::kBoth, &characters);
}

Result<Value> filter_replace(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("replace", args, {"old", "new", "count"}));
  if (bound[0] == nullptr || bound[1] == nullptr) return type_error("replace: expected the arguments old and new");
  LATHE_TRY(const Value text, as_text(context, input));
  LATHE_TRY(const Value from, as_text(context, *bound[0]));
  LATHE_TRY(const Value to, as_text(context, *bound[1]));
  int64_t limit = -1;
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    LATHE_TRY(limit, whole_argument("replace", *bound[2]));
  }
  return replace(context, text.text(), from.text(), to.text(), limit);
}

Result<Value> filter_indent(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("indent", args, {"width", "first", "blank"}));
  LATHE_TRY(const Value text, as_text(context, input));
  Text by("    ");
  if (bound[0] != nullptr && bound[0]->is_string()) {
    by = bound[0]->text();
  } else if (bound[0] != nullptr) {
    LATHE_TRY(const int64_t width, whole_argument("indent", *bound[0]));
    if (width > 1000) return type_error(str("indent: width ", width, " exceeds 1000"));
    by = Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  }
  return indent(context, text.text(), by, truth_of(bound[1]), truth_of(bound[2]));
}

Result<Value> filter_length(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("length", args));
  LATHE_TRY(const int64_t size, length(context, input));
  return Value(size);
}

Result<Value> filter_list(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("list", args));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  return make_list(context, items->items);
}

Result<Value> filter_first(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("first", args));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  return items->items.empty() ? Value::undefined("no first item, the sequence was empty") : items->items.front();
}

Result<Value> filter_last(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("last", args));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  return items->items.empty() ? Value::undefined("no last item, the sequence was empty") : items->items.back();
}

Result<Value> filter_reverse(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("reverse", args));
  if (input.is_string()) return reverse(context, input.text());
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  std::vector<Value> out(items->items.rbegin(), items->items.rend());
  return make_list(context, std::move(out), ListForm::kLazy);
}

Result<Value> filter_default(Context&, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("default", args, {"default_value", "boolean"}));
  if (!input.is_undefined() && !(truth_of(bound[1]) && !input.truth())) return input;
  return bound[0] == nullptr ? Value::string("") : *bound[0];
}

Result<Value> filter_items(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("items", args));
  std::vector<Value> pairs;
  if (!input.is_undefined()) {
    if (!input.is_dict()) return type_error(str("items: expected a dict, found ", input.type_name()));
    for (const auto& [key, value] : input.dict()->entries) {
      LATHE_TRY(Value pair, make_list(context, {key, value}, ListForm::kTuple));
      pairs.push_back(std::move(pair));
    }
  }
  return make_list(context, std::move(pairs), ListForm::kLazy);
}

// ---- numbers

Result<Value> filter_abs(Context&, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("abs", args));
  if (input.is_undefined()) return undefined_error(input);
  if (!input.is_number()) return type_error(str("abs: expected a number, found ", input.type_name()));
  if (!input.is_whole()) return Value(std::fabs(input.as_double()));
  return input.as_int() < 0 ? negate(input) : Value(input.as_int());
}

// Python's float(text): white space around, underscores between digits, inf and nan.
bool parse_python_float(std::string_view text, double& value) {
  text = text.substr(0, trimmed_end(text));
  text = text.substr(skip_space(text, 0));
  std::string plain(text);
  if (plain.empty() || plain.front() == '_' || plain.back() == '_') return false;
  std::erase(plain, '_');
  if (plain[0] == '+') plain.erase(0, 1);
  for (char& c : plain) c = static_cast<char>(to_lower(static_cast<uint8_t>(c)));
  const bool negative = plain.starts_with('-');
  const std::string_view word = std::string_view(plain).substr(negative ? 1 : 0);
  if (word == "inf" || word == "infinity") {
    value = negative ? -HUGE_VAL : HUGE_VAL;
    return true;
  }
  if (word.starts_with('.')) plain.insert(negative ? 1 : 0, "0");
  if (plain.ends_with('.')) plain += '0';
  return parse_double(plain, value);
}

bool parse_python_int(std::string_view text, int base, int64_t& value) {
  text = text.substr(0, trimmed_end(text));
  text = text.substr(skip_space(text, 0));
  std::string plain(text);
  if (plain.empty() || plain.back() == '_' || plain.front() == '_') return false;
  std::erase(plain, '_');
  const bool negative = plain[0] == '-';
  if (negative || plain[0] == '+') plain.erase(0, 1);
  if (base == 16 && (plain.starts_with("0x") || plain.starts_with("0X"))) plain.erase(0, 2);
  if (base == 8 && (plain.starts_with("0o") || plain.starts_with("0O"))) plain.erase(0, 2);
  if (base == 2 && (plain.starts_with("0b") || plain.starts_with("0B"))) plain.erase(0, 2);
  if (plain.empty() || plain[0] == '-') return false;
  if (negative) plain.insert(0, "-");
  const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value, base);
  return result.ec == std::errc() && result.ptr == plain.data() + plain.size();
}

bool whole_from_real(double real, int64_t& value) {
  if (!(real > -9.2e18 && real < 9.2e18)) return false;  // also false for NaN
  value = static_cast<int64_t>(real);
  return true;
}

Result<Value> filter_int(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("int", args, {"default", "base"}));
  int64_t base = 10, value = 0;
  double real = 0.0;
  if (bound[1] != nullptr) {
    LATHE_TRY(base, whole_argument("int", *bound[1]));
    if (base < 2 || base > 36) return type_error(str("int: base ", base, " is not in 2..36"));
  }
  if (input.is_undefined()) return undefined_error(input);
  if (input.is_whole()) return Value(input.as_int());
  if (input.is_number() && whole_from_real(input.as_double(), value)) return Value(value);
  if (input.is_string()) {
    LATHE_TRY(context.budget.bytes(input.bytes().size()));
    if (parse_python_int(input.bytes(), static_cast<int>(base), value)) return Value(value);
    if (parse_python_float(input.bytes(), real) && whole_from_real(real, value)) return Value(value);
  }
  return bound[0] == nullptr ? Value(int64_t{0}) : *bound[0];
}

Result<Value> filter_float(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("float", args, {"default"}));
  if (input.is_undefined()) return undefined_error(input);
  if (input.is_number()) return Value(input.as_double());
  double value = 0.0;
  if (input.is_string()) {
    LATHE_TRY(context.budget.bytes(input.bytes().size()));
    if (parse_python_float(input.bytes(), value)) return Value(value);
  }
  return bound[0] == nullptr ? Value(0.0) : *bound[0];
}

Result<Value> filter_round(Context&, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("round", args, {"precision", "method"}));
  if (input.is_undefined()) return undefined_error(input);
  if (!input.is_number()) return type_error(str("round: expected a number, found ", input.type_name()));
  int64_t precision = 0;
  if (bound[0] != nullptr) {
    LATHE_TRY(precision, whole_argument("round", *bound[0]));
  }
  if (precision < 0 || precision > 15) return type_error(str("round: precision ", precision, " is not in 0..15"));
  std::string method = "common";
  if (bound[1] != nullptr) {
    LATHE_TRY(const Text name, text_argument("round", *bound[1]));
    method = name.bytes;
  }
  if (method == "common") {
    if (input.is_whole()) return Value(input.as_int());
    if (!std::isfinite(input.as_double())) return input;
    char buffer[400];  // printf rounds the exact binary value, half to even, as Python's round does
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), input.as_double());
    double rounded = 0.0;
    if (!parse_double(buffer, rounded)) return input;
    return Value(rounded);
  }
  if (method != "ceil" && method != "floor") {
    return type_error(str("round: method must be common, ceil or floor, found ", quoted(method, 40)));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.as_double() * scale;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

// ---- JSON

Result<Value> filter_tojson(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ascii = truth_of(bound[0]);
  style.sort_keys = truth_of(bound[3]);
  if (bound[1] != nullptr && !bound[1]->is_none()) {
    style.item_separator = ",";
    if (bound[1]->is_string()) {
      style.indent = bound[1]->bytes();
    } else {
      LATHE_TRY(const int64_t width, whole_argument("tojson", *bound[1]));
      if (width > 100) return type_error(str("tojson: indent ", width, " exceeds 100"));
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    const Value& pair = *bound[2];
    if (!pair.is_list() || pair.list()->items.size() != 2 || !pair.list()->items[0].is_string() ||
        !pair.list()->items[1].is_string()) {
      return type_error("tojson: separators must be two strings");
    }
    style.item_separator = pair.list()->items[0].bytes();
    style.key_separator = pair.list()->items[1].bytes();
  }
  TextBuilder out(context.budget);
  LATHE_TRY(append_json(context, input, style, out));
  return make_text(out);
}

Result<Value> filter_from_json(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(no_arguments("from_json", args));
  LATHE_TRY(const Text text, text_argument("from_json", input));
  LATHE_TRY(context.budget.bytes(text.bytes.size() * 8));
  LATHE_TRY(context.budget.steps(static_cast<int64_t>(text.bytes.size() / 8)));
  Result<Json> json = parse_json(text.bytes, {.max_depth = 64});
  if (!json) return Error{Errc::kInvalidArgument, json.error().message}.at("from_json");
  return from_json(*json, !text.literal.empty());
}

struct FilterEntry {
  std::string_view name;
  FilterFn function;
};

constexpr FilterEntry kFilters[] = {
    {"abs", filter_abs},
    {"capitalize", filter_case<Case::kCapitalize>},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"first", filter_first},
    {"float", filter_float},
    {"from_json", filter_from_json},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", filter_case<Case::kLower>},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"round", filter_round},
    {"safe", filter_string},
    {"string", filter_string},
    {"title", filter_case<Case::kTitleFilter>},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"upper", filter_case<Case::kUpper>},
};

}  // namespace

FilterFn find_sequence_filter(std::string_view name);

FilterFn find_filter(std::string_view name) {
  for (const FilterEntry& entry : kFilters) {
    if (entry.name == name) return entry.function;
  }
  return find_sequence_filter(name);
}

Result<std::vector<const Value*>> bind(std::string_view who,
                                       const Args& args,
                                       std::initializer_list<std::string_view> names) {
  if (args.positional.size() > names.size()) {
    return type_error(str(who, ": expected at most ", names.size(), " arguments, found ", args.positional.size()));
  }
  std::vector<const Value*> bound(names.size(), nullptr);
  for (size_t i = 0; i < args.positional.size(); ++i) bound[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto at = static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (at == names.size()) return type_error(str(who, ": unknown argument ", quoted(name, 40)));
    if (bound[at] != nullptr) return type_error(str(who, ": argument '", name, "' is given twice"));
    bound[at] = &value;
  }
  return bound;
}

Result<int64_t> whole_argument(std::string_view who, const Value& value) {
  if (value.is_undefined()) return undefined_error(value);
  if (value.is_whole()) return value.as_int();
  return type_error(str(who, ": expected an integer, found ", value.type_name()));
}

Result<Text> text_argument(std::string_view who, const Value& value) {
  if (value.is_undefined()) return undefined_error(value);
  if (value.is_string()) return value.text();
  return type_error(str(who, ": expected a string, found ", value.type_name()));
}

}  // namespace lathe::jinja
