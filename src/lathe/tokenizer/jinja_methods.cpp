// Methods of strings, dicts, lists and loops. What would change its object, or format text by patterns, is refused.
#include <algorithm>

#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_builtins.h"
#include "lathe/tokenizer/jinja_strings.h"

namespace lathe::jinja {
namespace {

using Bound = std::vector<const Value*>;

Error refused(const Callable& method) {
  return type_error(str("method '", method.receiver.type_name(), ".", method.name, "' is not available in templates"));
}

Result<Value> call_strip(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"chars"}));
  const Sides sides = method.name == "strip" ? Sides::kBoth : method.name == "lstrip" ? Sides::kLeft : Sides::kRight;
  if (bound[0] == nullptr || bound[0]->is_none()) return strip(context, method.receiver.text(), sides, nullptr);
  LATHE_TRY(const Text characters, text_argument(method.name, *bound[0]));
  return strip(context, method.receiver.text(), sides, &characters);
}

Result<Value> call_split(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"sep", "maxsplit"}));
  int64_t limit = -1;
  if (bound[1] != nullptr) {
    LATHE_TRY(limit, whole_argument(method.name, *bound[1]));
  }
  const From from = method.name == "split" ? From::kLeft : From::kRight;
  if (bound[0] == nullptr || bound[0]->is_none()) {
    return split(context, method.receiver.text(), nullptr, limit, from);
  }
  LATHE_TRY(const Text separator, text_argument(method.name, *bound[0]));
  return split(context, method.receiver.text(), &separator, limit, from);
}

Result<Value> call_affix(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"affix"}));
  if (bound[0] == nullptr) return type_error(str(method.name, ": expected a string"));
  const std::string& text = method.receiver.bytes();
  const auto holds = [&](const std::string& affix) {
    return method.name == "startswith" ? text.starts_with(affix) : text.ends_with(affix);
  };
  if (bound[0]->is_list() && bound[0]->list()->form == ListForm::kTuple) {
    for (const Value& affix : bound[0]->list()->items) {
      LATHE_TRY(context.budget.steps());
      LATHE_TRY(const Text one, text_argument(method.name, affix));
      if (holds(one.bytes)) return Value(true);
    }
    return Value(false);
  }
  LATHE_TRY(const Text affix, text_argument(method.name, *bound[0]));
  LATHE_TRY(context.budget.bytes(affix.bytes.size()));
  return Value(holds(affix.bytes));
}

Result<Value> call_remove_affix(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"affix"}));
  if (bound[0] == nullptr) return type_error(str(method.name, ": expected a string"));
  LATHE_TRY(const Text affix, text_argument(method.name, *bound[0]));
  const Text& text = method.receiver.text();
  const size_t size = affix.bytes.size();
  if (method.name == "removeprefix" && text.bytes.starts_with(affix.bytes)) {
    return substring(context, text, size, text.bytes.size());
  }
  if (method.name == "removesuffix" && text.bytes.ends_with(affix.bytes)) {
    return substring(context, text, 0, text.bytes.size() - size);
  }
  return method.receiver;
}

Result<Value> call_replace(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"old", "new", "count"}));
  if (bound[0] == nullptr || bound[1] == nullptr) return type_error("replace: expected the arguments old and new");
  LATHE_TRY(const Text from, text_argument(method.name, *bound[0]));
  LATHE_TRY(const Text to, text_argument(method.name, *bound[1]));
  int64_t limit = -1;
  if (bound[2] != nullptr) {
    LATHE_TRY(limit, whole_argument(method.name, *bound[2]));
  }
  return replace(context, method.receiver.text(), from, to, limit);
}

Result<Value> call_join(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"iterable"}));
  if (bound[0] == nullptr) return type_error("join: expected a sequence");
  LATHE_TRY(const Value::ListPtr items, iterate(context, *bound[0]));
  for (const Value& item : items->items) {
    LATHE_TRY(context.budget.steps());
    if (!item.is_string()) return type_error(str("join: expected strings, found ", item.type_name()));
  }
  return join(context, method.receiver.text(), items->items);
}

// find, rfind, index, rindex and count give characters, not bytes.
Result<Value> call_find(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"sub"}));
  if (bound[0] == nullptr) return type_error(str(method.name, ": expected a string"));
  LATHE_TRY(const Text what, text_argument(method.name, *bound[0]));
  const std::string& text = method.receiver.bytes();
  if (method.name == "count") {
    LATHE_TRY(const int64_t count, count_occurrences(context, text, what.bytes));
    return Value(count);
  }
  const From from = method.name.starts_with('r') ? From::kRight : From::kLeft;
  LATHE_TRY(const int64_t at, find_bytes(context, text, what.bytes, from));
  if (at < 0) {
    if (method.name.ends_with("index")) return type_error(str(method.name, ": substring not found"));
    return Value(int64_t{-1});
  }
  return Value(static_cast<int64_t>(count_characters(std::string_view(text).substr(0, static_cast<size_t>(at)))));
}

