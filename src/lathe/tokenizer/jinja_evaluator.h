// Runs a parsed template. Nothing here reaches the host: values in, text out, within limits.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/tokenizer/jinja_ast.h"

namespace lathe::jinja {

struct EvaluatorLimits {
  int64_t max_output_bytes = 0;
  int max_depth = 0;  // of macro calls
};

// Names of one block of the template; the root scope has the variables of the call.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<int, Value>> names;
};

// Runs one template once, within its limits.
class Evaluator {
 public:
  Evaluator(const Template& source, Context& context, const EvaluatorLimits& limits);
  // `variables` by the symbols of the template. Errors begin with `line N: `, but for those of raise_exception.
  Result<Text> run(std::vector<std::pair<int, Value>> variables);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Statements.
  Status execute(const Body& body, Flow& flow);
  Status execute_one(const Statement& statement, Flow& flow);
  Status execute_if(const Statement& statement, Flow& flow);
  Status execute_for(const Statement& statement, Flow& flow);
  Status execute_scope(const Statement& statement, Flow& flow);
  Result<Value::ListPtr> loop_items(const Statement& statement);
  // Runs the body in a scope of its own and returns what it wrote.
  Result<Value> capture(const Body& body);
  Result<Value> capture_filtered(const Statement& statement);
  Status assign(const Target& target, int line, const Value& value);
  void store(int symbol, Value value);
  Status write(int line, const Value& value);

  // Expressions.
  Result<Value> evaluate(const Expr& expr);
  Result<Value> evaluate_node(const Expr& expr);
  Result<Value> evaluate_name(const Expr& expr);
  Result<Value> evaluate_sequence(const Expr& expr);
  Result<Value> evaluate_dict(const Expr& expr);
  Result<Value> evaluate_chain(const Expr& expr);
  Result<Value> evaluate_concat(const Expr& expr);
  Result<Value> evaluate_logic(const Expr& expr);
  Result<Value> evaluate_compare(const Expr& expr);
  Result<Value> evaluate_condition(const Expr& expr);
  Result<Value> evaluate_access(const Expr& expr);
  Result<Value> evaluate_call(const Expr& expr);
  Result<Value> evaluate_filter(const Expr& expr);
  Result<Value> evaluate_test(const Expr& expr);
  Result<Args> evaluate_arguments(const Expr& expr);
  Result<Value> call_macro(int line, const Callable& callable, const Args& args);
  Status bind_parameters(int line, const Statement& macro, const Args& args);

  const Template& template_;
  Context& context_;
  EvaluatorLimits limits_;
  std::shared_ptr<Scope> root_;
  std::shared_ptr<Scope> scope_;
  TextBuilder* out_ = nullptr;
  const Value* block_input_ = nullptr;  // what the filters of a block apply to
  int loop_symbol_ = -1;
  int recursion_ = 0;
  int macro_depth_ = 0;
};

}  // namespace lathe::jinja
