// Arithmetic, comparison and access with Python's meaning; integers that leave 64 bits are errors.
#include <algorithm>
#include <cmath>

#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_builtins.h"
#include "lathe/tokenizer/jinja_strings.h"

namespace lathe::jinja {
namespace {

std::string_view op_text(Op op) {
  switch (op) {
    case Op::kAdd:
      return "+";
    case Op::kSub:
      return "-";
    case Op::kMul:
      return "*";
    case Op::kDiv:
      return "/";
    case Op::kFloorDiv:
      return "//";
    case Op::kMod:
      return "%";
    case Op::kPow:
      return "**";
    default:
      return "?";
  }
}

Error overflow(Op op) {
  return type_error(str("integer overflow in '", op_text(op), "'"));
}

Result<Value> power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return type_error("zero to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (bool first = true; exponent > 0; first = false, exponent >>= 1) {
    if (!first && __builtin_mul_overflow(base, base, &base)) return overflow(Op::kPow);
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return overflow(Op::kPow);
  }
  return Value(result);
}

Result<Value> whole_arithmetic(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return overflow(op);
      return Value(result);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &result)) return overflow(op);
      return Value(result);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &result)) return overflow(op);
      return Value(result);
    case Op::kPow:
      return power(a, b);
    default:
      break;
  }
  if (b == 0) return type_error("division by zero");
  if (op == Op::kDiv) return Value(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {  // the one quotient that can overflow, and trap
    if (op == Op::kMod) return Value(int64_t{0});
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) return overflow(op);
    return Value(result);
  }
  const int64_t remainder = a % b;
  const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
  if (op == Op::kMod) return Value(adjust ? remainder + b : remainder);
  return Value(adjust ? a / b - 1 : a / b);
}

Result<Value> real_arithmetic(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value(a + b);
    case Op::kSub:
      return Value(a - b);
    case Op::kMul:
      return Value(a * b);
    case Op::kPow: {
      if (a == 0.0 && b < 0.0) return type_error("zero to a negative power");
      if (a < 0.0 && b != std::floor(b)) return type_error("a negative number to a broken power");
      const double result = std::pow(a, b);
      if (std::isinf(result) && !std::isinf(a) && !std::isinf(b)) return type_error("number out of range in '**'");
      return Value(result);
    }
    default:
      break;
  }
  if (b == 0.0) return type_error("division by zero");
  if (op == Op::kDiv) return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0.0 && (remainder < 0.0) != (b < 0.0)) remainder += b;
  if (op == Op::kMod) return Value(remainder == 0.0 ? std::copysign(0.0, b) : remainder);
  return Value(std::floor((a - remainder) / b + 0.5));
}

Result<Value> repeat(Context& context, const Value& sequence, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (sequence.is_string()) {
    const Text& text = sequence.text();
    if (text.bytes.empty()) return sequence;
    TextBuilder out(context.budget);
    int64_t total = 0;
    if (__builtin_mul_overflow(count, static_cast<int64_t>(text.bytes.size()), &total)) total = INT64_MAX;
    Budget probe = context.budget;  // refuse what cannot fit before any of it is built
    LATHE_TRY(probe.bytes(static_cast<size_t>(total)));
    LATHE_TRY(context.budget.steps(1 + count / 16));
    for (int64_t i = 0; i < count; ++i) out.append(text);
    return make_text(out);
  }
  const std::vector<Value>& items = sequence.list()->items;
  int64_t total = 0;
  if (__builtin_mul_overflow(count, static_cast<int64_t>(items.size()), &total)) total = INT64_MAX;
  LATHE_TRY(context.budget.steps(total / static_cast<int64_t>(kElementsPerStep)));
  std::vector<Value> out;
  out.reserve(static_cast<size_t>(total));
  for (int64_t i = 0; !items.empty() && i < count; ++i) out.insert(out.end(), items.begin(), items.end());
  return make_list(context, std::move(out), sequence.list()->form);
}

bool is_plain_list(const Value& value) {
  return value.is_list() && value.list()->form <= ListForm::kTuple;
}

Result<Value> add_sequences(Context& context, const Value& a, const Value& b) {
  if (a.is_string()) {
    TextBuilder out(context.budget);
    out.append(a.text());
    out.append(b.text());
    return make_text(out);
  }
  std::vector<Value> items = a.list()->items;
  items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
  return make_list(context, std::move(items), a.list()->form);
}

