// Typed, ranged access to the members of one JSON object, with messages that name the field: the boundary where
// config.json stops being text. Internal to model/.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"

namespace lathe {

struct IntegerRange {
  int64_t least = 0;
  int64_t greatest = 0;
};

// Accepted numbers, both ends included unless said otherwise.
struct RealRange {
  double least = 0.0;
  double greatest = 0.0;
  bool above_least = false;  // the least value itself is not allowed
};

enum class Presence {
  kRequired,      // absent or null is an error
  kOptional,      // absent keeps the caller's value, null is an error
  kNullIsAbsent,  // absent and null keep the caller's value
};

// A value as it appears in messages: scalars as JSON text, cut and escaped; arrays and objects by their kind.
std::string found_text(const Json& value);

// "a", "a or b", "a, b or c".
std::string join_alternatives(std::span<const std::string_view> names);

// Reads members of `object`, which must be an object and outlive the reader. Every member asked for counts as known;
// unknown_fields() lists the others. `prefix` ("rope_scaling." or "") goes before the name in every message.
class FieldReader {
 public:
  FieldReader(const Json& object, std::string prefix);

  // The member, also when null; nullptr when absent. Marks the name as known.
  const Json* find(std::string_view name);
  // The member unless it is absent or null.
  const Json* find_value(std::string_view name);

  bool has(std::string_view name) const { return object_->find(name) != nullptr; }

  // Marks fields as known, so that they cause no warning.
  void ignore(std::span<const std::string_view> names);

  // Integers may be written as 40 or 40.0; reals as either.
  Status integer(std::string_view name, IntegerRange range, Presence presence, int64_t& value);
  Status real(std::string_view name, RealRange range, Presence presence, double& value);
  Status boolean(std::string_view name, Presence presence, bool& value);
  Status text(std::string_view name, Presence presence, std::string& value);

  std::string path(std::string_view name) const { return prefix_ + std::string(name); }

  // The error for a field with a wrong type or value.
  Error wrong(std::string_view name, std::string_view expected, const Json& found) const;
  // The error for a field that is required and absent.
  Error missing(std::string_view name, std::string_view expected) const;

  // Paths of the members never asked for, in file order.
  std::vector<std::string> unknown_fields() const;

 private:
  // The member to convert, nullptr to keep the caller's value, or the error of a missing one.
  Result<const Json*> lookup(std::string_view name, Presence presence, std::string_view expected);

  const Json* object_;
  std::string prefix_;
  std::vector<std::string_view> known_;
};

// One name per value. Reads a text field that must be one of them; `found` values outside are errors naming all names.
template <class Enum>
struct NamedValue {
  std::string_view name;
  Enum value;
};

// Reads a field whose text must be one of the spellings of an enum.
template <class Enum, size_t N>
Status read_choice(
    FieldReader& fields, std::string_view name, const NamedValue<Enum> (&choices)[N], Presence presence, Enum& value) {
  const Json* json = fields.find(name);
  if (json == nullptr || (json->is_null() && presence == Presence::kNullIsAbsent)) {
    if (presence != Presence::kRequired) return {};
  }
  std::vector<std::string_view> names;
  for (const NamedValue<Enum>& choice : choices) {
    if (json != nullptr && json->is_string() && json->as_string() == choice.name) {
      value = choice.value;
      return {};
    }
    names.push_back(choice.name);
  }
  if (json == nullptr) return fields.missing(name, join_alternatives(names));
  return fields.wrong(name, join_alternatives(names), *json);
}

}  // namespace lathe
