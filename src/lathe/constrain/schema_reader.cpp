#include "lathe/constrain/schema_reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"

namespace lathe {
namespace {

constexpr int kMaxDisjointDepth = 4;

// Keywords that change what is valid and that are not supported.
constexpr std::array<std::string_view, 14> kRefused = {
    "not",
    "if",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "minContains",
    "maxContains",
    "$dynamicRef",
    "$recursiveRef",
    "additionalItems",
};

// Keywords about a value itself.
constexpr std::array<std::string_view, 23> kOwn = {
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
};

bool has_own_keyword(const Json& schema) {
  const Json::Object& members = schema.as_object();
  return std::any_of(members.begin(), members.end(), [](const Json::Member& m) {
    return std::find(kOwn.begin(), kOwn.end(), m.first) != kOwn.end();
  });
}

// Appends the pointer from `at` to `wanted`; false when it is not below.
bool locate(const Json& at, const Json& wanted, std::string& pointer) {
  if (&at == &wanted) return true;
  const size_t size = pointer.size();
  if (at.is_object()) {
    for (const auto& [key, value] : at.as_object()) {
      pointer += '/';
      for (const char c : key)
        pointer += c == '~' ? std::string("~0") : c == '/' ? std::string("~1") : std::string(1, c);
      if (locate(value, wanted, pointer)) return true;
      pointer.resize(size);
    }
  } else if (at.is_array()) {
    for (size_t i = 0; i < at.as_array().size(); ++i) {
      pointer += str('/', i);
      if (locate(at.as_array()[i], wanted, pointer)) return true;
      pointer.resize(size);
    }
  }
  return false;
}

// One part of a reference's pointer: %XX first, then ~1 and ~0.
std::string unescaped(std::string_view part) {
  std::string bytes;
  for (size_t i = 0; i < part.size(); ++i) {
    const auto digit = [&](size_t at) { return at < part.size() ? hex_digit_value(part[at]) : -1; };
    if (part[i] == '%' && digit(i + 1) >= 0 && digit(i + 2) >= 0) {
      bytes += static_cast<char>(digit(i + 1) * 16 + digit(i + 2));
      i += 2;
    } else {
      bytes += part[i];
    }
  }
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool escape = bytes[i] == '~' && i + 1 < bytes.size() && (bytes[i + 1] == '0' || bytes[i + 1] == '1');
    out += escape ? (bytes[i + 1] == '0' ? '~' : '/') : bytes[i];
    if (escape) ++i;
  }
  return out;
}

uint32_t type_of_value(const Json& value) {
  switch (value.kind()) {
    case Json::Kind::kNull:
      return kNullType;
    case Json::Kind::kBool:
      return kBooleanType;
    case Json::Kind::kInt:
      return kIntegerType;
    case Json::Kind::kDouble:
      return value.as_double() == std::floor(value.as_double()) ? kIntegerType : kFractionType;
    case Json::Kind::kString:
      return kStringType;
    case Json::Kind::kArray:
      return kArrayType;
    default:
      return kObjectType;
  }
}

// The bits of a type's name; 0: there is none such.
uint32_t type_bits(const Json& name) {
  static constexpr std::array<std::pair<std::string_view, uint32_t>, 7> kTypes = {{
      {"null", kNullType},
      {"boolean", kBooleanType},
      {"integer", kIntegerType},
      {"number", kIntegerType | kFractionType},
      {"string", kStringType},
      {"array", kArrayType},
      {"object", kObjectType},
  }};
  if (!name.is_string()) return 0;
  for (const auto& [text, bits] : kTypes) {
    if (text == name.as_string()) return bits;
  }
  return 0;
}

}  // namespace

bool equal_values(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_int() && b.is_int() ? a.as_int() == b.as_int() : a.as_double() == b.as_double();
  }
  if (a.kind() != b.kind()) return false;
  if (a.is_array()) {
    return std::equal(a.as_array().begin(), a.as_array().end(), b.as_array().begin(), b.as_array().end(), equal_values);
  }
  if (!a.is_object()) return a == b;
  if (a.as_object().size() != b.as_object().size()) return false;
  return std::all_of(a.as_object().begin(), a.as_object().end(), [&](const Json::Member& m) {
    const Json* other = b.find(m.first);
    return other != nullptr && equal_values(m.second, *other);
  });
}

SchemaReader::SchemaReader(const Json& root, const SchemaLimits& limits) : root_(&root), limits_(limits) {
  number(root);
}

void SchemaReader::number(const Json& value) {
  order_.emplace(&value, static_cast<int32_t>(order_.size()));
  if (value.is_array()) {
    for (const Json& item : value.as_array()) number(item);
  } else if (value.is_object()) {
    for (const auto& [key, member] : value.as_object()) number(member);
  }
}

