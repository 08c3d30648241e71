#include "lathe/constrain/grammar.h"

#include <utility>

#include "lathe/base/check.h"
#include "lathe/constrain/automaton.h"
#include "lathe/constrain/schema_compiler.h"

namespace lathe {

Result<std::shared_ptr<const Grammar>> compile_json_schema(const Json& schema, const SchemaLimits& limits) {
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
  if (!*possible) return Error{Errc::kInvalidArgument, "#: no value that can be written satisfies the schema"};
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

std::shared_ptr<const Grammar> json_object_grammar() {
  Json schema = Json::object();
  schema.set("type", "object");
  Result<std::shared_ptr<const Grammar>> grammar = compile_json_schema(schema);
  LATHE_CHECK(grammar.has_value(), grammar.has_value() ? "" : grammar.error().message);
  return *std::move(grammar);
}

}  // namespace lathe
