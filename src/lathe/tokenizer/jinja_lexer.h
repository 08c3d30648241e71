// Template source -> tokens, with jinja2's white space rules for trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe::jinja {

struct Token {
  enum class Kind {
    kData,
    kOutputBegin,
    kOutputEnd,
    kTagBegin,
    kTagEnd,
    kName,
    kString,
    kInt,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  int line = 1;
  std::string text;  // data, names, operators and the content of strings
  int64_t integer = 0;
  double real = 0.0;

  bool is_name(std::string_view name) const { return kind == Kind::kName && text == name; }

  bool is_operator(std::string_view op) const { return kind == Kind::kOperator && text == op; }
};

// How a token reads in an error message.
std::string describe(const Token& token);

// The error `line N: message`.
Error error_at(int line, std::string_view message);

// The tokens end with one kEnd. Errors: `line 3: unexpected '}', expected ')'`.
Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace lathe::jinja
