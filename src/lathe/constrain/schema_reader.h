// SchemaReader: a JSON schema with its references followed and its combinators multiplied out, for the compiler.
//
// What has to hold for one value is a list of schemas (all of them: that is allOf). It is turned into alternatives
// (anyOf, oneOf), each a list of schemas of which only the keywords about the value itself count.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/constrain/grammar.h"

namespace lathe {

// Schemas that all hold for one value, sorted, each once. Pointers into the document.
using Schemas = std::vector<const Json*>;

// Types of values, as bits. A number is an integer or a fraction.
enum : uint32_t {
  kNullType = 1,
  kBooleanType = 2,
  kIntegerType = 4,
  kFractionType = 8,
  kStringType = 16,
  kArrayType = 32,
  kObjectType = 64,
  kAllTypes = 127,
};

// Equality as JSON schema has it: 1 equals 1.0.
bool equal_values(const Json& a, const Json& b);

class SchemaReader {
 public:
  // `root` must outlive the reader.
  SchemaReader(const Json& root, const SchemaLimits& limits);

  // The alternatives of a value; none when nothing can satisfy it.
  Result<std::vector<Schemas>> alternatives(const Schemas& all);
  // The types that all schemas of an alternative allow.
  Result<uint32_t> types(const Schemas& alternative) const;
  // The values that const and enum leave, less those of other types; nothing where neither is there.
  Result<std::optional<std::vector<const Json*>>> values(const Schemas& alternative);

  // A non-negative integer keyword, or `absent`.
  Result<int64_t> count(const Json& schema, std::string_view keyword, int64_t absent) const;
  // A keyword that must be an object or array, or nullptr.
  Result<const Json*> member(const Json& schema, std::string_view keyword, Json::Kind kind) const;
  // A keyword that must be a schema, or nullptr.
  Result<const Json*> schema(const Json& schema, std::string_view keyword) const;

  // What has to hold for the member `key` of an object; patterns are the caller's business. `patterns_match` tells
  // whether a pattern of the schema matches the key, and adds its schemas.
  template <class Patterns>
  Result<Schemas> member_schemas(const Schemas& alternative, std::string_view key, const Patterns& patterns) {
    Schemas out;
    for (const Json* schema : alternative) {
      LATHE_TRY(const Json* properties, member(*schema, "properties", Json::Kind::kObject));
      if (properties != nullptr) LATHE_TRY(charge(std::ssize(properties->as_object())));
      const Json* named = properties == nullptr ? nullptr : properties->find(key);
      if (named != nullptr) out.push_back(named);
      LATHE_TRY(const bool matched, patterns(*schema, key, out));
      LATHE_TRY(const Json* additional, this->schema(*schema, "additionalProperties"));
      if (named == nullptr && !matched && additional != nullptr) out.push_back(additional);
    }
    return normalised(std::move(out));
  }

  // In the document's order, each once.
  Schemas normalised(Schemas schemas) const;
  // Counts steps that take time; fails when they are too many.
  Status charge(int64_t steps);
  // An error at a keyword of a schema: `#/properties/a/pattern: ...`.
  Error fail(const Json& schema, std::string_view keyword, std::string_view what, Errc code = Errc::kUnsupported) const;

 private:
  Result<std::vector<Schemas>> expand(const Json& schema, int depth, std::vector<const Json*>& open);
  Result<std::vector<Schemas>> multiply(const Json& at, const std::vector<Schemas>& a, const std::vector<Schemas>& b);
  Error too_many_alternatives(const Json& at, std::string_view keyword) const;
  void number(const Json& value);
  Result<std::vector<Schemas>> branches(const Json& schema,
                                        std::string_view keyword,
                                        int depth,
                                        std::vector<const Json*>& open);
  Status check_keywords(const Json& schema) const;
  Result<const Json*> resolve(const Json& schema);
  Status check_disjoint(const Json& schema, const Json::Array& branches);
  Result<bool> disjoint(const Schemas& a, const Schemas& b, int depth);
  Result<bool> disjoint_alternatives(const Schemas& a, const Schemas& b, int depth);

  const Json* root_;
  SchemaLimits limits_;
  std::unordered_map<const Json*, int32_t> order_;  // of every value in the document
  int64_t work_ = 0;
  std::set<const Json*> checked_;  // schemas whose oneOf was looked at
};

}  // namespace lathe
