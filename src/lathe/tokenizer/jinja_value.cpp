#include "lathe/tokenizer/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe::jinja {
namespace {

std::string_view list_type_name(ListForm form) {
  switch (form) {
    case ListForm::kList:
      return "list";
    case ListForm::kTuple:
      return "tuple";
    case ListForm::kKeys:
      return "dict_keys";
    case ListForm::kValues:
      return "dict_values";
    case ListForm::kItems:
      return "dict_items";
    case ListForm::kRange:
      return "range";
    case ListForm::kLazy:
      return "generator";
  }
  return "list";
}

Result<bool> equal_lists(Context& context, const List& a, const List& b) {
  if (a.form != b.form || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    LATHE_TRY(const bool same, equals(context, a.items[i], b.items[i]));
    if (!same) return false;
  }
  return true;
}

Result<bool> equal_dicts(Context& context, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    LATHE_TRY(context.budget.steps(1 + static_cast<int64_t>(b.entries.size() / 8)));
    const Value* other = b.find(key);
    if (other == nullptr) return false;
    LATHE_TRY(const bool same, equals(context, value, *other));
    if (!same) return false;
  }
  return true;
}

// Keys are scalars and strings (make_dict refuses others), so this neither recurses nor fails.
bool same_key(const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) return a.bytes() == b.bytes();
  if (a.is_whole() && b.is_whole()) return a.as_int() == b.as_int();
  if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
  return a.is_none() && b.is_none();
}

}  // namespace

const Value* Dict::find(const Value& key) const {
  for (const auto& [name, value] : entries) {
    if (same_key(name, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name.is_string() && name.bytes() == key) return &value;
  }
  return nullptr;
}

Value Value::undefined(std::string reason) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(reason))});
}

bool Value::truth() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return as_bool();
    case Kind::kInt:
      return as_int() != 0;
    case Kind::kFloat:
      return as_double() != 0.0;
    case Kind::kString:
      return !bytes().empty();
    case Kind::kList:
      return list()->form == ListForm::kLazy || !list()->items.empty();
    case Kind::kDict:
      return !dict()->entries.empty();
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kCallable:
      return true;
  }
  return true;
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kList:
      return list()->depth;
    case Kind::kDict:
      return dict()->depth;
    case Kind::kLoop:
      return loop()->items->depth + 1;
    case Kind::kCallable:
      return callable()->receiver.depth() + 1;
    default:
      return 0;
  }
}

std::string_view Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return list_type_name(list()->form);
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "namespace";
    case Kind::kLoop:
      return "loop";
    case Kind::kCallable:
      return callable()->kind == Callable::Kind::kMacro ? "macro" : "function";
  }
  return "value";
}

std::string Value::undefined_reason() const {
  const auto* undefined_value = std::get_if<Undefined>(&data_);
  if (undefined_value == nullptr || undefined_value->reason == nullptr) return "value is undefined";
  return *undefined_value->reason;
}

Context::~Context() {
  for (const Value::NamespacePtr& space : namespaces) space->attributes.clear();
}

Error type_error(std::string message) {
  return Error{Errc::kInvalidArgument, std::move(message)};
}

Error undefined_error(const Value& value) {
  return type_error(value.undefined_reason());
}

