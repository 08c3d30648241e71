#include "lathe/model/config_fields.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "lathe/base/check.h"
#include "lathe/base/str.h"

namespace lathe {
namespace {

// 40 and 40.0 are the same size; 40.5 is not one. Beyond 2^53 a double no longer names one integer.
std::optional<int64_t> as_integer(const Json& value) {
  if (value.is_int()) return value.as_int();
  if (!value.is_number()) return std::nullopt;
  constexpr double kExact = 9007199254740992.0;
  const double real = value.as_double();
  if (!(std::fabs(real) <= kExact) || real != std::trunc(real)) return std::nullopt;
  return static_cast<int64_t>(real);
}

std::string describe(IntegerRange range) {
  return str("an integer from ", range.least, " to ", range.greatest);
}

std::string describe(RealRange range) {
  if (range.above_least) return str("a number above ", range.least, " and at most ", range.greatest);
  return str("a number from ", range.least, " to ", range.greatest);
}

}  // namespace

std::string found_text(const Json& value) {
  if (value.is_string()) return quoted(value.as_string());
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return value.dump();
}

std::string join_alternatives(std::span<const std::string_view> names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) out += i + 1 == names.size() ? " or " : ", ";
    out += names[i];
  }
  return out;
}

FieldReader::FieldReader(const Json& object, std::string prefix) : object_(&object), prefix_(std::move(prefix)) {
  LATHE_CHECK(object.is_object(), object.kind_name());
}

const Json* FieldReader::find(std::string_view name) {
  known_.push_back(name);
  return object_->find(name);
}

const Json* FieldReader::find_value(std::string_view name) {
  const Json* value = find(name);
  return value != nullptr && value->is_null() ? nullptr : value;
}

void FieldReader::ignore(std::span<const std::string_view> names) {
  known_.insert(known_.end(), names.begin(), names.end());
}

Error FieldReader::wrong(std::string_view name, std::string_view expected, const Json& found) const {
  return {Errc::kInvalidData, str(path(name), ": expected ", expected, ", found ", found_text(found))};
}

Error FieldReader::missing(std::string_view name, std::string_view expected) const {
  return {Errc::kInvalidData, str(path(name), ": missing, expected ", expected)};
}

Result<const Json*> FieldReader::lookup(std::string_view name, Presence presence, std::string_view expected) {
  const Json* json = find(name);
  if (json == nullptr && presence == Presence::kRequired) return missing(name, expected);
  if (json != nullptr && json->is_null() && presence == Presence::kNullIsAbsent)
    return static_cast<const Json*>(nullptr);
  return json;
}

Status FieldReader::integer(std::string_view name, IntegerRange range, Presence presence, int64_t& value) {
  LATHE_TRY(const Json* json, lookup(name, presence, describe(range)));
  if (json == nullptr) return {};
  const std::optional<int64_t> number = as_integer(*json);
  if (!number || *number < range.least || *number > range.greatest) return wrong(name, describe(range), *json);
  value = *number;
  return {};
}

Status FieldReader::real(std::string_view name, RealRange range, Presence presence, double& value) {
  LATHE_TRY(const Json* json, lookup(name, presence, describe(range)));
  if (json == nullptr) return {};
  if (!json->is_number()) return wrong(name, describe(range), *json);
  const double number = json->as_double();
  // Written so that NaN fails.
  const bool in_range = number >= range.least && number <= range.greatest;
  if (!in_range || (range.above_least && number == range.least)) return wrong(name, describe(range), *json);
  value = number;
  return {};
}

Status FieldReader::boolean(std::string_view name, Presence presence, bool& value) {
  LATHE_TRY(const Json* json, lookup(name, presence, "true or false"));
  if (json == nullptr) return {};
  if (!json->is_bool()) return wrong(name, "true or false", *json);
  value = json->as_bool();
  return {};
}

Status FieldReader::text(std::string_view name, Presence presence, std::string& value) {
  LATHE_TRY(const Json* json, lookup(name, presence, "a string"));
  if (json == nullptr) return {};
  if (!json->is_string()) return wrong(name, "a string", *json);
  value = json->as_string();
  return {};
}

std::vector<std::string> FieldReader::unknown_fields() const {
  std::vector<std::string_view> known = known_;
  std::sort(known.begin(), known.end());
  std::vector<std::string> out;
  for (const Json::Member& member : object_->as_object()) {
    if (!std::binary_search(known.begin(), known.end(), std::string_view(member.first))) {
      out.push_back(path(quoted(member.first)));
    }
  }
  return out;
}

}  // namespace lathe
