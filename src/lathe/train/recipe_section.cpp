#include "lathe/train/recipe_section.h"

#include <algorithm>

#include "lathe/base/str.h"

namespace lathe::train {
namespace {

const Json& object_or_empty(const Json* object) {
  static const Json empty = Json::object();
  return object != nullptr && object->is_object() ? *object : empty;
}

std::string joined(const std::vector<std::string>& keys) {
  std::vector<std::string_view> names(keys.begin(), keys.end());
  std::ranges::sort(names);
  return join_alternatives(names);
}

}  // namespace

Section::Section(const Json* object, std::string_view name)
    : fields_(object_or_empty(object), name.empty() ? std::string() : str(name, ".")), name_(name) {
  if (object != nullptr && !object->is_object()) {
    error_ = Error{Errc::kInvalidData, str(name, ": expected a table, found ", found_text(*object))};
  }
}

void Section::note(Status status) {
  if (error_ && !status) error_ = std::move(status);
}

void Section::fail(std::string_view key, std::string_view message) {
  note(Error{Errc::kInvalidData, str(fields_.path(key), ": ", message)});
}

void Section::whole(std::string_view key, IntegerRange range, int64_t& value) {
  keys_.emplace_back(key);
  note(fields_.integer(key, range, Presence::kOptional, value));
}

void Section::real(std::string_view key, RealRange range, double& value) {
  keys_.emplace_back(key);
  note(fields_.real(key, range, Presence::kOptional, value));
}

void Section::boolean(std::string_view key, bool& value) {
  keys_.emplace_back(key);
  note(fields_.boolean(key, Presence::kOptional, value));
}

void Section::text(std::string_view key, std::string& value) {
  keys_.emplace_back(key);
  note(fields_.text(key, Presence::kOptional, value));
}

void Section::choice(std::string_view key, std::span<const std::string_view> names, std::string& value) {
  text(key, value);
  if (error_ && std::ranges::find(names, std::string_view(value)) == names.end()) {
    note(fields_.wrong(key, join_alternatives(names), Json(value)));
  }
}

void Section::texts(std::string_view key, std::vector<std::string>& values) {
  const Json* json = raw(key);
  if (json == nullptr || !error_) return;
  values.clear();
  if (json->is_string()) {
    if (!json->as_string().empty()) values.push_back(json->as_string());
    return;
  }
  if (!json->is_array()) return note(fields_.wrong(key, "text or a list of texts", *json));
  for (const Json& element : json->as_array()) {
    if (!element.is_string()) return note(fields_.wrong(key, "a list of texts", element));
    values.push_back(element.as_string());
  }
}

template <class T, class Read>
void Section::numbers(std::string_view key, const Read& read, std::vector<T>& values) {
  const Json* json = raw(key);
  if (json == nullptr || !error_) return;
  values.clear();
  if (!json->is_array()) return note(fields_.wrong(key, "a list of numbers", *json));
  for (const Json& element : json->as_array()) {
    const Json member = Json(Json::Object{{std::string(key), element}});
    FieldReader one(member, name_.empty() ? std::string() : str(name_, "."));
    T value{};
    Status status = read(one, value);
    if (!status) return note(std::move(status));
    values.push_back(value);
  }
}

void Section::reals(std::string_view key, RealRange range, std::vector<double>& values) {
  const auto read = [&](FieldReader& one, double& value) { return one.real(key, range, Presence::kRequired, value); };
  numbers(key, read, values);
}

void Section::wholes(std::string_view key, IntegerRange range, std::vector<int64_t>& values) {
  const auto read = [&](FieldReader& one, int64_t& value) {
    return one.integer(key, range, Presence::kRequired, value);
  };
  numbers(key, read, values);
}

const Json* Section::raw(std::string_view key) {
  keys_.emplace_back(key);
  return fields_.find_value(key);
}

Status Section::finish() {
  LATHE_TRY(error_);
  const std::vector<std::string> unknown = fields_.unknown_fields();
  if (unknown.empty()) return {};
  return Error{Errc::kInvalidData,
               str(unknown.front(),
                   ": unknown key, expected one of ",
                   joined(keys_),
                   name_.empty() ? "" : str(" in [", name_, "]"))};
}

}  // namespace lathe::train
