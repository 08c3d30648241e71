#include "lathe/tokenizer/jinja_expression_parser.h"

#include <algorithm>
#include <utility>

#include "lathe/tokenizer/jinja_builtins.h"

namespace lathe::jinja {
namespace {

struct Symbol {
  std::string_view text;
  Op op;
};

constexpr Symbol kComparisons[] = {
    {"==", Op::kEq}, {"!=", Op::kNe}, {"<", Op::kLt}, {"<=", Op::kLe}, {">", Op::kGt}, {">=", Op::kGe}};
constexpr Symbol kSums[] = {{"+", Op::kAdd}, {"-", Op::kSub}};
constexpr Symbol kProducts[] = {{"*", Op::kMul}, {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}};

template <size_t N>
bool find_symbol(const Symbol (&table)[N], const Token& token, Op& op) {
  for (const Symbol& symbol : table) {
    if (!token.is_operator(symbol.text)) continue;
    op = symbol.op;
    return true;
  }
  return false;
}

}  // namespace

Status ExpressionParser::DepthGuard::status() const {
  if (parser_.depth_ <= parser_.max_depth_) return {};
  return parser_.error_here("the template nests deeper than ", parser_.max_depth_);
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  next();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

Status ExpressionParser::expect(Token::Kind kind, std::string_view what) {
  if (current().kind != kind) return error_here("expected ", what, ", found ", describe(current()));
  next();
  return {};
}

Status ExpressionParser::expect_operator(std::string_view op) {
  if (skip_operator(op)) return {};
  return error_here("expected '", op, "', found ", describe(current()));
}

Result<std::string> ExpressionParser::expect_name() {
  if (current().kind != Token::Kind::kName) return error_here("expected a name, found ", describe(current()));
  std::string name = current().text;
  next();
  return name;
}

int ExpressionParser::symbol(std::string_view name) {
  const auto found = symbol_ids_.find(name);
  if (found != symbol_ids_.end()) return found->second;
  const int id = static_cast<int>(symbols_.size());
  symbols_.emplace_back(name);
  symbol_ids_.emplace(name, id);
  return id;
}

ExprPtr ExpressionParser::make(Expr::Kind kind, int line) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  return expr;
}

Result<ExprPtr> ExpressionParser::parse_expression(bool with_condition) {
  const DepthGuard guard(*this);
  LATHE_TRY(guard.status());
  return with_condition ? parse_condition() : parse_or();
}

Result<ExprPtr> ExpressionParser::parse_condition() {
  LATHE_TRY(ExprPtr then, parse_or());
  for (int count = 0; current().is_name("if"); ++count) {
    if (count >= max_depth_) return error_here("the template nests deeper than ", max_depth_);
    ExprPtr condition = make(Expr::Kind::kCondition, current().line);
    next();
    LATHE_TRY(ExprPtr test, parse_or());
    ExprPtr otherwise;
    if (skip_name("else")) {
      LATHE_TRY(otherwise, parse_expression());
    }
    condition->children.push_back(std::move(test));
    condition->children.push_back(std::move(then));
    condition->children.push_back(std::move(otherwise));
    then = std::move(condition);
  }
  return then;
}

Result<ExprPtr> ExpressionParser::parse_or() {
  LATHE_TRY(ExprPtr first, parse_and());
  if (!current().is_name("or")) return first;
  ExprPtr chain = make(Expr::Kind::kOr, current().line);
  chain->children.push_back(std::move(first));
  while (skip_name("or")) {
    LATHE_TRY(ExprPtr operand, parse_and());
    chain->children.push_back(std::move(operand));
  }
  return chain;
}

Result<ExprPtr> ExpressionParser::parse_and() {
  LATHE_TRY(ExprPtr first, parse_not());
  if (!current().is_name("and")) return first;
  ExprPtr chain = make(Expr::Kind::kAnd, current().line);
  chain->children.push_back(std::move(first));
  while (skip_name("and")) {
    LATHE_TRY(ExprPtr operand, parse_not());
    chain->children.push_back(std::move(operand));
  }
  return chain;
}

Result<ExprPtr> ExpressionParser::parse_not() {
  if (!current().is_name("not")) return parse_compare();
  const DepthGuard guard(*this);
  LATHE_TRY(guard.status());
  ExprPtr expr = make(Expr::Kind::kNot, current().line);
  next();
  LATHE_TRY(ExprPtr operand, parse_not());
  expr->children.push_back(std::move(operand));
  return expr;
}

bool ExpressionParser::compare_operator(Op& op) {
  if (find_symbol(kComparisons, current(), op)) {
    next();
    return true;
  }
  if (skip_name("in")) {
    op = Op::kIn;
    return true;
  }
  if (current().is_name("not") && peek().is_name("in")) {
    next();
    next();
    op = Op::kNotIn;
    return true;
  }
  return false;
}

Result<ExprPtr> ExpressionParser::parse_compare() {
  const int line = current().line;
  LATHE_TRY(ExprPtr first, parse_sum());
  Op op = Op::kEq;
  if (!compare_operator(op)) return first;
  ExprPtr chain = make(Expr::Kind::kCompare, line);
  chain->children.push_back(std::move(first));
  do {
    LATHE_TRY(ExprPtr operand, parse_sum());
    chain->ops.push_back(op);
    chain->children.push_back(std::move(operand));
  } while (compare_operator(op));
  return chain;
}

Result<ExprPtr> ExpressionParser::parse_sum() {
  LATHE_TRY(ExprPtr first, parse_concat());
  Op op = Op::kAdd;
  if (!find_symbol(kSums, current(), op)) return first;
  ExprPtr chain = make(Expr::Kind::kChain, current().line);
  chain->children.push_back(std::move(first));
  while (find_symbol(kSums, current(), op)) {
    next();
    LATHE_TRY(ExprPtr operand, parse_concat());
    chain->ops.push_back(op);
    chain->children.push_back(std::move(operand));
  }
  return chain;
}

Result<ExprPtr> ExpressionParser::parse_concat() {
  LATHE_TRY(ExprPtr first, parse_product());
  if (!current().is_operator("~")) return first;
  ExprPtr chain = make(Expr::Kind::kConcat, current().line);
  chain->children.push_back(std::move(first));
  while (skip_operator("~")) {
    LATHE_TRY(ExprPtr operand, parse_product());
    chain->children.push_back(std::move(operand));
  }
  return chain;
}

Result<ExprPtr> ExpressionParser::parse_product() {
  LATHE_TRY(ExprPtr first, parse_power());
  Op op = Op::kMul;
  if (!find_symbol(kProducts, current(), op)) return first;
  ExprPtr chain = make(Expr::Kind::kChain, current().line);
  chain->children.push_back(std::move(first));
  while (find_symbol(kProducts, current(), op)) {
    next();
    LATHE_TRY(ExprPtr operand, parse_power());
    chain->ops.push_back(op);
    chain->children.push_back(std::move(operand));
  }
  return chain;
}

Result<ExprPtr> ExpressionParser::parse_power() {
  LATHE_TRY(ExprPtr first, parse_unary());
  if (!current().is_operator("**")) return first;
  ExprPtr chain = make(Expr::Kind::kChain, current().line);
  chain->children.push_back(std::move(first));
  while (skip_operator("**")) {
    LATHE_TRY(ExprPtr operand, parse_unary());
    chain->ops.push_back(Op::kPow);
    chain->children.push_back(std::move(operand));
  }
  return chain;
}

Result<ExprPtr> ExpressionParser::parse_unary(bool with_filters) {
  ExprPtr expr;
  if (current().is_operator("-") || current().is_operator("+")) {
    const DepthGuard guard(*this);
    LATHE_TRY(guard.status());
    expr = make(current().is_operator("-") ? Expr::Kind::kNegate : Expr::Kind::kPlus, current().line);
    next();
    LATHE_TRY(ExprPtr operand, parse_unary(false));
    expr->children.push_back(std::move(operand));
  } else {
    LATHE_TRY(expr, parse_primary());
  }
  LATHE_TRY(expr, parse_postfix(std::move(expr)));
  if (!with_filters) return expr;
  return parse_filters_and_tests(std::move(expr));
}

Result<ExprPtr> ExpressionParser::parse_primary() {
  const Token& token = current();
  ExprPtr expr = make(Expr::Kind::kConst, token.line);
  switch (token.kind) {
    case Token::Kind::kName:
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        expr->constant = Value(token.text == "true" || token.text == "True");
      } else if (token.text == "none" || token.text == "None") {
        expr->constant = Value(None{});
      } else {
        expr->kind = Expr::Kind::kName;
        expr->name = token.text;
        expr->symbol = symbol(token.text);
      }
      next();
      return expr;
    case Token::Kind::kString: {
      std::string text;
      for (; current().kind == Token::Kind::kString; next()) text += current().text;
      expr->constant = Value(Text(text));
      return expr;
    }
    case Token::Kind::kInt:
      expr->constant = Value(token.integer);
      next();
      return expr;
    case Token::Kind::kFloat:
      expr->constant = Value(token.real);
      next();
      return expr;
    default:
      break;
  }
  if (skip_operator("(")) {
    LATHE_TRY(expr, parse_tuple({.in_parentheses = true}));
    LATHE_TRY(expect_operator(")"));
    return expr;
  }
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  return error_here("expected an expression, found ", describe(token));
}

