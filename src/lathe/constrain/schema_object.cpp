// The part of SchemaCompiler that is about objects.
#include <algorithm>
#include <optional>
#include <set>

#include "lathe/base/str.h"
#include "lathe/constrain/schema_compiler.h"
#include "lathe/constrain/value_grammar.h"

namespace lathe {
namespace {

constexpr size_t kMaxPatterns = 4;  // of one object: their combinations are multiplied out

// Printable ASCII: where keys are told apart by patterns, so that no two dialects can disagree.
CodePointDfa ascii_texts() {
  CodePointDfa out;
  out.states.push_back({.edges = {{0x20, 0x7E, 0}}, .accept = true});
  return out;
}

// What the schemas say of values whose keys match exactly those patterns whose bits are set.
Schemas values_of_class(const Schemas& alternative, const std::vector<std::string>& patterns, uint32_t matching) {
  Schemas out;
  for (const Json* schema : alternative) {
    const size_t before = out.size();
    const Json* listed = schema->find("patternProperties");
    for (size_t i = 0; i < patterns.size() && listed != nullptr; ++i) {
      const Json* value = (matching >> i & 1) != 0 ? listed->find(patterns[i]) : nullptr;
      if (value != nullptr) out.push_back(value);
    }
    const Json* additional = schema->find("additionalProperties");
    if (out.size() == before && additional != nullptr) out.push_back(additional);
  }
  return out;
}

}  // namespace

// Adds the schemas of the patterns of one schema that match a key.
Result<bool> SchemaCompiler::match_patterns(const Json& schema, std::string_view key, Schemas& out) {
  LATHE_TRY(const Json* patterns, reader_.member(schema, "patternProperties", Json::Kind::kObject));
  if (patterns == nullptr) return false;
  bool matched = false;
  for (const auto& [text, value] : patterns->as_object()) {
    LATHE_TRY(const CodePointDfa* dfa, pattern(schema, "patternProperties", text));
    if (!dfa->accepts(key)) continue;
    out.push_back(&value);
    matched = true;
  }
  return matched;
}

Result<std::vector<SchemaCompiler::NamedMember>> SchemaCompiler::named_members(const Schemas& alternative) {
  std::vector<NamedMember> out;
  std::map<std::string, size_t> index;
  const auto add = [&](const std::string& key) -> NamedMember& {
    const auto [at, inserted] = index.try_emplace(key, out.size());
    if (inserted) out.push_back({.key = key, .required = false, .values = {}});
    return out[at->second];
  };
  for (const Json* schema : alternative) {
    LATHE_TRY(const Json* properties, reader_.member(*schema, "properties", Json::Kind::kObject));
    if (properties == nullptr) continue;
    for (const auto& [key, value] : properties->as_object()) add(key);
  }
  for (const Json* schema : alternative) {
    LATHE_TRY(const Json* required, reader_.member(*schema, "required", Json::Kind::kArray));
    if (required == nullptr) continue;
    for (const Json& key : required->as_array()) {
      if (!key.is_string()) return reader_.fail(*schema, "required", "expected strings", Errc::kInvalidArgument);
      add(key.as_string()).required = true;
    }
  }
  const auto patterns = [this](const Json& schema, std::string_view key, Schemas& schemas) {
    return match_patterns(schema, key, schemas);
  };
  for (NamedMember& member : out) {
    LATHE_TRY(member.values, reader_.member_schemas(alternative, member.key, patterns));
  }
  return out;
}

// Keys that match exactly those patterns whose bits are set.
Result<CodePointDfa> SchemaCompiler::keys_of_class(const Json& at,
                                                   const std::vector<std::string>& patterns,
                                                   uint32_t matching) {
  CodePointDfa keys = ascii_texts();
  for (size_t i = 0; i < patterns.size(); ++i) {
    LATHE_TRY(const CodePointDfa* dfa, pattern(at, "patternProperties", patterns[i]));
    Result<CodePointDfa> next =
        (matching >> i & 1) != 0 ? intersect(keys, *dfa, pattern_work_) : subtract(keys, *dfa, pattern_work_);
    if (!next) return reader_.fail(at, "patternProperties", next.error().message);
    keys = *std::move(next);
  }
  return keys;
}

// The members whose keys the schema does not name: one entry, or one for each combination of patterns. Where no schema
// says anything about them although there are properties, none are written: that is valid too.
Result<std::vector<SchemaCompiler::FreeMembers>> SchemaCompiler::free_members(const Schemas& alternative) {
  std::vector<std::string> patterns;
  const Json* with_patterns = nullptr;
  bool named = false, wanted = false;
  for (const Json* schema : alternative) {
    LATHE_TRY(const Json* listed, reader_.member(*schema, "patternProperties", Json::Kind::kObject));
    LATHE_TRY(const Json* additional, reader_.schema(*schema, "additionalProperties"));
    named = named || schema->find("properties") != nullptr || schema->find("required") != nullptr;
    wanted = wanted || (additional != nullptr && *additional != Json(false)) || listed != nullptr;
    if (listed == nullptr) continue;
    with_patterns = schema;
    for (const auto& [text, value] : listed->as_object()) {
      if (std::find(patterns.begin(), patterns.end(), text) == patterns.end()) patterns.push_back(text);
    }
  }
  std::vector<FreeMembers> out;
  if (named && !wanted) return out;
  if (patterns.size() > kMaxPatterns) {
    return reader_.fail(*with_patterns,
                        "patternProperties",
                        str("expected at most ", kMaxPatterns, " patterns, found ", patterns.size()));
  }
  for (uint32_t matching = 0; matching < (1u << patterns.size()); ++matching) {
    FreeMembers free;
    free.values = values_of_class(alternative, patterns, matching);
    free.values = reader_.normalised(std::move(free.values));
    const auto is_false = [](const Json* s) { return s->is_bool(); };
    if (std::any_of(free.values.begin(), free.values.end(), is_false)) continue;
    free.any_key = patterns.empty();
    if (!free.any_key) {
      LATHE_TRY(free.keys, keys_of_class(*with_patterns, patterns, matching));
      if (free.keys.states.empty()) continue;
      if (!is_endless(free.keys)) {
        return reader_.fail(*with_patterns,
                            "patternProperties",
                            "patterns that leave a limited number of keys are not supported; name them in properties");
      }
    }
    out.push_back(std::move(free));
  }
  return out;
}

// A colon, perhaps a space, and the value.
Status SchemaCompiler::add_member_value(int32_t from, const Schemas& values, int32_t to) {
  LATHE_TRY(const int32_t value, value_rule(values));
  const int32_t rule = builder_->rule_of(from);
  const int32_t bounds = builder_->bounds_of(from);
  const int32_t colon = builder_->new_state(rule, bounds), ready = builder_->new_state(rule, bounds);
  builder_->add_byte(from, ':', colon);
  builder_->add_empty(colon, ready);
  builder_->add_byte(colon, ' ', ready);
  builder_->add_call(ready, value, to);
  return {};
}

Status SchemaCompiler::add_object(int32_t from, const Schemas& alternative, int32_t to) {
  LATHE_TRY(std::vector<NamedMember> named, named_members(alternative));
  LATHE_TRY(const std::vector<FreeMembers> free, free_members(alternative));
  int64_t min = 0, max = kNoMaximum;
  const Json* counting = nullptr;
  for (const Json* schema : alternative) {
    LATHE_TRY(const int64_t least, reader_.count(*schema, "minProperties", 0));
    LATHE_TRY(const int64_t most, reader_.count(*schema, "maxProperties", kNoMaximum));
    if (least > 0 || most < kNoMaximum) counting = schema;
    min = std::max(min, least);
    max = std::min(max, most);
  }
  const auto required = std::count_if(named.begin(), named.end(), [](const NamedMember& m) { return m.required; });
  if (min <= required) min = 0;
  if (free.empty() && max >= static_cast<int64_t>(named.size())) max = kNoMaximum;
  if (!named.empty() && (min > 0 || max < kNoMaximum)) {
    return reader_.fail(*counting, min > 0 ? "minProperties" : "maxProperties", "not supported beside properties");
  }
  if (min > max || (free.empty() && min > 0)) return {};
  return add_members(from, named, free, {min, max}, to);
}

// From the opening brace to the closing one. Members come in the schema's order; those that it does not name follow.
Status SchemaCompiler::add_members(int32_t from,
                                   const std::vector<NamedMember>& named,
                                   const std::vector<FreeMembers>& free,
                                   std::pair<int64_t, int64_t> counts,
                                   int32_t to) {
  const auto [min, max] = counts;
  const int32_t rule = builder_->rule_of(from);
  const size_t n = named.size();
  int32_t key_set = 0;
  EdgeOp opening = EdgeOp::kDeeper;
  if (!free.empty()) {
    std::vector<std::string> keys;
    for (const NamedMember& member : named) keys.push_back(Json(member.key).dump());
    key_set = builder_->new_key_set(std::move(keys));
    opening = opening | EdgeOp::kKeys;
  }
  const int32_t open = builder_->new_state(rule), close = builder_->new_state(rule);
  builder_->add_byte(from, '{', open, opening, key_set);
  builder_->add_byte(close, '}', to, EdgeOp::kOut);

  // first[i], next[i]: a member from the i-th on is due, as the first or behind a comma. after[i]: behind a member,
  // those from the i-th on may follow.
  std::vector<int32_t> first, next, after;
  for (size_t i = 0; i <= n; ++i) {
    first.push_back(builder_->new_state(rule));
    next.push_back(builder_->new_state(rule));
    after.push_back(builder_->new_state(rule));
  }
  add_optional_space(open, first[0]);
  size_t last_required = 0;  // one past it
  for (size_t i = 0; i < n; ++i) {
    if (named[i].required) last_required = i + 1;
  }
  for (size_t i = 0; i < n; ++i) {
    const int32_t key = builder_->new_state(rule), comma = builder_->new_state(rule);
    for (const int32_t state : {first[i], next[i]}) builder_->add_empty(state, key);
    const int32_t colon = builder_->add_text(key, Json(named[i].key).dump());
    LATHE_TRY(add_member_value(colon, named[i].values, after[i + 1]));
    if (!named[i].required) {
      builder_->add_empty(first[i], first[i + 1]);
      builder_->add_empty(next[i], next[i + 1]);
    }
    builder_->add_byte(after[i], ',', comma);
    add_optional_space(comma, next[i]);
    if (i >= last_required) add_optional_space(after[i], close);
    if (builder_->too_large()) return {};
  }
  if (last_required == 0 && min == 0) builder_->add_empty(first[0], close);
  if (min == 0) add_optional_space(after[n], close);
  if (free.empty() || max == 0) return {};

  const bool counted = min > 1 || max < kNoMaximum;
  const int32_t bounds = counted ? builder_->new_bounds({std::max<int64_t>(min - 1, 0), max - 1}) : 0;
  const int32_t loop = builder_->new_state(rule, bounds), comma = builder_->new_state(rule, bounds);
  const int32_t due = builder_->new_state(rule, bounds), last = builder_->new_state(rule, bounds);
  for (const FreeMembers& members : free) {
    int32_t keys = common_->any_key();
    if (!members.any_key) {
      keys = builder_->new_rule(true);
      const int32_t end = builder_->new_state(keys);
      builder_->accept(end);
      add_string(*builder_, builder_->start_of(keys), members.keys, end);
    }
    const int32_t colon = builder_->new_state(rule, bounds);
    LATHE_TRY(add_member_value(colon, members.values, loop));
    for (const int32_t state : {first[n], next[n], due}) builder_->add_call(state, keys, colon);
  }
  const EdgeOp enough = counted ? EdgeOp::kAtLeastMin | EdgeOp::kReset : EdgeOp::kNone;
  const int32_t more = builder_->new_state(rule);
  builder_->add_byte(after[n], ',', more);
  add_optional_space(more, next[n]);
  builder_->add_byte(loop, ',', comma, counted ? EdgeOp::kBelowMax | EdgeOp::kCount : EdgeOp::kNone);
  add_optional_space(comma, due);
  builder_->add_byte(loop, '}', to, enough | EdgeOp::kOut);
  builder_->add_call(loop, common_->white_space(), last, enough);
  builder_->add_byte(last, '}', to, EdgeOp::kOut);
  return {};
}

}  // namespace lathe
