// What templates can call: operators, filters, tests, methods and global functions. All of them are pure, charge the
// context's budget and return errors without a line, which the evaluator adds.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "lathe/tokenizer/jinja_ast.h"
#include "lathe/tokenizer/jinja_value.h"

namespace lathe::jinja {

// nullptr when there is none of that name.
FilterFn find_filter(std::string_view name);
TestFn find_test(std::string_view name);

// range, dict, namespace, raise_exception, strftime_now, from_json; undefined for other names.
Value find_function(std::string_view name);
// Calls a function or bound method (macros belong to the evaluator).
Result<Value> call_builtin(Context& context, const Callable& callable, const Args& args);
Result<Value> call_method(Context& context, const Callable& method, const Args& args);

// a op b for + - * / // % ** ~ with the rules of Python.
Result<Value> arithmetic(Context& context, Op op, const Value& a, const Value& b);
// a op b for == != < <= > >= in, not in.
Result<bool> compare(Context& context, Op op, const Value& a, const Value& b);
// -value, for numbers.
Result<Value> negate(const Value& value);
// object.name: an entry, a namespace field or a method; undefined when there is none.
Result<Value> get_attribute(Context& context, const Value& object, std::string_view name);
// object[key]; undefined when there is none.
Result<Value> get_item(Context& context, const Value& object, const Value& key);

// start:stop:step of a slice; absent ones as in Python.
struct SliceBounds {
  Value start = Value(None{});
  Value stop = Value(None{});
  Value step = Value(None{});
};

// object[start:stop:step] of a string or list.
Result<Value> slice(Context& context, const Value& object, const SliceBounds& bounds);

// Arguments in the order of `names`; the ones not given are null. Too many and unknown ones are errors.
Result<std::vector<const Value*>> bind(std::string_view who,
                                       const Args& args,
                                       std::initializer_list<std::string_view> names);
// Errors name the function and the argument.
Result<int64_t> whole_argument(std::string_view who, const Value& value);
Result<Text> text_argument(std::string_view who, const Value& value);

}  // namespace lathe::jinja