Status SchemaReader::charge(int64_t steps) {
  work_ += steps;
  if (work_ <= limits_.max_work) return {};
  return Error{Errc::kInvalidArgument,
               "#: the schema is too complex: following its references and combinations does not end"};
}

Schemas SchemaReader::normalised(Schemas schemas) const {
  std::erase_if(schemas, [](const Json* s) { return s->is_bool() && s->as_bool(); });
  std::sort(schemas.begin(), schemas.end(), [&](const Json* a, const Json* b) { return order_.at(a) < order_.at(b); });
  schemas.erase(std::unique(schemas.begin(), schemas.end()), schemas.end());
  return schemas;
}

Error SchemaReader::fail(const Json& schema, std::string_view keyword, std::string_view what, Errc code) const {
  std::string pointer = "#";
  locate(*root_, schema, pointer);
  if (!keyword.empty()) pointer += str('/', keyword);
  // Keys come from strangers: quoted() makes them printable and bounds them; its quotes are left out.
  std::string shown = quoted(pointer, 300);
  shown.erase(0, 1);
  if (const size_t quote = shown.rfind('"'); quote != std::string::npos) shown.erase(quote, 1);
  return Error{code, str(shown, ": ", what)};
}

Result<int64_t> SchemaReader::count(const Json& schema, std::string_view keyword, int64_t absent) const {
  const Json* value = schema.find(keyword);
  if (value == nullptr) return absent;
  const double number = value->is_number() ? value->as_double() : -1.0;
  if (number < 0 || number != std::floor(number)) {
    return fail(schema, keyword, "expected a non-negative integer", Errc::kInvalidArgument);
  }
  constexpr int64_t kLargest = int64_t{1} << 30;  // no text is longer
  return value->is_int() ? std::min(value->as_int(), kLargest)
                         : static_cast<int64_t>(std::min(number, static_cast<double>(kLargest)));
}

Result<const Json*> SchemaReader::member(const Json& schema, std::string_view keyword, Json::Kind kind) const {
  const Json* value = schema.find(keyword);
  if (value == nullptr || value->kind() == kind) return value;
  const Json wanted = kind == Json::Kind::kObject  ? Json::object()
                      : kind == Json::Kind::kArray ? Json::array()
                                                   : Json("");
  const std::string what = str("expected an ", wanted.kind_name(), ", found ", value->kind_name());
  return fail(schema, keyword, what, Errc::kInvalidArgument);
}

Result<const Json*> SchemaReader::schema(const Json& schema, std::string_view keyword) const {
  const Json* value = schema.find(keyword);
  if (value == nullptr || value->is_object() || value->is_bool()) return value;
  return fail(schema, keyword, str("expected a schema, found ", value->kind_name()), Errc::kInvalidArgument);
}

Status SchemaReader::check_keywords(const Json& schema) const {
  for (const auto& [keyword, value] : schema.as_object()) {
    if (std::find(kRefused.begin(), kRefused.end(), keyword) != kRefused.end()) {
      return fail(schema, keyword, "this keyword is not supported");
    }
    if (keyword == "$id" && &schema != root_) return fail(schema, keyword, "a schema within a schema is not supported");
  }
  return {};
}

Result<const Json*> SchemaReader::resolve(const Json& schema) {
  const Json& reference = *schema.find("$ref");
  if (!reference.is_string()) return fail(schema, "$ref", "expected a string", Errc::kInvalidArgument);
  std::string_view rest = reference.as_string();
  if (!rest.starts_with('#') || (rest.size() > 1 && rest[1] != '/')) {
    return fail(schema, "$ref", str("expected a pointer into this schema (#/...), found ", quoted(rest)));
  }
  rest.remove_prefix(1);
  const Json* at = root_;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const size_t end = std::min(rest.find('/'), rest.size());
    const std::string part = unescaped(rest.substr(0, end));
    rest.remove_prefix(end);
    int64_t index = -1;
    if (at->is_array() && parse_int(part, index) && index >= 0 && index < static_cast<int64_t>(at->as_array().size())) {
      at = &at->as_array()[static_cast<size_t>(index)];
    } else {
      if (at->is_object()) LATHE_TRY(charge(std::ssize(at->as_object())));
      at = at->find(part);
    }
    if (at == nullptr) {
      return fail(schema, "$ref", str("nothing is at ", quoted(reference.as_string())), Errc::kInvalidArgument);
    }
  }
  return at;
}