bool ExpressionParser::tuple_ends(const TupleRules& rules) const {
  return current().kind == Token::Kind::kOutputEnd || current().kind == Token::Kind::kTagEnd ||
         current().is_operator(")") || (!rules.end.empty() && current().is_name(rules.end));
}

Result<ExprPtr> ExpressionParser::parse_tuple(const TupleRules& rules) {
  const int line = current().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!tuple_ends(rules)) {
    LATHE_TRY(ExprPtr item, parse_expression(rules.with_condition));
    items.push_back(std::move(item));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !rules.in_parentheses) return error_here("expected an expression, found ", describe(current()));
  ExprPtr tuple = make(Expr::Kind::kTuple, line);
  tuple->children = std::move(items);
  return tuple;
}

Result<ExprPtr> ExpressionParser::parse_list() {
  ExprPtr list = make(Expr::Kind::kList, current().line);
  next();
  while (!current().is_operator("]")) {
    LATHE_TRY(ExprPtr item, parse_expression());
    list->children.push_back(std::move(item));
    if (!skip_operator(",")) break;
  }
  LATHE_TRY(expect_operator("]"));
  return list;
}

Result<ExprPtr> ExpressionParser::parse_dict() {
  ExprPtr dict = make(Expr::Kind::kDict, current().line);
  next();
  while (!current().is_operator("}")) {
    LATHE_TRY(ExprPtr key, parse_expression());
    LATHE_TRY(expect_operator(":"));
    LATHE_TRY(ExprPtr value, parse_expression());
    dict->children.push_back(std::move(key));
    dict->children.push_back(std::move(value));
    if (!skip_operator(",")) break;
  }
  LATHE_TRY(expect_operator("}"));
  return dict;
}

