#include "lathe/server/field_reader.h"

#include <cmath>

#include "lathe/base/str.h"

namespace lathe::server {

std::string describe(const Json& value) {
  switch (value.kind()) {
    case Json::Kind::kNull:
      return "null";
    case Json::Kind::kArray:
    case Json::Kind::kObject:
      return str("an ", value.kind_name());
    case Json::Kind::kString:
      return quoted(value.as_string(), 60);
    default:
      return value.dump();
  }
}

std::optional<int64_t> whole_number(const Json& value) {
  if (value.is_int()) return value.as_int();
  if (value.kind() != Json::Kind::kDouble) return {};
  const double number = value.as_double();
  // Doubles below 2^53 are exact; whoever means more writes an integer.
  if (std::abs(number) > 9007199254740992.0 || number != std::floor(number)) return {};
  return static_cast<int64_t>(number);
}

std::optional<std::string> read_ids(const Json& tokens, int64_t vocab_size, size_t most, std::vector<int32_t>& out) {
  if (tokens.as_array().size() > most) {
    return str("expected at most ", most, " token ids, found ", tokens.as_array().size());
  }
  out.reserve(tokens.as_array().size());
  for (const Json& item : tokens.as_array()) {
    const std::optional<int64_t> id = whole_number(item);
    if (!id || *id < 0 || *id >= vocab_size) {
      return str("expected token ids from 0 to ", vocab_size - 1, ", found ", describe(item));
    }
    out.push_back(static_cast<int32_t>(*id));
  }
  return {};
}

const Json* FieldReader::find(std::string_view name) const {
  const Json* member = object_.find(name);
  return member != nullptr && !member->is_null() ? member : nullptr;
}

void FieldReader::fail(std::string_view name, std::string_view message) {
  fail(invalid_field(name, message));
}

void FieldReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::expected(std::string_view name, std::string_view what, const Json& found) {
  fail(name, str("expected ", what, ", found ", describe(found)));
}

bool FieldReader::whole(std::string_view name, int64_t least, int64_t most, int64_t& target) {
  const Json* member = find(name);
  if (member == nullptr || failed()) return false;
  const std::optional<int64_t> number = whole_number(*member);
  if (!number || *number < least || *number > most) {
    expected(name, str("a whole number from ", least, " to ", most), *member);
    return false;
  }
  target = *number;
  return true;
}

bool FieldReader::real(std::string_view name, double least, double most, double& target) {
  const Json* member = find(name);
  if (member == nullptr || failed()) return false;
  // Written so that a value that is no number is refused too.
  if (!member->is_number() || !(member->as_double() >= least && member->as_double() <= most)) {
    expected(name, str("a number from ", least, " to ", most), *member);
    return false;
  }
  target = member->as_double();
  return true;
}

bool FieldReader::boolean(std::string_view name, bool& target) {
  const Json* member = find(name);
  if (member == nullptr || failed()) return false;
  if (!member->is_bool()) {
    expected(name, "true or false", *member);
    return false;
  }
  target = member->as_bool();
  return true;
}

bool FieldReader::text(std::string_view name, size_t most_bytes, std::string& target) {
  const Json* member = find(name);
  if (member == nullptr || failed()) return false;
  if (!member->is_string() || member->as_string().size() > most_bytes) {
    expected(name, str("a string of at most ", most_bytes, " bytes"), *member);
    return false;
  }
  target = member->as_string();
  return true;
}

bool FieldReader::one_of(std::string_view name, const std::vector<std::string_view>& names, size_t& target) {
  const Json* member = find(name);
  if (member == nullptr || failed()) return false;
  std::string list;
  for (size_t i = 0; i < names.size(); ++i) {
    if (member->is_string() && member->as_string() == names[i]) {
      target = i;
      return true;
    }
    list += str(i == 0 ? "" : ", ", "\"", names[i], "\"");
  }
  expected(name, str("one of ", list), *member);
  return false;
}

bool FieldReader::token_ids(std::string_view name, int64_t vocab_size, size_t most, std::vector<int32_t>& target) {
  const Json* member = find(name);
  if (member == nullptr || failed()) return false;
  if (!member->is_array()) {
    expected(name, "an array of token ids", *member);
    return false;
  }
  if (const std::optional<std::string> wrong = read_ids(*member, vocab_size, most, target)) {
    fail(name, *wrong);
    return false;
  }
  return true;
}

void FieldReader::refuse(std::string_view name) {
  const Json* member = find(name);
  if (member == nullptr || failed()) return;
  const bool nothing =
      (member->is_bool() && !member->as_bool()) || (member->is_number() && member->as_double() == 0.0) ||
      (member->is_string() && member->as_string().empty()) || (member->is_array() && member->as_array().empty());
  if (nothing) return;
  ApiError error = invalid_field(name, "this server does not support it");
  error.code = "unsupported_parameter";
  fail(std::move(error));
}

}  // namespace lathe::server
