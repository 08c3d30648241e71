// The parsed template. Chains of operators of one level are flat, so the depth of the tree follows the nesting of the
// source, which the parser limits.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lathe/tokenizer/jinja_value.h"

namespace lathe::jinja {

using FilterFn = Result<Value> (*)(Context& context, const Value& input, const Args& args);
using TestFn = Result<bool> (*)(Context& context, const Value& input, const Args& args);

enum class Op { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow, kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    kConst,      // constant
    kName,       // symbol
    kList,       // children
    kTuple,      // children
    kDict,       // children: key, value, key, value, ...
    kChain,      // children[0] ops[0] children[1] ops[1] ... from the left
    kConcat,     // children joined as text (~)
    kNegate,     // children[0]
    kPlus,       // children[0]
    kNot,        // children[0]
    kAnd,        // children
    kOr,         // children
    kCompare,    // children[0] ops[0] children[1] ops[1] ..., all must hold
    kCondition,  // children: condition, then, else (may be null)
    kAttribute,  // children[0].name
    kItem,       // children[0][children[1]]
    kSlice,      // children[0][children[1]:children[2]:children[3]], bounds may be null
    kCall,       // children[0](children[1..], named)
    kFilter,     // children[0] | name(children[1..], named); children[0] is null in filter blocks
    kTest,       // children[0] is name(children[1..], named)
  };
  Kind kind = Kind::kConst;
  int line = 1;
  Value constant;
  int symbol = -1;
  std::string name;
  std::vector<ExprPtr> children;
  std::vector<Op> ops;
  std::vector<std::pair<std::string, ExprPtr>> named;
  FilterFn filter = nullptr;
  TestFn test = nullptr;
};

// What an assignment writes to: a name, the attribute of a namespace, or several targets.
struct Target {
  int symbol = -1;
  std::string attribute;
  std::vector<Target> items;
  bool is_tuple = false;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  enum class Kind {
    kText,         // constant
    kOutput,       // exprs[0]
    kSet,          // target = exprs[0]
    kSetBlock,     // target = bodies[0] through the filters of exprs[0] (may be null)
    kIf,           // exprs[i] ? bodies[i]; one body more than exprs is the else branch
    kFor,          // target in exprs[0] if exprs[1] (may be null): bodies[0], else bodies[1]
    kMacro,        // name(parameters): bodies[0]
    kScope,        // targets of a with statement = exprs, then bodies[0] in a scope of its own
    kFilterBlock,  // bodies[0] through the filters of exprs[0]
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 1;
  Value constant;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
  int symbol = -1;
  std::string name;
  std::vector<std::pair<int, ExprPtr>> parameters;  // symbol and default (may be null)
};

// A compiled template: its statements and the names it uses.
struct Template {
  std::vector<std::string> symbols;
  Body body;
};

}  // namespace lathe::jinja