// The methods of Python's types: these names hide the members of a dict behind `.`.
constexpr std::string_view kDictMethods[] = {
    "get", "items", "keys", "values", "clear", "copy", "fromkeys", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListMethods[] = {
    "index", "count", "append", "clear", "copy", "extend", "insert", "pop", "remove", "reverse", "sort"};
constexpr std::string_view kStringMethods[] = {
    "strip",     "lstrip",       "rstrip",       "split",        "rsplit",      "splitlines", "startswith", "endswith",
    "upper",     "lower",        "title",        "capitalize",   "replace",     "join",       "find",       "rfind",
    "index",     "rindex",       "count",        "isdigit",      "isalpha",     "isalnum",    "isspace",    "isupper",
    "islower",   "format",       "removeprefix", "removesuffix", "format_map",  "encode",     "translate",  "zfill",
    "center",    "ljust",        "rjust",        "partition",    "rpartition",  "swapcase",   "casefold",   "isnumeric",
    "isdecimal", "isidentifier", "istitle",      "isascii",      "isprintable", "expandtabs", "maketrans"};

template <size_t N>
bool is_one_of(std::string_view name, const std::string_view (&names)[N]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool has_method(const Value& object, std::string_view name) {
  if (object.is_string()) return is_one_of(name, kStringMethods);
  if (object.is_dict()) return is_one_of(name, kDictMethods);
  if (object.is_list()) return object.list()->form == ListForm::kList && is_one_of(name, kListMethods);
  return object.is_loop() && (name == "cycle" || name == "changed");
}

Value loop_attribute(const LoopState& loop, std::string_view name) {
  const auto size = static_cast<int64_t>(loop.items->items.size());
  const auto index = static_cast<int64_t>(loop.index);
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(size - index);
  if (name == "revindex0") return Value(size - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == size);
  if (name == "length") return Value(size);
  if (name == "depth") return Value(int64_t{loop.depth0} + 1);
  if (name == "depth0") return Value(int64_t{loop.depth0});
  if (name == "previtem") {
    return index > 0 ? loop.items->items[loop.index - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index + 1 < size ? loop.items->items[loop.index + 1] : Value::undefined("there is no next item");
  }
  return Value::undefined(str("'loop' has no attribute ", quoted(name, 60)));
}

// Python's slice.indices for a sequence of that size.
Status slice_indices(const SliceBounds& bounds, int64_t size, int64_t& start, int64_t& stop, int64_t& step) {
  for (const Value* bound : {&bounds.start, &bounds.stop, &bounds.step}) {
    if (bound->is_undefined()) return undefined_error(*bound);
    if (!bound->is_none() && !bound->is_whole()) {
      return type_error(str("slice bounds must be integers, found ", bound->type_name()));
    }
  }
  step = bounds.step.is_none() ? 1 : bounds.step.as_int();
  if (step == 0) return type_error("slice step is zero");
  step = std::clamp<int64_t>(step, -(int64_t{1} << 40), int64_t{1} << 40);
  const int64_t low = step < 0 ? -1 : 0;
  const int64_t high = step < 0 ? size - 1 : size;
  const auto resolve = [&](const Value& bound, int64_t absent) {
    if (bound.is_none()) return absent;
    const int64_t at = bound.as_int();
    return at < 0 ? std::max(at < -size ? low : at + size, low) : std::min(at, high);
  };
  start = resolve(bounds.start, step < 0 ? high : low);
  stop = resolve(bounds.stop, step < 0 ? low : high);
  return {};
}

// Byte offsets of the characters and of the end.
std::vector<size_t> character_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<uint8_t>(text[i]) & 0xc0) != 0x80) offsets.push_back(i);
  }
  offsets.push_back(text.size());
  return offsets;
}

Value missing(const Value& object, std::string_view name) {
  if (object.is_none()) return Value::undefined(str("'None' has no attribute ", quoted(name, 60)));
  return Value::undefined(str("'", object.type_name(), " object' has no attribute ", quoted(name, 60)));
}

}  // namespace

Result<Value> arithmetic(Context& context, Op op, const Value& a, const Value& b) {
  if (a.is_undefined()) return undefined_error(a);
  if (b.is_undefined()) return undefined_error(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_whole() && b.is_whole()) return whole_arithmetic(op, a.as_int(), b.as_int());
    return real_arithmetic(op, a.as_double(), b.as_double());
  }
  if (op == Op::kAdd && ((a.is_string() && b.is_string()) ||
                         (is_plain_list(a) && is_plain_list(b) && a.list()->form == b.list()->form))) {
    return add_sequences(context, a, b);
  }
  if (op == Op::kMul && (a.is_string() || is_plain_list(a)) && b.is_whole()) return repeat(context, a, b.as_int());
  if (op == Op::kMul && (b.is_string() || is_plain_list(b)) && a.is_whole()) return repeat(context, b, a.as_int());
  if (op == Op::kMod && a.is_string()) return type_error("string formatting with '%' is not supported");
  return type_error(str("'", op_text(op), "' does not apply to ", a.type_name(), " and ", b.type_name()));
}

