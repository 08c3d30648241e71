// SchemaCompiler: from the alternatives of a schema to the rules of a grammar.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/constrain/automaton.h"
#include "lathe/constrain/pattern.h"
#include "lathe/constrain/schema_reader.h"

namespace lathe {

// Parts that all schemas of one grammar share: rules are made when they are first asked for.
class CommonRules {
 public:
  explicit CommonRules(GrammarBuilder& builder) : builder_(&builder) {}

  // Numbers of the rules.
  int32_t white_space();
  int32_t any_string();
  int32_t any_number();
  int32_t any_integer();
  int32_t any_key();

 private:
  GrammarBuilder* builder_;
  int32_t white_space_ = -1;
  int32_t any_string_ = -1;
  int32_t any_number_ = -1;
  int32_t any_integer_ = -1;
  int32_t any_key_ = -1;
};

// Compiles the values of one schema into a builder. The schema must outlive it.
class SchemaCompiler {
 public:
  SchemaCompiler(GrammarBuilder& builder, CommonRules& common, const Json& root, const SchemaLimits& limits)
      : builder_(&builder),
        common_(&common),
        reader_(root, limits),
        root_(&root),
        limits_(limits),
        pattern_work_(limits.max_pattern_work) {}

  // The rule of the schema's values, with everything that it calls.
  Result<int32_t> compile();

 private:
  // What additional members may be: keys that an automaton accepts (none: any key) and what holds for their values.
  struct FreeMembers {
    CodePointDfa keys;
    bool any_key = false;
    Schemas values;
  };

  // The named members of an object.
  struct NamedMember {
    std::string key;
    bool required = false;
    Schemas values;
  };

  Result<int32_t> value_rule(const Schemas& all);
  Status add_value(int32_t rule, const Schemas& all);
  Status add_alternative(int32_t from, const Schemas& alternative, int32_t to);
  Status add_values(int32_t from, const Schemas& alternative, const std::vector<const Json*>& values, int32_t to);
  Result<bool> fits(const Json& value, const Schemas& alternative);
  Status add_string_value(int32_t from, const Schemas& alternative, int32_t to);
  Status add_number_value(int32_t from, const Schemas& alternative, bool integer, int32_t to);
  Status add_array(int32_t from, const Schemas& alternative, int32_t to);
  Result<Schemas> item_schemas(const Schemas& alternative, size_t index) const;
  Status add_object(int32_t from, const Schemas& alternative, int32_t to);
  Result<std::vector<NamedMember>> named_members(const Schemas& alternative);
  Result<std::vector<FreeMembers>> free_members(const Schemas& alternative);
  Result<CodePointDfa> keys_of_class(const Json& at, const std::vector<std::string>& patterns, uint32_t matching);
  Result<bool> match_patterns(const Json& schema, std::string_view key, Schemas& out);
  Status add_members(int32_t from,
                     const std::vector<NamedMember>& named,
                     const std::vector<FreeMembers>& free,
                     std::pair<int64_t, int64_t> counts,
                     int32_t to);
  Status add_member_value(int32_t from, const Schemas& values, int32_t to);
  void add_optional_space(int32_t from, int32_t to);
  Result<const CodePointDfa*> pattern(const Json& schema, std::string_view keyword, const std::string& text);
  Status check_size(const Json& at) const;

  GrammarBuilder* builder_;
  CommonRules* common_;
  SchemaReader reader_;
  const Json* root_;
  SchemaLimits limits_;
  std::map<Schemas, int32_t> rules_;
  std::vector<std::pair<int32_t, Schemas>> pending_;
  std::map<std::string, CodePointDfa> patterns_;
  int64_t enum_bytes_ = 0;
  int64_t branches_ = 0;
  int64_t pattern_work_;  // that is left
};

}  // namespace lathe