// Whether every character is of a class and there is at least one.
Result<Value> call_class(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {}));
  const std::string& text = method.receiver.bytes();
  LATHE_TRY(context.budget.bytes(text.size()));
  const bool wants_cased = method.name == "isupper" || method.name == "islower";
  bool all = !text.empty(), any_cased = false;
  for (size_t at = 0, size = 0; at < text.size() && all; at += size) {
    const char32_t c = character_at(text, at, size);
    const bool digit = c >= '0' && c <= '9';
    const bool alpha = is_cased(c) || (c >= 0xaa && is_printable(c) && !(c >= 0x2000 && c <= 0x2bff) &&
                                       !(c >= 0x3000 && c <= 0x303f) && !(c >= 0xff00 && c <= 0xff20) && c < 0x1f000 &&
                                       c != 0xab && c != 0xac && !(c >= 0xae && c <= 0xb4) && c != 0xb6 && c != 0xb7 &&
                                       c != 0xb8 && c != 0xb9 && !(c >= 0xbb && c <= 0xbf) && c != 0xd7 && c != 0xf7);
    if (method.name == "isdigit") all = digit;
    if (method.name == "isalpha") all = alpha;
    if (method.name == "isalnum") all = alpha || digit;
    if (method.name == "isspace") all = is_space(c);
    if (method.name == "isupper") all = to_lower(c) == c || to_upper(c) == c ? to_lower(c) != c || !is_cased(c) : false;
    if (method.name == "islower") all = !is_cased(c) || to_upper(c) != c || c == 0xdf;
    any_cased = any_cased || is_cased(c);
  }
  return Value(all && (!wants_cased || any_cased));
}

Result<Value> call_case(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {}));
  const Case to = method.name == "upper"   ? Case::kUpper
                  : method.name == "lower" ? Case::kLower
                  : method.name == "title" ? Case::kTitleMethod
                                           : Case::kCapitalize;
  return change_case(context, method.receiver.text(), to);
}

Result<Value> call_split_lines(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind(method.name, args, {"keepends"}));
  return split_lines(context, method.receiver.text(), bound[0] != nullptr && bound[0]->truth());
}

using MethodFn = Result<Value> (*)(Context& context, const Callable& method, const Args& args);

struct MethodEntry {
  std::string_view name;
  MethodFn function;
};

constexpr MethodEntry kStringMethods[] = {
    {"strip", call_strip},
    {"lstrip", call_strip},
    {"rstrip", call_strip},
    {"split", call_split},
    {"rsplit", call_split},
    {"splitlines", call_split_lines},
    {"startswith", call_affix},
    {"endswith", call_affix},
    {"upper", call_case},
    {"lower", call_case},
    {"title", call_case},
    {"capitalize", call_case},
    {"replace", call_replace},
    {"join", call_join},
    {"find", call_find},
    {"rfind", call_find},
    {"index", call_find},
    {"rindex", call_find},
    {"count", call_find},
    {"isdigit", call_class},
    {"isalpha", call_class},
    {"isalnum", call_class},
    {"isspace", call_class},
    {"isupper", call_class},
    {"islower", call_class},
    {"removeprefix", call_remove_affix},
    {"removesuffix", call_remove_affix},
};

Result<Value> dict_get(Context& context, const Callable& method, const Args& args) {
  LATHE_TRY(const Bound bound, bind("get", args, {"key", "default"}));
  if (bound[0] == nullptr) return type_error("get: expected a key");
  const Dict& dict = *method.receiver.dict();
  LATHE_TRY(context.budget.steps(1 + static_cast<int64_t>(dict.entries.size() / 8)));
  const Value* found = dict.find(*bound[0]);
  if (found != nullptr) return *found;
  return bound[1] == nullptr ? Value(None{}) : *bound[1];
}

Result<Value> dict_method(Context& context, const Callable& method, const Args& args) {
  if (method.name == "get") return dict_get(context, method, args);
  if (method.name == "copy") return method.receiver;
  if (method.name != "items" && method.name != "keys" && method.name != "values") return refused(method);
  LATHE_TRY(const Bound bound, bind(method.name, args, {}));
  std::vector<Value> out;
  for (const auto& [key, value] : method.receiver.dict()->entries) {
    LATHE_TRY(context.budget.steps());
    if (method.name == "keys") {
      out.push_back(key);
    } else if (method.name == "values") {
      out.push_back(value);
    } else {
      LATHE_TRY(Value pair, make_list(context, {key, value}, ListForm::kTuple));
      out.push_back(std::move(pair));
    }
  }
  const ListForm form = method.name == "keys"     ? ListForm::kKeys
                        : method.name == "values" ? ListForm::kValues
                                                  : ListForm::kItems;
  return make_list(context, std::move(out), form);
}

Result<Value> list_method(Context& context, const Callable& method, const Args& args) {
  if (method.name == "copy") return method.receiver;
  if (method.name != "index" && method.name != "count") return refused(method);
  LATHE_TRY(const Bound bound, bind(method.name, args, {"value"}));
  if (bound[0] == nullptr) return type_error(str(method.name, ": expected a value"));
  const std::vector<Value>& items = method.receiver.list()->items;
  int64_t count = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    LATHE_TRY(const bool same, equals(context, items[i], *bound[0]));
    if (same && method.name == "index") return Value(static_cast<int64_t>(i));
    if (same) ++count;
  }
  if (method.name == "index") return type_error("index: the value is not in the list");
  return Value(count);
}

Result<Value> loop_cycle(const Callable& method, const Args& args) {
  if (method.name != "cycle") return refused(method);
  if (args.positional.empty() || !args.named.empty()) return type_error("cycle: expected values");
  return args.positional[method.receiver.loop()->index % args.positional.size()];
}

}  // namespace

Result<Value> call_method(Context& context, const Callable& method, const Args& args) {
  if (method.receiver.is_dict()) return dict_method(context, method, args);
  if (method.receiver.is_list()) return list_method(context, method, args);
  if (method.receiver.is_loop()) return loop_cycle(method, args);
  for (const MethodEntry& entry : kStringMethods) {
    if (entry.name == method.name) return entry.function(context, method, args);
  }
  return refused(method);
}

}  // namespace lathe::jinja
