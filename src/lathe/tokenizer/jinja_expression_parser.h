// The expression half of the parser: precedence as in jinja2.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_ast.h"
#include "lathe/tokenizer/jinja_lexer.h"

namespace lathe::jinja {

struct TupleRules {
  bool with_condition = true;   // `a if b else c` may appear
  bool in_parentheses = false;  // () is a tuple
  std::string_view end = "";    // a name that ends the tuple
};

// Turns the tokens of an expression into a tree.
class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, int max_depth) : tokens_(std::move(tokens)), max_depth_(max_depth) {}

  // One expression; `with_condition`: `a if b else c` is allowed.
  Result<ExprPtr> parse_expression(bool with_condition = true);
  // An expression, or several with commas between them.
  Result<ExprPtr> parse_tuple(const TupleRules& rules);
  // `| name(...) | name(...)` behind `input`, which is null in filter and set blocks.
  Result<ExprPtr> parse_filters(ExprPtr input, bool first_without_bar = false);

 protected:
  // Counts nesting while it lives.
  class DepthGuard {
   public:
    explicit DepthGuard(ExpressionParser& parser) : parser_(parser) { ++parser_.depth_; }

    DepthGuard(const DepthGuard&) = delete;
    DepthGuard& operator=(const DepthGuard&) = delete;

    ~DepthGuard() { --parser_.depth_; }

    Status status() const;

   private:
    ExpressionParser& parser_;
  };

  const Token& current() const { return tokens_[at_]; }

  const Token& peek() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }

  bool at_end() const { return current().kind == Token::Kind::kEnd; }

  void next() {
    if (!at_end()) ++at_;
  }

  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  Status expect(Token::Kind kind, std::string_view what);
  Status expect_operator(std::string_view op);
  Result<std::string> expect_name();
  int symbol(std::string_view name);

  std::vector<std::string> take_symbols() { return std::move(symbols_); }

  template <class... Parts>
  Error error_here(const Parts&... parts) const {
    return error_at(current().line, str(parts...));
  }

 private:
  ExprPtr make(Expr::Kind kind, int line) const;
  Result<ExprPtr> parse_condition();
  Result<ExprPtr> parse_or();
  Result<ExprPtr> parse_and();
  Result<ExprPtr> parse_not();
  Result<ExprPtr> parse_compare();
  Result<ExprPtr> parse_sum();
  Result<ExprPtr> parse_concat();
  Result<ExprPtr> parse_product();
  Result<ExprPtr> parse_power();
  Result<ExprPtr> parse_unary(bool with_filters = true);
  Result<ExprPtr> parse_primary();
  Result<ExprPtr> parse_list();
  Result<ExprPtr> parse_dict();
  Result<ExprPtr> parse_postfix(ExprPtr expr);
  Result<ExprPtr> parse_filters_and_tests(ExprPtr expr);
  Result<ExprPtr> parse_subscript(ExprPtr expr);
  Result<ExprPtr> parse_test(ExprPtr expr);
  Status parse_arguments(Expr& call);
  bool compare_operator(Op& op);
  bool tuple_ends(const TupleRules& rules) const;
  Status check_filter_argument(const Expr& filter) const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int max_depth_;
  int depth_ = 0;
  std::vector<std::string> symbols_;
  std::map<std::string, int, std::less<>> symbol_ids_;
};

}  // namespace lathe::jinja
