// Tests: `value is name(arguments)`.
#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_builtins.h"
#include "lathe/tokenizer/jinja_strings.h"

namespace lathe::jinja {
namespace {

using Kind = Value::Kind;

template <Kind kKind>
Result<bool> test_kind(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("test", args, {}));
  return value.is(kKind);
}

Result<bool> test_defined(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("defined", args, {}));
  return !value.is_undefined();
}

Result<bool> test_number(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("number", args, {}));
  return value.is_number();
}

Result<bool> test_true(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("true", args, {}));
  return value.is(Kind::kBool) && value.as_bool();
}

Result<bool> test_false(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("false", args, {}));
  return value.is(Kind::kBool) && !value.as_bool();
}

Result<bool> test_iterable(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("iterable", args, {}));
  return value.is_list() || value.is_string() || value.is_dict() || value.is_undefined() || value.is_loop();
}

Result<bool> test_sequence(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("sequence", args, {}));
  if (value.is_list()) return value.list()->form <= ListForm::kTuple || value.list()->form == ListForm::kRange;
  return value.is_string() || value.is_dict() || value.is_undefined();
}

Result<int64_t> remainder_of(std::string_view who, const Value& value, const Value& divisor) {
  LATHE_TRY(const int64_t a, whole_argument(who, value));
  LATHE_TRY(const int64_t b, whole_argument(who, divisor));
  if (b == 0) return type_error(str(who, ": division by zero"));
  return b == -1 ? 0 : a % b;
}

Result<bool> test_even(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("even", args, {}));
  LATHE_TRY(const int64_t rest, remainder_of("even", value, Value(int64_t{2})));
  return rest == 0;
}

Result<bool> test_odd(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("odd", args, {}));
  LATHE_TRY(const int64_t rest, remainder_of("odd", value, Value(int64_t{2})));
  return rest != 0;
}

Result<bool> test_divisibleby(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("divisibleby", args, {"num"}));
  if (bound[0] == nullptr) return type_error("divisibleby: expected a number");
  LATHE_TRY(const int64_t rest, remainder_of("divisibleby", value, *bound[0]));
  return rest == 0;
}

template <Op kOp>
Result<bool> test_compare(Context& context, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("comparison", args, {"other"}));
  if (bound[0] == nullptr) return type_error("comparison: expected a value to compare with");
  return compare(context, kOp, value, *bound[0]);
}

// Identity, which for values that cannot change only differs from equality in the type.
Result<bool> test_sameas(Context& context, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("sameas", args, {"other"}));
  if (bound[0] == nullptr) return type_error("sameas: expected a value to compare with");
  if (value.kind() != bound[0]->kind()) return false;
  return equals(context, value, *bound[0]);
}

template <Case kCase>
Result<bool> test_case(Context& context, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("case test", args, {}));
  LATHE_TRY(const Value text, to_str(context, value));
  LATHE_TRY(const Value changed, change_case(context, text.text(), kCase));
  bool any = false;
  for (size_t at = 0, size = 0; at < text.bytes().size() && !any; at += size) {
    any = is_cased(character_at(text.bytes(), at, size));
  }
  return any && changed.bytes() == text.bytes();
}

Result<bool> test_filter(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("filter", args, {}));
  return value.is_string() && find_filter(value.bytes()) != nullptr;
}

Result<bool> test_test(Context&, const Value& value, const Args& args) {
  LATHE_TRY(const auto bound, bind("test", args, {}));
  return value.is_string() && find_test(value.bytes()) != nullptr;
}

struct TestEntry {
  std::string_view name;
  TestFn function;
};

constexpr TestEntry kTests[] = {
    {"!=", test_compare<Op::kNe>},
    {"<", test_compare<Op::kLt>},
    {"<=", test_compare<Op::kLe>},
    {"==", test_compare<Op::kEq>},
    {">", test_compare<Op::kGt>},
    {">=", test_compare<Op::kGe>},
    {"boolean", test_kind<Kind::kBool>},
    {"callable", test_kind<Kind::kCallable>},
    {"defined", test_defined},
    {"divisibleby", test_divisibleby},
    {"eq", test_compare<Op::kEq>},
    {"equalto", test_compare<Op::kEq>},
    {"even", test_even},
    {"false", test_false},
    {"filter", test_filter},
    {"float", test_kind<Kind::kFloat>},
    {"ge", test_compare<Op::kGe>},
    {"greaterthan", test_compare<Op::kGt>},
    {"gt", test_compare<Op::kGt>},
    {"in", test_compare<Op::kIn>},
    {"integer", test_kind<Kind::kInt>},
    {"iterable", test_iterable},
    {"le", test_compare<Op::kLe>},
    {"lessthan", test_compare<Op::kLt>},
    {"lower", test_case<Case::kLower>},
    {"lt", test_compare<Op::kLt>},
    {"mapping", test_kind<Kind::kDict>},
    {"ne", test_compare<Op::kNe>},
    {"none", test_kind<Kind::kNone>},
    {"number", test_number},
    {"odd", test_odd},
    {"sameas", test_sameas},
    {"sequence", test_sequence},
    {"string", test_kind<Kind::kString>},
    {"test", test_test},
    {"true", test_true},
    {"undefined", test_kind<Kind::kUndefined>},
    {"upper", test_case<Case::kUpper>},
};

}  // namespace

TestFn find_test(std::string_view name) {
  for (const TestEntry& entry : kTests) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

}  // namespace lathe::jinja
