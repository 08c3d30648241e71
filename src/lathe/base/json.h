// A JSON value: what every configuration file, request and report goes through. Parsing is strict RFC 8259 and
// refuses duplicate keys, nesting deeper than the limit and text that is not UTF-8. Objects keep their order.
// nlohmann-json does the lexing inside json.cpp; it appears in no header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lathe/base/result.h"

namespace lathe {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;

  // Integers that fit int64 are kInt; other numbers (and integers beyond it) are kDouble.
  enum class Kind { kNull, kBool, kInt, kDouble, kString, kArray, kObject };

  Json() = default;

  Json(std::nullptr_t) {}  // NOLINT(google-explicit-constructor)

  Json(bool value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  Json(int value) : value_(static_cast<int64_t>(value)) {}  // NOLINT(google-explicit-constructor)

  Json(int64_t value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  Json(uint32_t value) : value_(static_cast<int64_t>(value)) {}  // NOLINT(google-explicit-constructor)

  Json(uint64_t value);  // NOLINT(google-explicit-constructor) double beyond 2^63-1

  Json(double value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  Json(const char* value) : value_(std::string(value)) {}  // NOLINT(google-explicit-constructor)

  Json(std::string value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  Json(std::string_view value) : value_(std::string(value)) {}  // NOLINT(google-explicit-constructor)

  Json(const void* value) = delete;  // a pointer would otherwise become a boolean

  Json(Array value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  Json(Object value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  static Json array() { return Json(Array{}); }

  static Json object() { return Json(Object{}); }

  // An array of anything a Json can be made of.
  template <class T>
  static Json list(const T& values) {
    Array out;
    out.reserve(values.size());
    for (const auto& v : values) out.emplace_back(v);
    return Json(std::move(out));
  }

  Kind kind() const { return static_cast<Kind>(value_.index()); }

  bool is_null() const { return kind() == Kind::kNull; }

  bool is_bool() const { return kind() == Kind::kBool; }

  bool is_int() const { return kind() == Kind::kInt; }

  bool is_number() const { return kind() == Kind::kInt || kind() == Kind::kDouble; }

  bool is_string() const { return kind() == Kind::kString; }

  bool is_array() const { return kind() == Kind::kArray; }

  bool is_object() const { return kind() == Kind::kObject; }

  // The value as that kind. A LATHE_CHECK guards the kind: test it first. as_double accepts kInt.
  bool as_bool() const;
  int64_t as_int() const;
  double as_double() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  Array& as_array();
  const Object& as_object() const;
  Object& as_object();

  // The member of that name, or nullptr (also when this is not an object). A linear search: for a large object (a
  // vocabulary) iterate over as_object() instead. set() searches the same way.
  const Json* find(std::string_view key) const;
  // Sets or replaces a member; turns null into an object first.
  Json& set(std::string_view key, Json value);
  // Appends to an array; turns null into an array first.
  Json& push(Json value);

  // Compact (indent < 0) or indented text. Strings that are not valid UTF-8 get U+FFFD by the maximal-subpart
  // rule. Doubles print the shortest form that reads back; NaN and infinities print null.
  std::string dump(int indent = -1) const;

  // Name of the kind for messages: "null", "boolean", "integer", "number", "string", "array", "object".
  std::string_view kind_name() const;

  friend bool operator==(const Json& a, const Json& b) = default;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

// What a document may be at most.
struct JsonLimits {
  int max_depth = 64;
  uint64_t max_bytes = uint64_t{1} << 30;
};

// Errors carry byte offset and reason: `byte 17: duplicate key "a"`. `found` text is quoted and cut.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// Reads a regular file and parses it; errors begin with the path.
Result<Json> read_json(const std::filesystem::path& path, const JsonLimits& limits = {});

}  // namespace lathe
