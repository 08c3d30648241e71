#include "lathe/constrain/grammar.h"

#include <utility>

#include "lathe/base/str.h"
#include "lathe/constrain/automaton.h"
#include "lathe/constrain/schema_compiler.h"

namespace lathe {
namespace {

// Values in a document, itself included; stops counting beyond `most`.
int64_t count_values(const Json& value, int64_t most) {
  int64_t count = 1;
  if (value.is_array()) {
    for (const Json& item : value.as_array()) {
      if (count > most) break;
      count += count_values(item, most - count);
    }
  } else if (value.is_object()) {
    for (const auto& [key, member] : value.as_object()) {
      if (count > most) break;
      count += count_values(member, most - count);
    }
  }
  return count;
}

}  // namespace

Result<std::shared_ptr<const Grammar>> compile_json_schema(const Json& schema, const SchemaLimits& limits) {
  if (count_values(schema, limits.max_nodes) > limits.max_nodes) {
    return Error{Errc::kInvalidArgument,
                 str("#: expected at most ", limits.max_nodes, " values in the schema, found more")};
  }
  GrammarBuilder builder(limits.max_states, limits.max_output_depth);
  CommonRules common(builder);
  SchemaCompiler compiler(builder, common, schema, limits);
  LATHE_TRY(const int32_t value, compiler.compile());
  // White space may come first: many tokenizers put a space before the first word of an answer.
  const int32_t root = builder.new_rule();
  const int32_t begin = builder.new_state(root), end = builder.new_state(root);
  builder.accept(end);
  builder.add_empty(builder.start_of(root), begin);
  builder.add_call(builder.start_of(root), common.white_space(), begin);
  builder.add_call(begin, value, end);
  auto grammar = std::make_shared<Grammar>();
  Result<bool> possible = builder.finish(root, *grammar);
  if (!possible) return std::move(possible).error().at("#");
  if (!*possible) {
    return Error{Errc::kInvalidArgument,
                 str("#: expected a schema that some value nested at most ",
                     limits.max_output_depth,
                     " deep satisfies, found none such")};
  }
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace lathe