Result<std::vector<Schemas>> SchemaReader::multiply(const Json& at,
                                                    const std::vector<Schemas>& a,
                                                    const std::vector<Schemas>& b) {
  std::vector<Schemas> out;  // each once, in the order of the schema
  std::set<Schemas> known;
  for (const Schemas& x : a) {
    for (const Schemas& y : b) {
      LATHE_TRY(charge(std::ssize(x) + std::ssize(y) + 1));
      Schemas both = x;
      both.insert(both.end(), y.begin(), y.end());
      both = normalised(std::move(both));
      if (std::ssize(both) > limits_.max_schemas) {
        return fail(at,
                    "",
                    str("expected at most ", limits_.max_schemas, " schemas for one value, found more"),
                    Errc::kInvalidArgument);
      }
      if (known.insert(both).second) out.push_back(std::move(both));
    }
    if (std::ssize(out) > limits_.max_alternatives) return too_many_alternatives(at, "");
  }
  return out;
}

Error SchemaReader::too_many_alternatives(const Json& at, std::string_view keyword) const {
  return fail(at,
              keyword,
              str("expected at most ", limits_.max_alternatives, " alternatives for one value, found more"),
              Errc::kInvalidArgument);
}

Result<std::vector<Schemas>> SchemaReader::branches(const Json& schema,
                                                    std::string_view keyword,
                                                    int depth,
                                                    std::vector<const Json*>& open) {
  const Json& list = *schema.find(keyword);
  std::vector<Schemas> out;
  std::set<Schemas> known;
  for (const Json& branch : list.as_array()) {
    LATHE_TRY(std::vector<Schemas> part, expand(branch, depth + 1, open));
    for (Schemas& alternative : part) {
      if (known.insert(alternative).second) out.push_back(std::move(alternative));
    }
    if (std::ssize(out) > limits_.max_alternatives) return too_many_alternatives(schema, keyword);
  }
  return out;
}

Result<std::vector<Schemas>> SchemaReader::expand(const Json& schema, int depth, std::vector<const Json*>& open) {
  if (schema.is_bool()) return schema.as_bool() ? std::vector<Schemas>{{}} : std::vector<Schemas>{};
  if (!schema.is_object()) {
    return fail(schema, "", str("expected a schema, found ", schema.kind_name()), Errc::kInvalidArgument);
  }
  if (depth > limits_.max_schema_depth) {
    return fail(schema, "", str("nested deeper than ", limits_.max_schema_depth), Errc::kInvalidArgument);
  }
  LATHE_TRY(charge(std::ssize(schema.as_object()) + 1));
  LATHE_TRY(check_keywords(schema));
  std::vector<Schemas> out = has_own_keyword(schema) ? std::vector<Schemas>{{&schema}} : std::vector<Schemas>{{}};
  if (schema.find("$ref") != nullptr) {
    LATHE_TRY(const Json* target, resolve(schema));
    if (std::find(open.begin(), open.end(), target) != open.end() || target == &schema) {
      return fail(schema, "$ref", "the reference leads to itself", Errc::kInvalidArgument);
    }
    open.push_back(target);
    LATHE_TRY(const std::vector<Schemas> part, expand(*target, depth + 1, open));
    open.pop_back();
    LATHE_TRY(out, multiply(schema, out, part));
  }
  for (const std::string_view keyword : {"allOf", "anyOf", "oneOf"}) {
    LATHE_TRY(const Json* list, member(schema, keyword, Json::Kind::kArray));
    if (list == nullptr) continue;
    if (list->as_array().empty()) return fail(schema, keyword, "expected at least one schema", Errc::kInvalidArgument);
    if (keyword == "allOf") {
      for (const Json& branch : list->as_array()) {
        LATHE_TRY(const std::vector<Schemas> part, expand(branch, depth + 1, open));
        LATHE_TRY(out, multiply(schema, out, part));
      }
      continue;
    }
    LATHE_TRY(const std::vector<Schemas> part, branches(schema, keyword, depth, open));
    if (keyword == "oneOf") LATHE_TRY(check_disjoint(schema, list->as_array()));
    LATHE_TRY(out, multiply(schema, out, part));
  }
  return out;
}

Result<std::vector<Schemas>> SchemaReader::alternatives(const Schemas& all) {
  std::vector<Schemas> out{{}};
  for (const Json* schema : all) {
    std::vector<const Json*> open{schema};
    LATHE_TRY(const std::vector<Schemas> part, expand(*schema, 0, open));
    LATHE_TRY(out, multiply(*schema, out, part));
  }
  return out;
}

Result<uint32_t> SchemaReader::types(const Schemas& alternative) const {
  uint32_t out = kAllTypes;
  for (const Json* schema : alternative) {
    const Json* type = schema->find("type");
    if (type == nullptr) continue;
    uint32_t here = 0;
    const Json::Array single{*type};
    const Json::Array& names = type->is_array() ? type->as_array() : single;
    for (const Json& name : names) {
      const uint32_t bits = type_bits(name);
      if (bits == 0) return fail(*schema, "type", "expected a type's name or a list of them", Errc::kInvalidArgument);
      here |= bits;
    }
    out &= here;
  }
  return out;
}

