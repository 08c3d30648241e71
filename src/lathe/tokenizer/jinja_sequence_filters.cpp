// Filters over sequences: selecting, mapping, sorting, aggregating.
#include <algorithm>

#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_builtins.h"
#include "lathe/tokenizer/jinja_strings.h"

namespace lathe::jinja {

FilterFn find_sequence_filter(std::string_view name);

namespace {

using Bound = std::vector<const Value*>;

bool truth_of(const Value* value) {
  return value != nullptr && value->truth();
}

// What `attribute=` names: an index, or names and indices with dots between them. Null or none: the item itself.
class AttributePath {
 public:
  static Result<AttributePath> parse(const Value* attribute) {
    AttributePath path;
    if (attribute == nullptr || attribute->is_none()) return path;
    if (attribute->is_whole()) {
      path.parts_.push_back(*attribute);
      return path;
    }
    LATHE_TRY(const Text text, text_argument("attribute", *attribute));
    if (text.bytes.size() > 1000) return type_error("attribute: the path is longer than 1000 bytes");
    size_t at = 0;
    while (true) {
      const size_t dot = std::min(text.bytes.find('.', at), text.bytes.size());
      const std::string_view part = std::string_view(text.bytes).substr(at, dot - at);
      int64_t index = 0;
      path.parts_.push_back(parse_int(part, index) && index >= 0 ? Value(index) : Value::string(part));
      if (dot == text.bytes.size()) return path;
      at = dot + 1;
    }
  }

  Result<Value> get(Context& context, const Value& item) const {
    Value value = item;
    for (const Value& part : parts_) {
      LATHE_TRY(value, get_item(context, value, part));
    }
    return value;
  }

 private:
  std::vector<Value> parts_;
};

Result<Value> fold_case(Context& context, const Value& value) {
  return value.is_string() ? change_case(context, value.text(), Case::kLower) : Result<Value>(value);
}

// The values to compare by: an attribute of each item, without regard to case unless asked.
Result<std::vector<Value>> sort_keys(Context& context,
                                     const std::vector<Value>& items,
                                     const Value* attribute,
                                     bool case_sensitive) {
  LATHE_TRY(const AttributePath path, AttributePath::parse(attribute));
  std::vector<Value> keys;
  for (const Value& item : items) {
    LATHE_TRY(Value key, path.get(context, item));
    if (!case_sensitive) {
      LATHE_TRY(key, fold_case(context, key));
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

// The order in which the items stand sorted by their keys; stable, in both directions.
Result<std::vector<size_t>> sorted_order(Context& context, const std::vector<Value>& keys, bool descending) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  Status status;
  // After an error everything compares equal, which ends the sort quickly and in order.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!status.has_value()) return false;
    Result<bool> before = descending ? less(context, keys[b], keys[a]) : less(context, keys[a], keys[b]);
    if (!before) {
      status = before.error();
      return false;
    }
    return *before;
  });
  LATHE_TRY(status);
  return order;
}

Result<Value> pick(Context& context, const std::vector<Value>& items, const std::vector<size_t>& order) {
  std::vector<Value> out;
  out.reserve(order.size());
  for (size_t i : order) out.push_back(items[i]);
  return make_list(context, std::move(out));
}

Result<Value> filter_sort(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("sort", args, {"reverse", "case_sensitive", "attribute"}));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  LATHE_TRY(const std::vector<Value> keys, sort_keys(context, items->items, bound[2], truth_of(bound[1])));
  LATHE_TRY(const std::vector<size_t> order, sorted_order(context, keys, truth_of(bound[0])));
  return pick(context, items->items, order);
}

Result<Value> filter_dictsort(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("dictsort", args, {"case_sensitive", "by", "reverse"}));
  if (input.is_undefined()) return undefined_error(input);
  if (!input.is_dict()) return type_error(str("dictsort: expected a dict, found ", input.type_name()));
  bool by_value = false;
  if (bound[1] != nullptr) {
    LATHE_TRY(const Text by, text_argument("dictsort", *bound[1]));
    if (by.bytes != "key" && by.bytes != "value") return type_error("dictsort: by must be 'key' or 'value'");
    by_value = by.bytes == "value";
  }
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict()->entries) {
    LATHE_TRY(Value pair, make_list(context, {key, value}, ListForm::kTuple));
    pairs.push_back(std::move(pair));
  }
  const Value position(int64_t{by_value ? 1 : 0});
  LATHE_TRY(const std::vector<Value> keys, sort_keys(context, pairs, &position, truth_of(bound[0])));
  LATHE_TRY(const std::vector<size_t> order, sorted_order(context, keys, truth_of(bound[2])));
  return pick(context, pairs, order);
}

Result<Value> filter_unique(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("unique", args, {"case_sensitive", "attribute"}));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  LATHE_TRY(std::vector<Value> keys, sort_keys(context, items->items, bound[1], truth_of(bound[0])));
  std::vector<Value> seen, out;
  for (size_t i = 0; i < keys.size(); ++i) {
    bool known = false;
    for (const Value& other : seen) {
      LATHE_TRY(known, equals(context, keys[i], other));
      if (known) break;
    }
    if (known) continue;
    seen.push_back(std::move(keys[i]));
    out.push_back(items->items[i]);
  }
  return make_list(context, std::move(out), ListForm::kLazy);
}