Result<ExprPtr> ExpressionParser::parse_postfix(ExprPtr expr) {
  for (int count = 0;; ++count) {
    if (count > max_depth_) return error_here("the template nests deeper than ", max_depth_);
    if (current().is_operator(".") || current().is_operator("[")) {
      LATHE_TRY(expr, parse_subscript(std::move(expr)));
    } else if (current().is_operator("(")) {
      ExprPtr call = make(Expr::Kind::kCall, current().line);
      call->children.push_back(std::move(expr));
      LATHE_TRY(parse_arguments(*call));
      expr = std::move(call);
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> ExpressionParser::parse_filters_and_tests(ExprPtr expr) {
  for (int count = 0;; ++count) {
    if (count > max_depth_) return error_here("the template nests deeper than ", max_depth_);
    if (current().is_operator("|")) {
      LATHE_TRY(expr, parse_filters(std::move(expr)));
    } else if (current().is_name("is")) {
      LATHE_TRY(expr, parse_test(std::move(expr)));
    } else if (current().is_operator("(")) {
      ExprPtr call = make(Expr::Kind::kCall, current().line);
      call->children.push_back(std::move(expr));
      LATHE_TRY(parse_arguments(*call));
      expr = std::move(call);
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> ExpressionParser::parse_subscript(ExprPtr expr) {
  const int line = current().line;
  if (skip_operator(".")) {
    ExprPtr result = make(Expr::Kind::kAttribute, line);
    result->children.push_back(std::move(expr));
    if (current().kind == Token::Kind::kInt) {
      result->kind = Expr::Kind::kItem;
      result->children.push_back(make(Expr::Kind::kConst, line));
      result->children.back()->constant = Value(current().integer);
      next();
      return result;
    }
    LATHE_TRY(result->name, expect_name());
    return result;
  }
  next();
  ExprPtr result = make(Expr::Kind::kItem, line);
  result->children.push_back(std::move(expr));
  ExprPtr parts[3];
  size_t part = 0;
  while (!current().is_operator("]")) {
    if (skip_operator(":")) {
      if (++part > 2) return error_here("expected ']', found ':'");
      continue;
    }
    if (parts[part] != nullptr) break;
    LATHE_TRY(parts[part], parse_expression());
  }
  LATHE_TRY(expect_operator("]"));
  if (part == 0) {
    if (parts[0] == nullptr) return error_at(line, "expected an expression, found ']'");
    result->children.push_back(std::move(parts[0]));
    return result;
  }
  result->kind = Expr::Kind::kSlice;
  for (ExprPtr& bound : parts) result->children.push_back(std::move(bound));
  return result;
}

Status ExpressionParser::parse_arguments(Expr& call) {
  LATHE_TRY(expect_operator("("));
  while (!current().is_operator(")")) {
    if (current().is_operator("*") || current().is_operator("**")) {
      return error_here("argument unpacking with ", describe(current()), " is not supported");
    }
    if (current().kind == Token::Kind::kName && peek().is_operator("=")) {
      std::string name = current().text;
      for (const auto& argument : call.named) {
        if (argument.first == name) return error_here("argument '", name, "' appears twice");
      }
      next();
      next();
      LATHE_TRY(ExprPtr value, parse_expression());
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.named.empty()) return error_here("a positional argument follows a named one");
      LATHE_TRY(ExprPtr value, parse_expression());
      call.children.push_back(std::move(value));
    }
    if (!skip_operator(",")) break;
  }
  return expect_operator(")");
}

Result<ExprPtr> ExpressionParser::parse_filters(ExprPtr input, bool first_without_bar) {
  for (int count = 0; first_without_bar || skip_operator("|"); ++count) {
    if (count > max_depth_) return error_here("the template nests deeper than ", max_depth_);
    first_without_bar = false;
    ExprPtr filter = make(Expr::Kind::kFilter, current().line);
    LATHE_TRY(filter->name, expect_name());
    filter->filter = find_filter(filter->name);
    if (filter->filter == nullptr) {
      return error_at(filter->line, str("unknown filter ", quoted(filter->name, 40)));
    }
    filter->children.push_back(std::move(input));
    if (current().is_operator("(")) LATHE_TRY(parse_arguments(*filter));
    LATHE_TRY(check_filter_argument(*filter));
    input = std::move(filter);
  }
  return input;
}

// map('name') and select('name') name filters and tests in strings: constant ones are checked here.
Status ExpressionParser::check_filter_argument(const Expr& filter) const {
  const bool is_map = filter.name == "map";
  const bool by_attribute = filter.name == "selectattr" || filter.name == "rejectattr";
  if (!is_map && !by_attribute && filter.name != "select" && filter.name != "reject") return {};
  const size_t position = by_attribute ? 2 : 1;
  if (filter.children.size() <= position) return {};
  const Expr& name = *filter.children[position];
  if (name.kind != Expr::Kind::kConst || !name.constant.is_string()) return {};
  const std::string& text = name.constant.bytes();
  if (is_map && find_filter(text) == nullptr) {
    return error_at(name.line, str("unknown filter ", quoted(text, 40)));
  }
  if (!is_map && find_test(text) == nullptr) {
    return error_at(name.line, str("unknown test ", quoted(text, 40)));
  }
  return {};
}

Result<ExprPtr> ExpressionParser::parse_test(ExprPtr expr) {
  const int line = current().line;
  next();
  const bool negated = skip_name("not");
  ExprPtr test = make(Expr::Kind::kTest, line);
  LATHE_TRY(test->name, expect_name());
  test->test = find_test(test->name);
  if (test->test == nullptr) return error_at(line, str("unknown test ", quoted(test->name, 40)));
  test->children.push_back(std::move(expr));
  const Token& token = current();
  if (token.is_operator("(")) {
    LATHE_TRY(parse_arguments(*test));
  } else if (token.is_name("is")) {
    return error_here("tests cannot be chained with 'is'");
  } else if (token.kind == Token::Kind::kString || token.kind == Token::Kind::kInt ||
             token.kind == Token::Kind::kFloat || token.is_operator("[") || token.is_operator("{") ||
             (token.kind == Token::Kind::kName && !token.is_name("else") && !token.is_name("or") &&
              !token.is_name("and"))) {
    const DepthGuard guard(*this);
    LATHE_TRY(guard.status());
    LATHE_TRY(ExprPtr argument, parse_primary());
    LATHE_TRY(argument, parse_postfix(std::move(argument)));
    test->children.push_back(std::move(argument));
  }
  if (!negated) return test;
  ExprPtr inverse = make(Expr::Kind::kNot, line);
  inverse->children.push_back(std::move(test));
  return inverse;
}

}  // namespace lathe::jinja
