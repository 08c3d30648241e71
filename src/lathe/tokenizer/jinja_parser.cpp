#include "lathe/tokenizer/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <map>

#include "lathe/base/str.h"
#include "lathe/tokenizer/jinja_expression_parser.h"
#include "lathe/tokenizer/jinja_lexer.h"

namespace lathe::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;
using StatementPtr = std::unique_ptr<Statement>;

StatementPtr make_statement(Statement::Kind kind, int line) {
  auto statement = std::make_unique<Statement>();
  statement->kind = kind;
  statement->line = line;
  return statement;
}

class TemplateParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Result<Template> run() {
    Template result;
    LATHE_TRY(result.body, parse_body({}));
    if (!at_end()) return error_here("unexpected ", describe(current()));
    result.symbols = take_symbols();
    return result;
  }

 private:
  // Statements up to one of the tags in `ends` (its name is left as the current token), or to the end of the template.
  Result<Body> parse_body(Names ends) {
    const DepthGuard guard(*this);
    LATHE_TRY(guard.status());
    Body body;
    const int first_line = current().line;
    while (!at_end()) {
      const int line = current().line;
      if (current().kind == Token::Kind::kData) {
        body.push_back(make_statement(Statement::Kind::kText, line));
        body.back()->constant = Value(Text(current().text));
        next();
      } else if (current().kind == Token::Kind::kOutputBegin) {
        next();
        body.push_back(make_statement(Statement::Kind::kOutput, line));
        LATHE_TRY(ExprPtr expr, parse_tuple({}));
        body.back()->exprs.push_back(std::move(expr));
        LATHE_TRY(expect(Token::Kind::kOutputEnd, "'}}'"));
      } else {
        next();  // kTagBegin: the lexer leaves nothing else between tags
        if (current().kind == Token::Kind::kName && std::find(ends.begin(), ends.end(), current().text) != ends.end()) {
          return body;
        }
        LATHE_TRY(StatementPtr statement, parse_statement());
        if (statement != nullptr) body.push_back(std::move(statement));
        LATHE_TRY(expect(Token::Kind::kTagEnd, "'%}'"));
      }
    }
    if (ends.size() > 0) {
      return error_at(first_line, str("missing '{% ", *(ends.end() - 1), " %}' for the block that begins here"));
    }
    return body;
  }

  // The body of a block whose opening tag ends here, and its closing tag up to (not with) its '%}'.
  Result<Body> parse_block(Names ends) {
    skip_operator(":");  // jinja2 accepts Python's colon
    LATHE_TRY(expect(Token::Kind::kTagEnd, "'%}'"));
    return parse_body(ends);
  }

  Result<StatementPtr> parse_statement() {
    const Token& token = current();
    const int line = token.line;
    if (token.kind != Token::Kind::kName) return error_here("expected a tag name, found ", describe(token));
    const std::string name = token.text;
    next();
    if (name == "set") return parse_set(line);
    if (name == "if") return parse_if(line);
    if (name == "for") return parse_for(line);
    if (name == "macro") return parse_macro(line);
    if (name == "with") return parse_with(line);
    if (name == "generation") return parse_generation(line);
    if (name == "filter") return parse_filter_block(line);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return error_at(line, str("'", name, "' outside a loop"));
      return make_statement(name == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue, line);
    }
    for (std::string_view known : {"block", "extends", "include", "import", "from", "call", "do", "autoescape"}) {
      if (name == known) return error_at(line, str("tag '", name, "' is not supported"));
    }
    if (name.starts_with("end") || name == "else" || name == "elif") {
      return error_at(line, str("'", name, "' without the tag it belongs to"));
    }
    return error_at(line, str("unknown tag ", quoted(name, 40)));
  }

  Result<Target> parse_name_target() {
    LATHE_TRY(const std::string name, expect_name());
    Target target;
    target.symbol = symbol(name);
    return target;
  }

  // A name, or names in parentheses.
  Result<Target> parse_target_item() {
    const DepthGuard guard(*this);
    LATHE_TRY(guard.status());
    if (!skip_operator("(")) return parse_name_target();
    LATHE_TRY(Target target, parse_target());
    LATHE_TRY(expect_operator(")"));
    return target;
  }

  Result<Target> parse_target() {
    LATHE_TRY(Target first, parse_target_item());
    if (!current().is_operator(",")) return first;
    Target tuple;
    tuple.is_tuple = true;
    tuple.items.push_back(std::move(first));
    while (skip_operator(",")) {
      if (current().is_name("in") || current().is_operator("=") || current().is_operator(")")) break;
      LATHE_TRY(Target item, parse_target_item());
      tuple.items.push_back(std::move(item));
    }
    return tuple;
  }

  Result<StatementPtr> parse_set(int line) {
    StatementPtr set = make_statement(Statement::Kind::kSet, line);
    if (peek().is_operator(".")) {
      LATHE_TRY(set->target, parse_name_target());
      next();
      LATHE_TRY(set->target.attribute, expect_name());
    } else {
      LATHE_TRY(set->target, parse_target());
    }
    if (skip_operator("=")) {
      LATHE_TRY(ExprPtr value, parse_tuple({}));
      set->exprs.push_back(std::move(value));
      return set;
    }
    set->kind = Statement::Kind::kSetBlock;
    ExprPtr filters;
    if (current().is_operator("|")) {
      LATHE_TRY(filters, parse_filters(nullptr));
    }
    set->exprs.push_back(std::move(filters));
    LATHE_TRY(Body body, parse_block({"endset"}));
    set->bodies.push_back(std::move(body));
    next();
    return set;
  }

  Result<StatementPtr> parse_if(int line) {
    StatementPtr statement = make_statement(Statement::Kind::kIf, line);
    while (true) {
      LATHE_TRY(ExprPtr condition, parse_tuple({.with_condition = false}));
      statement->exprs.push_back(std::move(condition));
      LATHE_TRY(Body body, parse_block({"elif", "else", "endif"}));
      statement->bodies.push_back(std::move(body));
      const std::string end = current().text;
      next();
      if (end == "endif") return statement;
      if (end == "elif") continue;
      LATHE_TRY(Body otherwise, parse_block({"endif"}));
      statement->bodies.push_back(std::move(otherwise));
      next();
      return statement;
    }
  }

  Result<StatementPtr> parse_for(int line) {
    StatementPtr loop = make_statement(Statement::Kind::kFor, line);
    LATHE_TRY(loop->target, parse_target());
    if (!skip_name("in")) return error_here("expected 'in', found ", describe(current()));
    LATHE_TRY(ExprPtr items, parse_tuple({.with_condition = false, .end = "recursive"}));
    loop->exprs.push_back(std::move(items));
    ExprPtr condition;
    if (skip_name("if")) {
      LATHE_TRY(condition, parse_expression());
    }
    loop->exprs.push_back(std::move(condition));
    if (current().is_name("recursive")) return error_here("recursive loops are not supported");
    ++loops_;
    Result<Body> body = parse_block({"else", "endfor"});
    --loops_;
    LATHE_TRY(Body statements, std::move(body));
    loop->bodies.push_back(std::move(statements));
    const bool has_else = current().text == "else";
    next();
    Body otherwise;
    if (has_else) {
      LATHE_TRY(otherwise, parse_block({"endfor"}));
      next();
    }
    loop->bodies.push_back(std::move(otherwise));
    return loop;
  }

  Result<StatementPtr> parse_macro(int line) {
    StatementPtr macro = make_statement(Statement::Kind::kMacro, line);
    LATHE_TRY(macro->name, expect_name());
    macro->symbol = symbol(macro->name);
    LATHE_TRY(expect_operator("("));
    bool with_defaults = false;
    while (!current().is_operator(")")) {
      if (!macro->parameters.empty()) LATHE_TRY(expect_operator(","));
      LATHE_TRY(const std::string parameter, expect_name());
      ExprPtr value;
      if (skip_operator("=")) {
        with_defaults = true;
        LATHE_TRY(value, parse_expression());
      } else if (with_defaults) {
        return error_here("parameter '", parameter, "' without a default follows one with a default");
      }
      macro->parameters.emplace_back(symbol(parameter), std::move(value));
    }
    next();
    const int loops = std::exchange(loops_, 0);
    Result<Body> body = parse_block({"endmacro"});
    loops_ = loops;
    LATHE_TRY(Body statements, std::move(body));
    macro->bodies.push_back(std::move(statements));
    next();
    return macro;
  }

  Result<StatementPtr> parse_with(int line) {
    StatementPtr with = make_statement(Statement::Kind::kScope, line);
    while (current().kind != Token::Kind::kTagEnd) {
      if (!with->targets.empty()) LATHE_TRY(expect_operator(","));
      LATHE_TRY(Target target, parse_name_target());
      LATHE_TRY(expect_operator("="));
      LATHE_TRY(ExprPtr value, parse_expression());
      with->targets.push_back(std::move(target));
      with->exprs.push_back(std::move(value));
    }
    LATHE_TRY(Body body, parse_block({"endwith"}));
    with->bodies.push_back(std::move(body));
    next();
    return with;
  }

  // {% generation %} marks what the assistant wrote, for training masks; rendering only sees its content.
  Result<StatementPtr> parse_generation(int line) {
    StatementPtr scope = make_statement(Statement::Kind::kScope, line);
    LATHE_TRY(Body body, parse_block({"endgeneration"}));
    scope->bodies.push_back(std::move(body));
    next();
    return scope;
  }

  Result<StatementPtr> parse_filter_block(int line) {
    StatementPtr block = make_statement(Statement::Kind::kFilterBlock, line);
    LATHE_TRY(ExprPtr filters, parse_filters(nullptr, /*first_without_bar=*/true));
    block->exprs.push_back(std::move(filters));
    LATHE_TRY(Body body, parse_block({"endfilter"}));
    block->bodies.push_back(std::move(body));
    next();
    return block;
  }

  int loops_ = 0;
};

}  // namespace

Result<Template> parse_template(std::string_view source, int max_depth) {
  LATHE_TRY(std::vector<Token> tokens, tokenize(source));
  return TemplateParser(std::move(tokens), max_depth).run();
}

}  // namespace lathe::jinja
