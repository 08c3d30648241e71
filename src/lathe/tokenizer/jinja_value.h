// Values of the template interpreter, with Python's meaning: equality, order, truth, str() and repr(). Everything but
// namespaces is immutable; containers know their nesting depth, so that no chain of values outgrows the stack.
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/tokenizer/jinja_text.h"

namespace lathe::jinja {

class Value;
struct Statement;
struct Scope;

// How a sequence came about: it decides printing, truth and what `is sequence` says.
enum class ListForm { kList, kTuple, kKeys, kValues, kItems, kRange, kLazy };

struct List;
struct Dict;
struct Namespace;
struct LoopState;
struct Callable;

struct None {};

// The default Undefined of jinja2: prints nothing, is false and empty, and fails on anything more.
struct Undefined {
  std::shared_ptr<const std::string> reason;  // "'x' is undefined"
};

// A value of the template language: cheap to copy, parts are shared and immutable.
class Value {
 public:
  using TextPtr = std::shared_ptr<const Text>;
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;
  using NamespacePtr = std::shared_ptr<Namespace>;
  using LoopPtr = std::shared_ptr<LoopState>;
  using CallablePtr = std::shared_ptr<const Callable>;
  enum class Kind { kUndefined, kNone, kBool, kInt, kFloat, kString, kList, kDict, kNamespace, kLoop, kCallable };

  Value() = default;  // undefined, without a reason

  explicit Value(Undefined v) : data_(std::move(v)) {}

  explicit Value(None v) : data_(v) {}

  explicit Value(bool v) : data_(v) {}

  explicit Value(int64_t v) : data_(v) {}

  explicit Value(double v) : data_(v) {}

  explicit Value(Text v) : data_(std::make_shared<const Text>(std::move(v))) {}

  explicit Value(ListPtr v) : data_(std::move(v)) {}

  explicit Value(DictPtr v) : data_(std::move(v)) {}

  explicit Value(NamespacePtr v) : data_(std::move(v)) {}

  explicit Value(LoopPtr v) : data_(std::move(v)) {}

  explicit Value(CallablePtr v) : data_(std::move(v)) {}

  // An undefined value; using it fails with `reason`.
  static Value undefined(std::string reason);

  static Value string(std::string_view text) { return Value(Text(text)); }

  Kind kind() const { return static_cast<Kind>(data_.index()); }

  bool is(Kind k) const { return kind() == k; }

  bool is_undefined() const { return is(Kind::kUndefined); }

  bool is_none() const { return is(Kind::kNone); }

  bool is_string() const { return is(Kind::kString); }

  bool is_list() const { return is(Kind::kList); }

  bool is_dict() const { return is(Kind::kDict); }

  bool is_loop() const { return is(Kind::kLoop); }

  bool is_callable() const { return is(Kind::kCallable); }

  bool is_number() const { return is(Kind::kInt) || is(Kind::kFloat) || is(Kind::kBool); }

  bool is_whole() const { return is(Kind::kInt) || is(Kind::kBool); }

  // The content; the kind must fit.
  bool as_bool() const { return std::get<bool>(data_); }

  int64_t as_int() const { return is(Kind::kBool) ? (as_bool() ? 1 : 0) : std::get<int64_t>(data_); }

  double as_double() const { return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(as_int()); }

  const Text& text() const { return *std::get<TextPtr>(data_); }

  const std::string& bytes() const { return text().bytes; }

  const ListPtr& list() const { return std::get<ListPtr>(data_); }

  const DictPtr& dict() const { return std::get<DictPtr>(data_); }

  const NamespacePtr& name_space() const { return std::get<NamespacePtr>(data_); }

  const LoopPtr& loop() const { return std::get<LoopPtr>(data_); }

  const CallablePtr& callable() const { return std::get<CallablePtr>(data_); }

  // Truth as in Python: empty, zero, none and undefined are false.
  bool truth() const;
  // 0 for scalars, 1 + the deepest element for containers.
  int depth() const;
  // "str", "NoneType", "dict", ...: the Python type, for messages.
  std::string_view type_name() const;
  // What an undefined value says about itself: "'x' is undefined".
  std::string undefined_reason() const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, TextPtr, ListPtr, DictPtr, NamespacePtr, LoopPtr, CallablePtr>
      data_;
};

// A list or tuple.
struct List {
  std::vector<Value> items;
  ListForm form = ListForm::kList;
  int depth = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in insertion order, keys unique
  int depth = 1;
  const Value* find(const Value& key) const;  // by string; other keys are compared one by one
  const Value* find(std::string_view key) const;
};

// The one mutable value. The interpreter owns all of them and empties them at the end, so cycles do not leak.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

struct LoopState {
  std::shared_ptr<const List> items;
  size_t index = 0;  // from 0
  int depth0 = 0;
};

// A function, method or macro.
struct Callable {
  enum class Kind { kFunction, kMethod, kMacro };
  Kind kind = Kind::kFunction;
  std::string name;
  Value receiver = Value();          // kMethod
  const Statement* macro = nullptr;  // kMacro
  std::weak_ptr<Scope> scope = {};   // kMacro: where it was defined
};

// Arguments of a call.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// What built-in operations share during one rendering.
struct Context {
  Context(Budget spending, std::function<std::tm()> now) : budget(spending), clock(std::move(now)) {}

  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();  // empties the namespaces, one by one, so that neither cycles nor long chains of them do harm

  Budget budget;
  // What strftime_now reads.
  std::function<std::tm()> clock;
  std::vector<Value::NamespacePtr> namespaces;  // all that were made
};

inline constexpr int kMaxValueDepth = 128;
// Copying a list costs less than evaluating a node; templates build lists by `list + [item]`.
inline constexpr size_t kElementsPerStep = 4;

// Containers, charged to the budget; the error is for values nested deeper than kMaxValueDepth.
Result<Value> make_list(Context& context, std::vector<Value> items, ListForm form = ListForm::kList);
Result<Value> make_dict(Context& context, std::vector<std::pair<Value, Value>> entries);
Result<Value> make_text(TextBuilder& builder);

// Errors of the interpreter: the caller adds the line.
Error type_error(std::string message);
Error undefined_error(const Value& value);

// a == b as in Python, through lists and dicts.
Result<bool> equals(Context& context, const Value& a, const Value& b);
// a < b; an error for values without an order.
Result<bool> less(Context& context, const Value& a, const Value& b);
Result<bool> contains(Context& context, const Value& item, const Value& in);
// The elements of a list, the characters of a string, the keys of a dict.
Result<Value::ListPtr> iterate(Context& context, const Value& value);
Result<int64_t> length(Context& context, const Value& value);

// str() and repr(). Values of the interpreter (namespaces, macros, generators) have no text: an error.
Status append_str(Context& context, const Value& value, TextBuilder& out);
Status append_repr(Context& context, const Value& value, TextBuilder& out);
Result<Value> to_str(Context& context, const Value& value);  // the same value when it is a string

// json.dumps as transformers calls it.
struct JsonStyle {
  bool ascii = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// Appends the value as JSON; undefined values and callables are errors.
Status append_json(Context& context, const Value& value, const JsonStyle& style, TextBuilder& out);

// Converts JSON; strings become literal where asked, but not those of messages with the role "assistant". Not charged:
// the caller bounds the input.
Result<Value> from_json(const Json& json, bool literal, int depth = 0);

}  // namespace lathe::jinja
