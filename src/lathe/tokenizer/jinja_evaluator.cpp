#include "lathe/tokenizer/jinja_evaluator.h"

#include <algorithm>

#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_builtins.h"

namespace lathe::jinja {
namespace {

// Nested calls of evaluate and execute; each takes a few hundred bytes of stack.
constexpr int kMaxRecursion = 1000;

// Counts one more while it lives, or puts an old value back at the end.
template <class T>
class Restore {
 public:
  Restore(T& place, T value) : place_(place), old_(std::exchange(place, std::move(value))) {}

  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

  ~Restore() { place_ = std::move(old_); }

 private:
  T& place_;
  T old_;
};

Error at_line(int line, const Error& error) {
  return Error{error.code, str("line ", line, ": ", error.message)};
}

template <class T>
Result<T> located(int line, Result<T> result) {
  if (result.has_value()) return result;
  return at_line(line, result.error());
}

}  // namespace

Evaluator::Evaluator(const Template& source, Context& context, const EvaluatorLimits& limits)
    : template_(source), context_(context), limits_(limits), root_(std::make_shared<Scope>()), scope_(root_) {
  const auto loop = std::find(source.symbols.begin(), source.symbols.end(), "loop");
  if (loop != source.symbols.end()) loop_symbol_ = static_cast<int>(loop - source.symbols.begin());
}

Result<Text> Evaluator::run(std::vector<std::pair<int, Value>> variables) {
  root_->names = std::move(variables);
  TextBuilder out(context_.budget);
  out_ = &out;
  Flow flow = Flow::kNext;
  LATHE_TRY(execute(template_.body, flow));
  return out.take();
}

Status Evaluator::execute(const Body& body, Flow& flow) {
  const Restore<int> deeper(recursion_, recursion_ + 1);
  for (const auto& statement : body) {
    LATHE_TRY(located(statement->line, context_.budget.steps()));
    LATHE_TRY(execute_one(*statement, flow));
    if (flow != Flow::kNext) return {};
  }
  return {};
}

Status Evaluator::execute_one(const Statement& statement, Flow& flow) {
  switch (statement.kind) {
    case Statement::Kind::kText:
      return write(statement.line, statement.constant);
    case Statement::Kind::kOutput: {
      LATHE_TRY(const Value value, evaluate(*statement.exprs[0]));
      return write(statement.line, value);
    }
    case Statement::Kind::kSet: {
      LATHE_TRY(const Value value, evaluate(*statement.exprs[0]));
      return assign(statement.target, statement.line, value);
    }
    case Statement::Kind::kSetBlock: {
      LATHE_TRY(const Value value, capture_filtered(statement));
      return assign(statement.target, statement.line, value);
    }
    case Statement::Kind::kFilterBlock: {
      LATHE_TRY(const Value value, capture_filtered(statement));
      return write(statement.line, value);
    }
    case Statement::Kind::kIf:
      return execute_if(statement, flow);
    case Statement::Kind::kFor:
      return execute_for(statement, flow);
    case Statement::Kind::kScope:
      return execute_scope(statement, flow);
    case Statement::Kind::kMacro:
      store(statement.symbol,
            Value(std::make_shared<const Callable>(Callable{.kind = Callable::Kind::kMacro,
                                                            .name = statement.name,
                                                            .receiver = Value(),
                                                            .macro = &statement,
                                                            .scope = scope_})));
      return {};
    case Statement::Kind::kBreak:
      flow = Flow::kBreak;
      return {};
    case Statement::Kind::kContinue:
      flow = Flow::kContinue;
      return {};
  }
  return {};
}

Status Evaluator::execute_if(const Statement& statement, Flow& flow) {
  for (size_t i = 0; i < statement.exprs.size(); ++i) {
    LATHE_TRY(const Value condition, evaluate(*statement.exprs[i]));
    if (condition.truth()) return execute(statement.bodies[i], flow);
  }
  if (statement.bodies.size() > statement.exprs.size()) return execute(statement.bodies.back(), flow);
  return {};
}

Result<Value::ListPtr> Evaluator::loop_items(const Statement& statement) {
  LATHE_TRY(const Value source, evaluate(*statement.exprs[0]));
  LATHE_TRY(Value::ListPtr items, located(statement.line, iterate(context_, source)));
  if (statement.exprs[1] == nullptr) return items;
  std::vector<Value> kept;
  for (const Value& item : items->items) {
    const Restore<std::shared_ptr<Scope>> inner(scope_, std::make_shared<Scope>(Scope{scope_, {}}));
    LATHE_TRY(assign(statement.target, statement.line, item));
    LATHE_TRY(const Value holds, evaluate(*statement.exprs[1]));
    if (holds.truth()) kept.push_back(item);
  }
  LATHE_TRY(const Value list, located(statement.line, make_list(context_, std::move(kept))));
  return list.list();
}

Status Evaluator::execute_for(const Statement& statement, Flow& flow) {
  LATHE_TRY(const Value::ListPtr items, loop_items(statement));
  if (items->items.empty()) {
    const Restore<std::shared_ptr<Scope>> inner(scope_, std::make_shared<Scope>(Scope{scope_, {}}));
    return execute(statement.bodies[1], flow);
  }
  const auto loop = std::make_shared<LoopState>(LoopState{.items = items});
  for (size_t i = 0; i < items->items.size(); ++i) {
    LATHE_TRY(located(statement.line, context_.budget.steps()));
    loop->index = i;
    const Restore<std::shared_ptr<Scope>> inner(scope_, std::make_shared<Scope>(Scope{scope_, {}}));
    if (loop_symbol_ >= 0) store(loop_symbol_, Value(loop));
    LATHE_TRY(assign(statement.target, statement.line, items->items[i]));
    Flow inner_flow = Flow::kNext;
    LATHE_TRY(execute(statement.bodies[0], inner_flow));
    if (inner_flow == Flow::kBreak) break;
  }
  return {};
}

Status Evaluator::execute_scope(const Statement& statement, Flow& flow) {
  std::vector<Value> values;  // evaluated outside: a with statement's names do not see one another
  for (const ExprPtr& expr : statement.exprs) {
    LATHE_TRY(Value value, evaluate(*expr));
    values.push_back(std::move(value));
  }
  const Restore<std::shared_ptr<Scope>> inner(scope_, std::make_shared<Scope>(Scope{scope_, {}}));
  for (size_t i = 0; i < values.size(); ++i) LATHE_TRY(assign(statement.targets[i], statement.line, values[i]));
  return execute(statement.bodies[0], flow);
}

Result<Value> Evaluator::capture(const Body& body) {
  TextBuilder builder(context_.budget);
  const Restore<TextBuilder*> output(out_, &builder);
  const Restore<std::shared_ptr<Scope>> inner(scope_, std::make_shared<Scope>(Scope{scope_, {}}));
  Flow flow = Flow::kNext;
  LATHE_TRY(execute(body, flow));
  return make_text(builder);
}

Result<Value> Evaluator::capture_filtered(const Statement& statement) {
  LATHE_TRY(const Value text, capture(statement.bodies[0]));
  if (statement.exprs[0] == nullptr) return text;
  const Restore<const Value*> input(block_input_, &text);
  return evaluate(*statement.exprs[0]);
}

void Evaluator::store(int symbol, Value value) {
  for (auto& [name, old] : scope_->names) {
    if (name != symbol) continue;
    old = std::move(value);
    return;
  }
  scope_->names.emplace_back(symbol, std::move(value));
}

Status Evaluator::assign(const Target& target, int line, const Value& value) {
  if (target.is_tuple) {
    LATHE_TRY(const Value::ListPtr items, located(line, iterate(context_, value)));
    if (items->items.size() != target.items.size()) {
      return at_line(
          line, type_error(str("expected ", target.items.size(), " values to unpack, found ", items->items.size())));
    }
    for (size_t i = 0; i < target.items.size(); ++i) LATHE_TRY(assign(target.items[i], line, items->items[i]));
    return {};
  }
  if (target.attribute.empty()) {
    store(target.symbol, value);
    return {};
  }
  Expr name;
  name.symbol = target.symbol;
  name.line = line;
  name.name = template_.symbols[static_cast<size_t>(target.symbol)];
  LATHE_TRY(const Value object, evaluate_name(name));
  if (!object.is(Value::Kind::kNamespace)) {
    return at_line(line,
                   type_error(str("cannot set attribute '",
                                  target.attribute,
                                  "' of '",
                                  name.name,
                                  "': expected a namespace, found ",
                                  object.type_name())));
  }
  auto& attributes = object.name_space()->attributes;
  LATHE_TRY(located(line, context_.budget.steps(1 + static_cast<int64_t>(attributes.size() / 8))));
  const auto found = std::find_if(
      attributes.begin(), attributes.end(), [&](const auto& entry) { return entry.first == target.attribute; });
  if (found != attributes.end()) {
    found->second = value;
  } else {
    attributes.emplace_back(target.attribute, value);
  }
  return {};
}

Status Evaluator::write(int line, const Value& value) {
  LATHE_TRY(located(line, append_str(context_, value, *out_)));
  if (out_->size() > static_cast<size_t>(limits_.max_output_bytes)) {
    return at_line(line,
                   Error{Errc::kResourceExhausted, str("output is larger than ", limits_.max_output_bytes, " bytes")});
  }
  return {};
}

Result<Value> Evaluator::evaluate(const Expr& expr) {
  const Restore<int> deeper(recursion_, recursion_ + 1);
  if (recursion_ > kMaxRecursion) {
    return at_line(expr.line, Error{Errc::kResourceExhausted, "evaluation nests too deep"});
  }
  LATHE_TRY(located(expr.line, context_.budget.steps()));
  return evaluate_node(expr);
}

Result<Value> Evaluator::evaluate_node(const Expr& expr) {
  switch (expr.kind) {
    case Expr::Kind::kConst:
      return expr.constant;
    case Expr::Kind::kName:
      return evaluate_name(expr);
    case Expr::Kind::kList:
    case Expr::Kind::kTuple:
      return evaluate_sequence(expr);
    case Expr::Kind::kDict:
      return evaluate_dict(expr);
    case Expr::Kind::kChain:
      return evaluate_chain(expr);
    case Expr::Kind::kConcat:
      return evaluate_concat(expr);
    case Expr::Kind::kNegate:
    case Expr::Kind::kPlus: {
      LATHE_TRY(const Value value, evaluate(*expr.children[0]));
      LATHE_TRY(const Value negated, located(expr.line, negate(value)));
      return expr.kind == Expr::Kind::kNegate ? negated : value.is_whole() ? Value(value.as_int()) : value;
    }
    case Expr::Kind::kNot: {
      LATHE_TRY(const Value value, evaluate(*expr.children[0]));
      return Value(!value.truth());
    }
    case Expr::Kind::kAnd:
    case Expr::Kind::kOr:
      return evaluate_logic(expr);
    case Expr::Kind::kCompare:
      return evaluate_compare(expr);
    case Expr::Kind::kCondition:
      return evaluate_condition(expr);
    case Expr::Kind::kAttribute:
    case Expr::Kind::kItem:
    case Expr::Kind::kSlice:
      return evaluate_access(expr);
    case Expr::Kind::kCall:
      return evaluate_call(expr);
    case Expr::Kind::kFilter:
      return evaluate_filter(expr);
    case Expr::Kind::kTest:
      return evaluate_test(expr);
  }
  return Value();
}

Result<Value> Evaluator::evaluate_name(const Expr& expr) {
  int64_t seen = 0;
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [symbol, value] : scope->names) {
      if (symbol == expr.symbol) return value;
    }
    seen += static_cast<int64_t>(scope->names.size());
  }
  LATHE_TRY(located(expr.line, context_.budget.steps(seen / 32)));
  return find_function(expr.name);
}