Result<std::optional<std::vector<const Json*>>> SchemaReader::values(const Schemas& alternative) {
  LATHE_TRY(const uint32_t allowed, types(alternative));
  std::optional<std::vector<const Json*>> out;
  const auto keep = [&](std::vector<const Json*> values) {
    if (!out) {
      std::erase_if(values, [&](const Json* v) { return (type_of_value(*v) & allowed) == 0; });
      out = std::move(values);
      return;
    }
    std::erase_if(*out, [&](const Json* v) {
      return std::none_of(values.begin(), values.end(), [&](const Json* w) { return equal_values(*v, *w); });
    });
  };
  for (const Json* schema : alternative) {
    LATHE_TRY(const Json* list, member(*schema, "enum", Json::Kind::kArray));
    if (list != nullptr) {
      LATHE_TRY(charge(std::ssize(list->as_array()) * (out ? std::ssize(*out) + 1 : 1)));
      std::vector<const Json*> values;
      for (const Json& value : list->as_array()) values.push_back(&value);
      keep(std::move(values));
    }
    if (const Json* value = schema->find("const")) keep({value});
  }
  return out;
}

Status SchemaReader::check_disjoint(const Json& schema, const Json::Array& branches) {
  if (!checked_.insert(&schema).second) return {};  // checked, or being so further up
  for (size_t i = 0; i < branches.size(); ++i) {
    for (size_t j = i + 1; j < branches.size(); ++j) {
      LATHE_TRY(const bool apart, disjoint({&branches[i]}, {&branches[j]}, 0));
      if (apart) continue;
      return fail(schema,
                  "oneOf",
                  str("branches ",
                      i,
                      " and ",
                      j,
                      " are not seen to exclude each other; where one value may be both, use anyOf"));
    }
  }
  return {};
}

Result<bool> SchemaReader::disjoint(const Schemas& a, const Schemas& b, int depth) {
  LATHE_TRY(const std::vector<Schemas> left, alternatives(a));
  LATHE_TRY(const std::vector<Schemas> right, alternatives(b));
  for (const Schemas& x : left) {
    for (const Schemas& y : right) {
      LATHE_TRY(charge(1));
      LATHE_TRY(const bool apart, disjoint_alternatives(x, y, depth));
      if (!apart) return false;
    }
  }
  return true;
}

Result<bool> SchemaReader::disjoint_alternatives(const Schemas& a, const Schemas& b, int depth) {
  LATHE_TRY(uint32_t a_types, types(a));
  LATHE_TRY(uint32_t b_types, types(b));
  LATHE_TRY(const auto a_values, values(a));
  LATHE_TRY(const auto b_values, values(b));
  const auto types_of = [](const std::vector<const Json*>& values) {
    uint32_t bits = 0;
    for (const Json* value : values) bits |= type_of_value(*value);
    return bits;
  };
  if (a_values) a_types &= types_of(*a_values);
  if (b_values) b_types &= types_of(*b_values);
  const uint32_t common = a_types & b_types;
  if (common == 0) return true;
  if (a_values && b_values) {
    LATHE_TRY(charge(std::ssize(*a_values) * std::ssize(*b_values)));
    return std::none_of(a_values->begin(), a_values->end(), [&](const Json* v) {
      return std::any_of(b_values->begin(), b_values->end(), [&](const Json* w) { return equal_values(*v, *w); });
    });
  }
  if (common != kObjectType || depth >= kMaxDisjointDepth) return false;
  // A member that one of them requires and whose values exclude each other. Patterns are left out: without their
  // schemas more is taken to be possible.
  const auto no_patterns = [](const Json& schema, std::string_view, Schemas&) -> Result<bool> {
    return schema.find("patternProperties") != nullptr;
  };
  for (const Schemas* side : {&a, &b}) {
    for (const Json* schema : *side) {
      LATHE_TRY(const Json* required, member(*schema, "required", Json::Kind::kArray));
      if (required == nullptr) continue;
      for (const Json& key : required->as_array()) {
        if (!key.is_string()) continue;
        LATHE_TRY(const Schemas left, member_schemas(a, key.as_string(), no_patterns));
        LATHE_TRY(const Schemas right, member_schemas(b, key.as_string(), no_patterns));
        LATHE_TRY(const bool apart, disjoint(left, right, depth + 1));
        if (apart) return true;
      }
    }
  }
  return false;
}

}  // namespace lathe
