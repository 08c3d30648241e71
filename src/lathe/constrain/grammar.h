// Grammars: what a text may look like, byte by byte, as a pushdown automaton. Made from a JSON schema here; a
// constraint (constraint.h) applies one to the tokens of a vocabulary.
//
// Whatever a grammar lets through is valid: it parses as strict JSON without duplicate keys and satisfies the schema.
// The reverse does not hold: of the many spellings of a value only some can be produced (docs/structured-output.md
// lists which). A schema whose validity cannot be guaranteed is refused, with the JSON pointer of what is at fault.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe {

// Immutable, independent of a vocabulary, to be shared between threads. Opaque; automaton.h has the inside.
class Grammar;

// What a schema may cost. Beyond a limit it is refused (kInvalidArgument), within milliseconds.
struct SchemaLimits {
  int64_t max_nodes = 100'000;       // JSON values in the schema's document
  int64_t max_states = 100'000;      // of the automaton
  int64_t max_alternatives = 256;    // of one value, after anyOf, oneOf and allOf are multiplied out
  int64_t max_branches = 2'000;      // alternatives of all values that have several
  int64_t max_schemas = 64;          // that hold for one value together, by allOf and $ref
  int64_t max_enum_bytes = 1 << 18;  // of all enum and const values together
  int64_t max_values = 10'000;       // distinct subschemas, counted once for each combination by allOf
  int max_schema_depth = 64;
  int max_output_depth = 32;     // nesting of objects and arrays in the output; recursion through $ref ends there
  int64_t max_work = 5'000'000;  // steps of reading the schema
  int64_t max_pattern_work = 1'000'000;  // steps of making automata of its patterns
};

// The grammar of the values that a schema (draft 2020-12, supported keywords in docs/structured-output.md) describes.
// Errors: kUnsupported for a keyword or a value of it that cannot be guaranteed, kInvalidArgument for a schema that is
// wrong, too large or that nothing satisfies; messages begin with the pointer: `#/properties/a/not: ...`.
Result<std::shared_ptr<const Grammar>> compile_json_schema(const Json& schema, const SchemaLimits& limits = {});

}  // namespace lathe