Result<Value> Evaluator::evaluate_sequence(const Expr& expr) {
  std::vector<Value> items;
  for (const ExprPtr& child : expr.children) {
    LATHE_TRY(Value item, evaluate(*child));
    items.push_back(std::move(item));
  }
  const ListForm form = expr.kind == Expr::Kind::kTuple ? ListForm::kTuple : ListForm::kList;
  return located(expr.line, make_list(context_, std::move(items), form));
}

Result<Value> Evaluator::evaluate_dict(const Expr& expr) {
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
    LATHE_TRY(Value key, evaluate(*expr.children[i]));
    LATHE_TRY(Value value, evaluate(*expr.children[i + 1]));
    entries.emplace_back(std::move(key), std::move(value));
  }
  return located(expr.line, make_dict(context_, std::move(entries)));
}

Result<Value> Evaluator::evaluate_chain(const Expr& expr) {
  LATHE_TRY(Value value, evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    LATHE_TRY(const Value operand, evaluate(*expr.children[i + 1]));
    LATHE_TRY(value, located(expr.line, arithmetic(context_, expr.ops[i], value, operand)));
  }
  return value;
}

Result<Value> Evaluator::evaluate_concat(const Expr& expr) {
  TextBuilder out(context_.budget);
  for (const ExprPtr& child : expr.children) {
    LATHE_TRY(const Value value, evaluate(*child));
    LATHE_TRY(located(expr.line, append_str(context_, value, out)));
  }
  return located(expr.line, make_text(out));
}

