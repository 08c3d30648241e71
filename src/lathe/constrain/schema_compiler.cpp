#include "lathe/constrain/schema_compiler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/constrain/value_grammar.h"

namespace lathe {
namespace {

// A bound of a number as it stands in the schema.
Result<std::optional<Decimal>> number_keyword(const SchemaReader& reader,
                                              const Json& schema,
                                              std::string_view keyword) {
  const Json* value = schema.find(keyword);
  if (value == nullptr) return std::optional<Decimal>();
  if (!value->is_number()) {
    return reader.fail(schema, keyword, str("expected a number, found ", value->kind_name()), Errc::kInvalidArgument);
  }
  return std::optional<Decimal>(value->is_int() ? to_decimal(value->as_int()) : to_decimal(value->as_double()));
}

// The multiple as an integer; a fraction cannot be guaranteed, because validators compute with doubles.
Result<int64_t> multiple_keyword(const SchemaReader& reader, const Json& schema) {
  const Json* value = schema.find("multipleOf");
  if (value == nullptr) return int64_t{1};
  const double number = value->is_number() ? value->as_double() : 0.0;
  if (number <= 0) return reader.fail(schema, "multipleOf", "expected a positive number", Errc::kInvalidArgument);
  if (number != std::floor(number) || number > static_cast<double>(kMaxMultiple)) {
    return reader.fail(schema, "multipleOf", str("expected an integer up to ", kMaxMultiple, ", found ", number));
  }
  return static_cast<int64_t>(number);
}

Result<NumberRange> number_range(const SchemaReader& reader, const Schemas& alternative) {
  NumberRange out;
  for (const Json* schema : alternative) {
    for (const bool exclusive : {false, true}) {
      LATHE_TRY(const auto low, number_keyword(reader, *schema, exclusive ? "exclusiveMinimum" : "minimum"));
      LATHE_TRY(const auto high, number_keyword(reader, *schema, exclusive ? "exclusiveMaximum" : "maximum"));
      const int low_order = low && out.low ? compare(*low, *out.low) : low ? 1 : -1;
      if (low_order > 0 || (low_order == 0 && exclusive)) {
        out.low = low;
        out.low_exclusive = exclusive;
      }
      const int high_order = high && out.high ? compare(*high, *out.high) : high ? -1 : 1;
      if (high_order < 0 || (high_order == 0 && exclusive)) {
        out.high = high;
        out.high_exclusive = exclusive;
      }
    }
    LATHE_TRY(const int64_t multiple, multiple_keyword(reader, *schema));
    out.multiple = std::lcm(out.multiple, multiple);
    if (out.multiple > kMaxMultiple) {
      return reader.fail(
          *schema, "multipleOf", str("with others: expected at most ", kMaxMultiple, ", found ", out.multiple));
    }
    out.integer = out.integer || schema->find("multipleOf") != nullptr;
  }
  return out;
}

bool has_any(const Schemas& alternative, std::initializer_list<std::string_view> keywords) {
  return std::any_of(alternative.begin(), alternative.end(), [&](const Json* schema) {
    return std::any_of(
        keywords.begin(), keywords.end(), [&](std::string_view k) { return schema->find(k) != nullptr; });
  });
}

}  // namespace

int32_t CommonRules::white_space() {
  if (white_space_ < 0) white_space_ = add_white_space(*builder_);
  return white_space_;
}

int32_t CommonRules::any_string() {
  if (any_string_ >= 0) return any_string_;
  any_string_ = builder_->new_rule();
  const int32_t end = builder_->new_state(any_string_);
  builder_->accept(end);
  add_string(*builder_, builder_->start_of(any_string_), 0, kNoMaximum, end);
  return any_string_;
}

int32_t CommonRules::any_number() {
  if (any_number_ >= 0) return any_number_;
  any_number_ = builder_->new_rule();
  const int32_t end = builder_->new_state(any_number_);
  builder_->accept(end);
  add_any_number(*builder_, builder_->start_of(any_number_), end);
  return any_number_;
}

int32_t CommonRules::any_integer() {
  if (any_integer_ >= 0) return any_integer_;
  any_integer_ = builder_->new_rule();
  const int32_t end = builder_->new_state(any_integer_);
  builder_->accept(end);
  add_number(*builder_, builder_->start_of(any_integer_), {.integer = true}, end);
  return any_integer_;
}

int32_t CommonRules::any_key() {
  if (any_key_ >= 0) return any_key_;
  // One spelling for each key, so that two keys are equal exactly where their texts are.
  CodePointDfa any;
  any.states.push_back({.edges = {{0, 0x10FFFF, 0}}, .accept = true});
  any_key_ = builder_->new_rule(true);
  const int32_t end = builder_->new_state(any_key_);
  builder_->accept(end);
  add_string(*builder_, builder_->start_of(any_key_), any, end);
  return any_key_;
}

Status SchemaCompiler::check_size(const Json& at) const {
  if (!builder_->too_large()) return {};
  return reader_.fail(
      at, "", str("the schema needs more than ", limits_.max_states, " states"), Errc::kInvalidArgument);
}

Result<int32_t> SchemaCompiler::compile() {
  LATHE_TRY(const int32_t root, value_rule(reader_.normalised({root_})));
  while (!pending_.empty()) {
    const auto [rule, all] = std::move(pending_.back());
    pending_.pop_back();
    LATHE_TRY(add_value(rule, all));
    LATHE_TRY(check_size(all.empty() ? *root_ : *all[0]));
  }
  return root;
}

Result<int32_t> SchemaCompiler::value_rule(const Schemas& all) {
  const auto found = rules_.find(all);
  if (found != rules_.end()) return found->second;
  if (static_cast<int64_t>(rules_.size()) >= limits_.max_values) {
    return reader_.fail(
        *root_, "", str("expected at most ", limits_.max_values, " subschemas"), Errc::kInvalidArgument);
  }
  const int32_t rule = builder_->new_rule();
  rules_.emplace(all, rule);
  pending_.emplace_back(rule, all);
  return rule;
}

Status SchemaCompiler::add_value(int32_t rule, const Schemas& all) {
  LATHE_TRY(const std::vector<Schemas> alternatives, reader_.alternatives(all));
  if (alternatives.size() > 1) branches_ += std::ssize(alternatives);
  if (branches_ > limits_.max_branches) {
    return reader_.fail(all.empty() ? *root_ : *all[0],
                        "",
                        str("expected at most ", limits_.max_branches, " alternatives of all values, found more"),
                        Errc::kInvalidArgument);
  }
  const int32_t end = builder_->new_state(rule);
  builder_->accept(end);
  for (const Schemas& alternative : alternatives) {
    LATHE_TRY(add_alternative(builder_->start_of(rule), alternative, end));
    LATHE_TRY(check_size(alternative.empty() ? *root_ : *alternative[0]));
  }
  return {};
}

Status SchemaCompiler::add_alternative(int32_t from, const Schemas& alternative, int32_t to) {
  LATHE_TRY(const auto values, reader_.values(alternative));
  if (values) return add_values(from, alternative, *values, to);
  LATHE_TRY(const uint32_t types, reader_.types(alternative));
  if ((types & kNullType) != 0) builder_->add_empty(builder_->add_text(from, "null"), to);
  if ((types & kBooleanType) != 0) {
    builder_->add_empty(builder_->add_text(from, "true"), to);
    builder_->add_empty(builder_->add_text(from, "false"), to);
  }
  if ((types & kIntegerType) != 0) {
    LATHE_TRY(add_number_value(from, alternative, (types & kFractionType) == 0, to));
  }
  if ((types & kStringType) != 0) LATHE_TRY(add_string_value(from, alternative, to));
  if ((types & kArrayType) != 0) LATHE_TRY(add_array(from, alternative, to));
  if ((types & kObjectType) != 0) LATHE_TRY(add_object(from, alternative, to));
  return {};
}

// Whether a value of const or enum satisfies the other keywords too.
Result<bool> SchemaCompiler::fits(const Json& value, const Schemas& alternative) {
  if (value.is_string()) {
    const int64_t length = count_code_points(value.as_string());
    for (const Json* schema : alternative) {
      LATHE_TRY(const int64_t min, reader_.count(*schema, "minLength", 0));
      LATHE_TRY(const int64_t max, reader_.count(*schema, "maxLength", kNoMaximum));
      if (length < min || length > max) return false;
      const Json* text = schema->find("pattern");
      if (text == nullptr || !text->is_string()) continue;
      LATHE_TRY(const CodePointDfa* dfa, pattern(*schema, "pattern", text->as_string()));
      if (!dfa->accepts(value.as_string())) return false;
    }
    return true;
  }
  if (value.is_number()) {
    LATHE_TRY(const NumberRange range, number_range(reader_, alternative));
    const Decimal number = value.is_int() ? to_decimal(value.as_int()) : to_decimal(value.as_double());
    const int low = range.low ? compare(number, *range.low) : 1, high = range.high ? compare(number, *range.high) : -1;
    if (low < 0 || (low == 0 && range.low_exclusive) || high > 0 || (high == 0 && range.high_exclusive)) return false;
    if (range.multiple == 1) return !range.integer || number.fraction.empty();
    return value.is_int() && value.as_int() % range.multiple == 0;
  }
  const bool unchecked =
      (value.is_object() && has_any(alternative,
                                    {"properties",
                                     "required",
                                     "additionalProperties",
                                     "patternProperties",
                                     "minProperties",
                                     "maxProperties"})) ||
      (value.is_array() && has_any(alternative, {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}));
  if (!unchecked) return true;
  return reader_.fail(
      *alternative[0], "", "an object or array in const or enum beside keywords about its contents is not supported");
}

Status SchemaCompiler::add_values(int32_t from,
                                  const Schemas& alternative,
                                  const std::vector<const Json*>& values,
                                  int32_t to) {
  std::vector<std::string> texts;
  for (const Json* value : values) {
    LATHE_TRY(const bool fit, fits(*value, alternative));
    if (!fit) continue;
    texts.push_back(value->dump());
    enum_bytes_ += static_cast<int64_t>(texts.back().size());
    if (enum_bytes_ > limits_.max_enum_bytes) {
      return reader_.fail(*alternative[0],
                          "",
                          str("const and enum values: expected at most ", limits_.max_enum_bytes, " bytes"),
                          Errc::kInvalidArgument);
    }
  }
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  builder_->add_texts(from, std::move(texts), to);
  return {};
}

Result<const CodePointDfa*> SchemaCompiler::pattern(const Json& schema,
                                                    std::string_view keyword,
                                                    const std::string& text) {
  const auto found = patterns_.find(text);
  if (found != patterns_.end()) return &found->second;
  Result<CodePointDfa> dfa = compile_pattern(text, pattern_work_);
  if (!dfa) return reader_.fail(schema, keyword, str("pattern ", quoted(text), ": ", dfa.error().message));
  return &patterns_.emplace(text, *std::move(dfa)).first->second;
}

Status SchemaCompiler::add_string_value(int32_t from, const Schemas& alternative, int32_t to) {
  int64_t min = 0, max = kNoMaximum;
  std::optional<CodePointDfa> all;
  const Json* at = nullptr;  // the last schema with a pattern
  for (const Json* schema : alternative) {
    LATHE_TRY(const int64_t least, reader_.count(*schema, "minLength", 0));
    LATHE_TRY(const int64_t most, reader_.count(*schema, "maxLength", kNoMaximum));
    min = std::max(min, least);
    max = std::min(max, most);
    for (const std::string_view keyword : {"pattern", "format"}) {
      const Json* text = schema->find(keyword);
      if (text == nullptr) continue;
      if (!text->is_string()) return reader_.fail(*schema, keyword, "expected a string", Errc::kInvalidArgument);
      const std::string wanted(keyword == "pattern" ? text->as_string() : format_pattern(text->as_string()));
      if (keyword == "format" && wanted.empty()) continue;  // an annotation
      LATHE_TRY(const CodePointDfa* dfa, pattern(*schema, keyword, wanted));
      at = schema;
      if (!all) {
        all = *dfa;
        continue;
      }
      Result<CodePointDfa> both = intersect(*all, *dfa, pattern_work_);
      if (!both) return reader_.fail(*schema, keyword, both.error().message);
      all = *std::move(both);
    }
  }
  if (min > max) return {};
  if (!all) {
    if (min == 0 && max >= kNoMaximum) {
      builder_->add_call(from, common_->any_string(), to);
    } else {
      add_string(*builder_, from, min, max, to);
    }
    return {};
  }
  if (min > 0 || max < kNoMaximum) {
    Result<CodePointDfa> bounded = with_length(*all, min, max, pattern_work_);
    if (!bounded) return reader_.fail(*at, "pattern", str("with minLength or maxLength: ", bounded.error().message));
    all = *std::move(bounded);
  }
  add_string(*builder_, from, *all, to);
  return {};
}

Status SchemaCompiler::add_number_value(int32_t from, const Schemas& alternative, bool integer, int32_t to) {
  LATHE_TRY(NumberRange range, number_range(reader_, alternative));
  range.integer = range.integer || integer;
  if (range.low || range.high || range.multiple > 1) {
    add_number(*builder_, from, range, to);
  } else {
    builder_->add_call(from, range.integer ? common_->any_integer() : common_->any_number(), to);
  }
  return {};
}

void SchemaCompiler::add_optional_space(int32_t from, int32_t to) {
  builder_->add_empty(from, to);
  builder_->add_call(from, common_->white_space(), to);
}

Result<Schemas> SchemaCompiler::item_schemas(const Schemas& alternative, size_t index) const {
  Schemas out;
  for (const Json* schema : alternative) {
    LATHE_TRY(const Json* prefix, reader_.member(*schema, "prefixItems", Json::Kind::kArray));
    if (prefix != nullptr && index < prefix->as_array().size()) {
      out.push_back(&prefix->as_array()[index]);
      continue;
    }
    LATHE_TRY(const Json* items, reader_.schema(*schema, "items"));
    if (items != nullptr) out.push_back(items);
  }
  return reader_.normalised(std::move(out));
}

Status SchemaCompiler::add_array(int32_t from, const Schemas& alternative, int32_t to) {
  int64_t min = 0, max = kNoMaximum;
  size_t fixed = 0;  // items that have schemas of their own
  for (const Json* schema : alternative) {
    LATHE_TRY(const int64_t least, reader_.count(*schema, "minItems", 0));
    LATHE_TRY(const int64_t most, reader_.count(*schema, "maxItems", kNoMaximum));
    min = std::max(min, least);
    max = std::min(max, most);
    LATHE_TRY(const Json* prefix, reader_.member(*schema, "prefixItems", Json::Kind::kArray));
    if (prefix != nullptr) fixed = std::max(fixed, prefix->as_array().size());
  }
  for (const Json* schema : alternative) {
    const Json* unique = schema->find("uniqueItems");
    if (unique != nullptr && *unique != Json(false) && max > 1) {
      return reader_.fail(*schema, "uniqueItems", "not supported where there may be more than one item");
    }
  }
  const int32_t rule = builder_->rule_of(from);
  const int32_t close = builder_->new_state(rule);
  builder_->add_byte(close, ']', to, EdgeOp::kOut);
  const int32_t open = builder_->new_state(rule);
  int32_t at = builder_->new_state(rule);  // behind `i` items; of the first: ready for it
  builder_->add_byte(from, '[', open, EdgeOp::kDeeper);
  add_optional_space(open, at);
  for (size_t i = 0;; ++i) {
    const auto count = static_cast<int64_t>(i);
    if (count >= min && count <= max) {
      if (i == 0) builder_->add_empty(at, close);
      if (i > 0) add_optional_space(at, close);
    }
    if (count >= max || builder_->too_large()) return {};
    const int32_t ready = i == 0 ? at : builder_->new_state(rule);
    if (i > 0) {
      const int32_t comma = builder_->new_state(rule);
      builder_->add_byte(at, ',', comma);
      add_optional_space(comma, ready);
    }
    LATHE_TRY(const Schemas schemas, item_schemas(alternative, i));
    LATHE_TRY(const int32_t item, value_rule(schemas));
    if (i < fixed) {
      at = builder_->new_state(rule);
      builder_->add_call(ready, item, at);
      continue;
    }
    // The rest is alike and counted.
    const bool counted = min > count + 1 || max < kNoMaximum;
    const int32_t bounds = counted ? builder_->new_bounds({std::max<int64_t>(min - count - 1, 0), max - count - 1}) : 0;
    const int32_t loop = builder_->new_state(rule, bounds), comma = builder_->new_state(rule, bounds);
    const int32_t next = builder_->new_state(rule, bounds), last = builder_->new_state(rule, bounds);
    builder_->add_call(ready, item, loop);
    builder_->add_byte(loop, ',', comma, counted ? EdgeOp::kBelowMax | EdgeOp::kCount : EdgeOp::kNone);
    add_optional_space(comma, next);
    builder_->add_call(next, item, loop);
    const EdgeOp enough = counted ? EdgeOp::kAtLeastMin | EdgeOp::kReset : EdgeOp::kNone;
    builder_->add_byte(loop, ']', to, enough | EdgeOp::kOut);
    builder_->add_call(loop, common_->white_space(), last, enough);
    builder_->add_byte(last, ']', to, EdgeOp::kOut);
    return {};
  }
}

}  // namespace lathe