Result<Value> extreme(Context& context, const Value& input, const Args& args, bool largest) {
  LATHE_TRY(const Bound bound, bind(largest ? "max" : "min", args, {"case_sensitive", "attribute"}));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  if (items->items.empty()) return Value::undefined("no aggregated item, the sequence was empty");
  LATHE_TRY(const std::vector<Value> keys, sort_keys(context, items->items, bound[1], truth_of(bound[0])));
  size_t best = 0;
  for (size_t i = 1; i < keys.size(); ++i) {
    LATHE_TRY(const bool better, largest ? less(context, keys[best], keys[i]) : less(context, keys[i], keys[best]));
    if (better) best = i;
  }
  return items->items[best];
}

Result<Value> filter_min(Context& context, const Value& input, const Args& args) {
  return extreme(context, input, args, false);
}

Result<Value> filter_max(Context& context, const Value& input, const Args& args) {
  return extreme(context, input, args, true);
}

Result<Value> filter_sum(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("sum", args, {"attribute", "start"}));
  LATHE_TRY(const AttributePath path, AttributePath::parse(bound[0]));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  Value total = bound[1] == nullptr ? Value(int64_t{0}) : *bound[1];
  if (total.is_string()) return type_error("sum: cannot sum strings; use join");
  for (const Value& item : items->items) {
    LATHE_TRY(const Value value, path.get(context, item));
    LATHE_TRY(total, arithmetic(context, Op::kAdd, total, value));
  }
  return total;
}

Result<Value> filter_join(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Bound bound, bind("join", args, {"d", "attribute"}));
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  LATHE_TRY(const AttributePath path, AttributePath::parse(bound[1]));
  std::vector<Value> values;
  for (const Value& item : items->items) {
    LATHE_TRY(Value value, path.get(context, item));
    values.push_back(std::move(value));
  }
  LATHE_TRY(const Value separator, bound[0] == nullptr ? Value::string("") : to_str(context, *bound[0]));
  return join(context, separator.text(), values);
}

Args rest_of(const Args& args, size_t from) {
  Args rest;
  rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(from), args.positional.end());
  rest.named = args.named;
  return rest;
}

Result<Value> map_attribute(Context& context, const std::vector<Value>& items, const Args& args) {
  LATHE_TRY(const Bound bound, bind("map", args, {"attribute", "default"}));
  LATHE_TRY(const AttributePath path, AttributePath::parse(bound[0]));
  std::vector<Value> out;
  for (const Value& item : items) {
    LATHE_TRY(Value value, path.get(context, item));
    const bool use_default = value.is_undefined() && bound[1] != nullptr && !bound[1]->is_none();
    if (use_default) value = *bound[1];
    out.push_back(std::move(value));
  }
  return make_list(context, std::move(out), ListForm::kLazy);
}

Result<Value> filter_map(Context& context, const Value& input, const Args& args) {
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  if (args.positional.empty()) {
    if (args.named.empty()) return type_error("map: expected the name of a filter or attribute=");
    return map_attribute(context, items->items, args);
  }
  LATHE_TRY(const Text name, text_argument("map", args.positional[0]));
  const FilterFn filter = find_filter(name.bytes);
  if (filter == nullptr) return type_error(str("map: unknown filter ", quoted(name.bytes, 40)));
  const Args rest = rest_of(args, 1);
  std::vector<Value> out;
  for (const Value& item : items->items) {
    LATHE_TRY(context.budget.steps());
    LATHE_TRY(Value value, filter(context, item, rest));
    if (value.depth() + 1 > kMaxValueDepth) return type_error("map: values nest too deep");
    out.push_back(std::move(value));
  }
  return make_list(context, std::move(out), ListForm::kLazy);
}

Result<Value> choose(
    Context& context, std::string_view who, const Value& input, const Args& args, bool keep, bool by_attribute) {
  LATHE_TRY(const Value::ListPtr items, iterate(context, input));
  const size_t at = by_attribute ? 1 : 0;
  if (by_attribute && args.positional.empty()) return type_error(str(who, ": expected the name of an attribute"));
  LATHE_TRY(const AttributePath path, AttributePath::parse(by_attribute ? args.positional.data() : nullptr));
  TestFn test = nullptr;
  Args rest;
  if (args.positional.size() > at) {
    LATHE_TRY(const Text name, text_argument(who, args.positional[at]));
    test = find_test(name.bytes);
    if (test == nullptr) return type_error(str(who, ": unknown test ", quoted(name.bytes, 40)));
    rest = rest_of(args, at + 1);
  }
  std::vector<Value> out;
  for (const Value& item : items->items) {
    LATHE_TRY(context.budget.steps());
    LATHE_TRY(const Value value, path.get(context, item));
    LATHE_TRY(const bool holds, test == nullptr ? Result<bool>(value.truth()) : test(context, value, rest));
    if (holds == keep) out.push_back(item);
  }
  return make_list(context, std::move(out), ListForm::kLazy);
}

Result<Value> filter_select(Context& context, const Value& input, const Args& args) {
  return choose(context, "select", input, args, true, false);
}

Result<Value> filter_reject(Context& context, const Value& input, const Args& args) {
  return choose(context, "reject", input, args, false, false);
}

Result<Value> filter_selectattr(Context& context, const Value& input, const Args& args) {
  return choose(context, "selectattr", input, args, true, true);
}

Result<Value> filter_rejectattr(Context& context, const Value& input, const Args& args) {
  return choose(context, "rejectattr", input, args, false, true);
}

struct FilterEntry {
  std::string_view name;
  FilterFn function;
};

constexpr FilterEntry kSequenceFilters[] = {
    {"dictsort", filter_dictsort},
    {"join", filter_join},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

}  // namespace

FilterFn find_sequence_filter(std::string_view name) {
  for (const FilterEntry& entry : kSequenceFilters) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

}  // namespace lathe::jinja