Result<Value> Evaluator::evaluate_logic(const Expr& expr) {
  const bool stop_at = expr.kind == Expr::Kind::kOr;
  Value value;
  for (const ExprPtr& child : expr.children) {
    LATHE_TRY(value, evaluate(*child));
    if (value.truth() == stop_at) break;
  }
  return value;
}

Result<Value> Evaluator::evaluate_compare(const Expr& expr) {
  LATHE_TRY(Value left, evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    LATHE_TRY(Value right, evaluate(*expr.children[i + 1]));
    LATHE_TRY(const bool holds, located(expr.line, compare(context_, expr.ops[i], left, right)));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Result<Value> Evaluator::evaluate_condition(const Expr& expr) {
  LATHE_TRY(const Value condition, evaluate(*expr.children[0]));
  if (condition.truth()) return evaluate(*expr.children[1]);
  if (expr.children[2] != nullptr) return evaluate(*expr.children[2]);
  return Value::undefined("the inline if has no else and its condition does not hold");
}

Result<Value> Evaluator::evaluate_access(const Expr& expr) {
  LATHE_TRY(const Value object, evaluate(*expr.children[0]));
  if (expr.kind == Expr::Kind::kAttribute) return located(expr.line, get_attribute(context_, object, expr.name));
  if (expr.kind == Expr::Kind::kItem) {
    LATHE_TRY(const Value key, evaluate(*expr.children[1]));
    return located(expr.line, get_item(context_, object, key));
  }
  SliceBounds bounds;
  Value* const places[] = {&bounds.start, &bounds.stop, &bounds.step};
  for (size_t i = 0; i < 3; ++i) {
    if (expr.children[i + 1] == nullptr) continue;
    LATHE_TRY(*places[i], evaluate(*expr.children[i + 1]));
  }
  return located(expr.line, slice(context_, object, bounds));
}

Result<Args> Evaluator::evaluate_arguments(const Expr& expr) {
  Args args;
  for (size_t i = 1; i < expr.children.size(); ++i) {
    LATHE_TRY(Value value, evaluate(*expr.children[i]));
    args.positional.push_back(std::move(value));
  }
  for (const auto& [name, child] : expr.named) {
    LATHE_TRY(Value value, evaluate(*child));
    args.named.emplace_back(name, std::move(value));
  }
  return args;
}

Result<Value> Evaluator::evaluate_call(const Expr& expr) {
  LATHE_TRY(const Value callee, evaluate(*expr.children[0]));
  if (callee.is_undefined()) return at_line(expr.line, undefined_error(callee));
  if (!callee.is_callable()) {
    return at_line(expr.line, type_error(str("a value of type ", callee.type_name(), " cannot be called")));
  }
  LATHE_TRY(const Args args, evaluate_arguments(expr));
  const Callable& callable = *callee.callable();
  if (callable.kind == Callable::Kind::kMacro) return call_macro(expr.line, callable, args);
  Result<Value> result = call_builtin(context_, callable, args);
  // The text of raise_exception is for the user who sent the messages; the line would mean nothing to him.
  if (callable.kind == Callable::Kind::kFunction && callable.name == "raise_exception") return result;
  return located(expr.line, std::move(result));
}

Status Evaluator::bind_parameters(int line, const Statement& macro, const Args& args) {
  const auto name_of = [&](size_t i) {
    return std::string_view(template_.symbols[static_cast<size_t>(macro.parameters[i].first)]);
  };
  if (args.positional.size() > macro.parameters.size()) {
    return at_line(
        line,
        type_error(str(
            "macro '", macro.name, "' takes ", macro.parameters.size(), " arguments, found ", args.positional.size())));
  }
  std::vector<const Value*> given(macro.parameters.size(), nullptr);
  for (size_t i = 0; i < args.positional.size(); ++i) given[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    size_t at = 0;
    while (at < given.size() && name_of(at) != name) ++at;
    if (at == given.size() || given[at] != nullptr) {
      return at_line(
          line,
          type_error(str(
              "macro '", macro.name, "': argument '", name, at == given.size() ? "' is unknown" : "' is given twice")));
    }
    given[at] = &value;
  }
  for (size_t i = 0; i < given.size(); ++i) {
    const auto& [symbol, default_value] = macro.parameters[i];
    if (given[i] != nullptr) {
      store(symbol, *given[i]);
    } else if (default_value != nullptr) {
      LATHE_TRY(Value value, evaluate(*default_value));
      store(symbol, std::move(value));
    } else {
      store(symbol, Value::undefined(str("parameter '", name_of(i), "' was not provided")));
    }
  }
  return {};
}

Result<Value> Evaluator::call_macro(int line, const Callable& callable, const Args& args) {
  if (macro_depth_ >= limits_.max_depth) {
    return at_line(line, Error{Errc::kResourceExhausted, str("macro calls nest deeper than ", limits_.max_depth)});
  }
  std::shared_ptr<Scope> parent = callable.scope.lock();
  if (parent == nullptr) parent = root_;  // the block that defined the macro is over
  const Restore<int> deeper(macro_depth_, macro_depth_ + 1);
  const Restore<std::shared_ptr<Scope>> inner(scope_, std::make_shared<Scope>(Scope{std::move(parent), {}}));
  LATHE_TRY(bind_parameters(line, *callable.macro, args));
  TextBuilder builder(context_.budget);
  const Restore<TextBuilder*> output(out_, &builder);
  Flow flow = Flow::kNext;
  LATHE_TRY(execute(callable.macro->bodies[0], flow));
  return located(line, make_text(builder));
}

Result<Value> Evaluator::evaluate_filter(const Expr& expr) {
  Value input;
  if (expr.children[0] == nullptr) {
    input = *block_input_;
  } else {
    LATHE_TRY(input, evaluate(*expr.children[0]));
  }
  LATHE_TRY(const Args args, evaluate_arguments(expr));
  return located(expr.line, expr.filter(context_, input, args));
}

Result<Value> Evaluator::evaluate_test(const Expr& expr) {
  LATHE_TRY(const Value input, evaluate(*expr.children[0]));
  LATHE_TRY(const Args args, evaluate_arguments(expr));
  LATHE_TRY(const bool holds, located(expr.line, expr.test(context_, input, args)));
  return Value(holds);
}

}  // namespace lathe::jinja