Result<bool> compare(Context& context, Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEq:
      return equals(context, a, b);
    case Op::kNe: {
      LATHE_TRY(const bool same, equals(context, a, b));
      return !same;
    }
    case Op::kIn:
      return contains(context, a, b);
    case Op::kNotIn: {
      LATHE_TRY(const bool found, contains(context, a, b));
      return !found;
    }
    case Op::kLt:
      return less(context, a, b);
    case Op::kGt:
      return less(context, b, a);
    default:
      break;
  }
  // <= and >= are not the inverse of > and < for NaN.
  LATHE_TRY(const bool before, op == Op::kLe ? less(context, a, b) : less(context, b, a));
  if (before) return true;
  return equals(context, a, b);
}

Result<Value> negate(const Value& value) {
  if (value.is_undefined()) return undefined_error(value);
  if (value.is_whole()) return whole_arithmetic(Op::kSub, 0, value.as_int());
  if (value.is_number()) return Value(-value.as_double());
  return type_error(str("'-' does not apply to ", value.type_name()));
}

Result<Value> get_attribute(Context& context, const Value& object, std::string_view name) {
  if (object.is_undefined()) return undefined_error(object);
  if (object.is(Value::Kind::kNamespace)) {
    for (const auto& [key, value] : object.name_space()->attributes) {
      if (key == name) return value;
    }
    return Value::undefined(str("namespace has no attribute ", quoted(name, 60)));
  }
  if (has_method(object, name)) {
    Callable method{.kind = Callable::Kind::kMethod, .name = std::string(name), .receiver = object};
    return Value(std::make_shared<const Callable>(std::move(method)));
  }
  if (object.is_loop()) return loop_attribute(*object.loop(), name);
  if (object.is_dict()) {
    LATHE_TRY(context.budget.steps(1 + static_cast<int64_t>(object.dict()->entries.size() / 8)));
    const Value* found = object.dict()->find(name);
    if (found != nullptr) return *found;
  }
  return missing(object, name);
}

Result<Value> get_item(Context& context, const Value& object, const Value& key) {
  if (object.is_undefined()) return undefined_error(object);
  if (object.is_dict()) {
    LATHE_TRY(context.budget.steps(1 + static_cast<int64_t>(object.dict()->entries.size() / 8)));
    const Value* found = object.dict()->find(key);
    if (found != nullptr) return *found;
    if (!key.is_string()) return Value::undefined("'dict object' has no such element");
    return has_method(object, key.bytes()) ? get_attribute(context, object, key.bytes()) : missing(object, key.bytes());
  }
  if (key.is_whole() && object.is_list() && object.list()->form != ListForm::kLazy) {
    const std::vector<Value>& items = object.list()->items;
    const auto size = static_cast<int64_t>(items.size());
    const int64_t at = key.as_int() < 0 ? key.as_int() + size : key.as_int();
    if (at >= 0 && at < size) return items[static_cast<size_t>(at)];
  }
  if (key.is_whole() && object.is_string()) {
    const int64_t at = key.as_int();
    if (at == INT64_MAX) return Value::undefined("'str object' has no such element");
    LATHE_TRY(const Value one,
              slice(context,
                    object,
                    {.start = Value(at), .stop = at == -1 ? Value(None{}) : Value(at + 1), .step = Value(None{})}));
    LATHE_TRY(const int64_t size, length(context, object));
    if (at < size && at >= -size) return one;
  }
  if (key.is_string()) return get_attribute(context, object, key.bytes());
  return Value::undefined(str("'", object.type_name(), " object' has no such element"));
}

Result<Value> slice(Context& context, const Value& object, const SliceBounds& bounds) {
  if (object.is_undefined()) return undefined_error(object);
  int64_t start = 0, stop = 0, step = 1;
  if (object.is_string()) {
    LATHE_TRY(context.budget.bytes(object.bytes().size()));
    const std::vector<size_t> offsets = character_offsets(object.bytes());
    LATHE_TRY(slice_indices(bounds, static_cast<int64_t>(offsets.size()) - 1, start, stop, step));
    if (step == 1) {
      stop = std::max(start, stop);
      return substring(context, object.text(), offsets[static_cast<size_t>(start)], offsets[static_cast<size_t>(stop)]);
    }
    TextBuilder out(context.budget);
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
      out.append_slice(object.text(), offsets[static_cast<size_t>(i)], offsets[static_cast<size_t>(i) + 1]);
    }
    return make_text(out);
  }
  if (!object.is_list() || object.list()->form == ListForm::kLazy) {
    return type_error(str("a value of type ", object.type_name(), " cannot be sliced"));
  }
  const std::vector<Value>& items = object.list()->items;
  LATHE_TRY(slice_indices(bounds, static_cast<int64_t>(items.size()), start, stop, step));
  std::vector<Value> out;
  for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) out.push_back(items[static_cast<size_t>(i)]);
  return make_list(context, std::move(out), object.list()->form);
}

}  // namespace lathe::jinja