Result<Value> make_list(Context& context, std::vector<Value> items, ListForm form) {
  LATHE_TRY(context.budget.steps(1 + static_cast<int64_t>(items.size() / kElementsPerStep)));
  List list{.items = std::move(items), .form = form, .depth = 1};
  for (const Value& item : list.items) list.depth = std::max(list.depth, item.depth() + 1);
  if (list.depth > kMaxValueDepth) {
    return Error{Errc::kResourceExhausted, str("values nest deeper than ", kMaxValueDepth)};
  }
  return Value(std::make_shared<const List>(std::move(list)));
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): the entries are moved out
Result<Value> make_dict(Context& context, std::vector<std::pair<Value, Value>> entries) {
  LATHE_TRY(context.budget.steps(1 + static_cast<int64_t>(entries.size())));
  Dict dict;
  for (auto& [key, value] : entries) {
    if (key.is_undefined()) return undefined_error(key);
    if (!key.is_string() && !key.is_number() && !key.is_none()) {
      return type_error(str("a ", key.type_name(), " cannot be a dict key"));
    }
    LATHE_TRY(context.budget.steps(static_cast<int64_t>(dict.entries.size() / 8)));
    const auto existing = std::find_if(
        dict.entries.begin(), dict.entries.end(), [&](const auto& entry) { return same_key(entry.first, key); });
    dict.depth = std::max(dict.depth, value.depth() + 1);
    if (existing != dict.entries.end()) {
      existing->second = std::move(value);
    } else {
      dict.entries.emplace_back(std::move(key), std::move(value));
    }
  }
  if (dict.depth > kMaxValueDepth) {
    return Error{Errc::kResourceExhausted, str("values nest deeper than ", kMaxValueDepth)};
  }
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

Result<Value> make_text(TextBuilder& builder) {
  LATHE_TRY(Text text, builder.take());
  return Value(std::move(text));
}

Result<bool> equals(Context& context, const Value& a, const Value& b) {
  LATHE_TRY(context.budget.steps());
  if (a.is_number() && b.is_number()) {
    if (a.is_whole() && b.is_whole()) return a.as_int() == b.as_int();
    return a.as_double() == b.as_double();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kString:
      if (a.bytes().size() != b.bytes().size()) return false;
      LATHE_TRY(context.budget.bytes(a.bytes().size()));
      return a.bytes() == b.bytes();
    case Value::Kind::kList:
      return equal_lists(context, *a.list(), *b.list());
    case Value::Kind::kDict:
      return equal_dicts(context, *a.dict(), *b.dict());
    case Value::Kind::kNamespace:
      return a.name_space() == b.name_space();
    case Value::Kind::kLoop:
      return a.loop() == b.loop();
    case Value::Kind::kCallable:
      return a.callable() == b.callable();
    default:
      return true;  // none and undefined equal their like
  }
}

Result<bool> less(Context& context, const Value& a, const Value& b) {
  LATHE_TRY(context.budget.steps());
  if (a.is_undefined()) return undefined_error(a);
  if (b.is_undefined()) return undefined_error(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_whole() && b.is_whole()) return a.as_int() < b.as_int();
    return a.as_double() < b.as_double();
  }
  if (a.is_string() && b.is_string()) {
    LATHE_TRY(context.budget.bytes(std::min(a.bytes().size(), b.bytes().size())));
    return a.bytes() < b.bytes();  // UTF-8 orders as its code points do
  }
  if (a.is_list() && b.is_list() && a.list()->form == b.list()->form && a.list()->form <= ListForm::kTuple) {
    const std::vector<Value>& x = a.list()->items;
    const std::vector<Value>& y = b.list()->items;
    for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
      LATHE_TRY(const bool same, equals(context, x[i], y[i]));
      if (!same) return less(context, x[i], y[i]);
    }
    return x.size() < y.size();
  }
  return type_error(str("cannot order ", a.type_name(), " and ", b.type_name()));
}

Result<bool> contains(Context& context, const Value& item, const Value& in) {
  if (in.is_undefined()) return false;
  if (in.is_string()) {
    if (!item.is_string()) {
      return type_error(str("'in' needs a string on its left when its right is one, found ", item.type_name()));
    }
    if (item.bytes().empty()) return true;
    LATHE_TRY(context.budget.bytes(in.bytes().size() + item.bytes().size()));
    return Finder(item.bytes()).find(in.bytes(), 0) != std::string_view::npos;
  }
  if (in.is_dict()) {
    if (item.is_list() || item.is_dict()) {
      return type_error(str("a ", item.type_name(), " cannot be a dict key"));
    }
    LATHE_TRY(context.budget.steps(1 + static_cast<int64_t>(in.dict()->entries.size() / 8)));
    return in.dict()->find(item) != nullptr;
  }
  if (in.is_list()) {
    for (const Value& candidate : in.list()->items) {
      LATHE_TRY(const bool same, equals(context, candidate, item));
      if (same) return true;
    }
    return false;
  }
  return type_error(str("'in' needs a list, dict or string on its right, found ", in.type_name()));
}

Result<Value::ListPtr> iterate(Context& context, const Value& value) {
  std::vector<Value> items;
  if (value.is_list()) return value.list();
  if (value.is_string()) {
    const Text& text = value.text();
    LATHE_TRY(context.budget.steps(static_cast<int64_t>(count_characters(text.bytes))));
    for (size_t at = 0, size = 0; at < text.bytes.size(); at += size) {
      character_at(text.bytes, at, size);
      TextBuilder one(context.budget);
      one.append_slice(text, at, at + size);
      LATHE_TRY(Value character, make_text(one));
      items.push_back(std::move(character));
    }
  } else if (value.is_dict()) {
    for (const auto& entry : value.dict()->entries) items.push_back(entry.first);
  } else if (!value.is_undefined()) {
    return type_error(str("cannot iterate over a value of type ", value.type_name()));
  }
  LATHE_TRY(const Value list, make_list(context, std::move(items)));
  return list.list();
}

Result<int64_t> length(Context& context, const Value& value) {
  if (value.is_undefined()) return int64_t{0};
  if (value.is_string()) {
    LATHE_TRY(context.budget.bytes(value.bytes().size()));
    return static_cast<int64_t>(count_characters(value.bytes()));
  }
  if (value.is_list() && value.list()->form != ListForm::kLazy) return static_cast<int64_t>(value.list()->items.size());
  if (value.is_dict()) return static_cast<int64_t>(value.dict()->entries.size());
  if (value.is_loop()) return static_cast<int64_t>(value.loop()->items->items.size());
  return type_error(str("a value of type ", value.type_name(), " has no length"));
}

}  // namespace lathe::jinja
