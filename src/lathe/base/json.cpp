#include "lathe/base/json.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "lathe/base/file.h"
#include "lathe/base/utf8.h"

namespace lathe {
namespace {

// What the lexer reads through: a pointer that leaves its place where the handler can see it, because the events of
// nlohmann-json carry no position.
class TrackingIterator {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TrackingIterator() = default;

  TrackingIterator(const char* at, const char** seen) : at_(at), seen_(seen) {}

  reference operator*() const { return *at_; }

  TrackingIterator& operator++() {
    *seen_ = ++at_;
    return *this;
  }

  TrackingIterator operator++(int) {
    TrackingIterator before = *this;
    ++*this;
    return before;
  }

  friend bool operator==(const TrackingIterator& a, const TrackingIterator& b) { return a.at_ == b.at_; }

 private:
  const char* at_ = nullptr;
  const char** seen_ = nullptr;
};

// Builds a Json from the parser's events and refuses what nlohmann-json would let pass.
class Builder {
 public:
  Builder(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits), seen_(text.data()) {}

  TrackingIterator begin() { return {text_.data(), &seen_}; }

  TrackingIterator end() { return {text_.data() + text_.size(), &seen_}; }

  std::optional<std::string> take_error() { return std::move(error_); }

  Json take_value() { return std::move(root_); }

  bool null() { return add(Json()) != nullptr; }

  bool boolean(bool value) { return add(Json(value)) != nullptr; }

  bool number_integer(int64_t value) { return add(Json(value)) != nullptr; }

  bool number_unsigned(uint64_t value) { return add(Json(value)) != nullptr; }

  bool number_float(double value, const std::string& /*text*/) { return add(Json(value)) != nullptr; }

  bool string(std::string& value) { return add(Json(std::move(value))) != nullptr; }

  bool binary(std::vector<uint8_t>& /*value*/) { return fail(offset(), "binary value"); }

  bool start_object(size_t /*count*/) { return open(Json::object()); }

  bool start_array(size_t /*count*/) { return open(Json::array()); }

  bool end_array() {
    open_.pop_back();
    return true;
  }

  bool key(std::string& name) {
    open_.back().container->as_object().emplace_back();
    open_.back().container->as_object().back().first = std::move(name);
    key_ends_.push_back(offset());
    return true;
  }

  bool end_object();
  bool parse_error(size_t position, const std::string& token, const nlohmann::json::exception& error);

 private:
  struct Open {
    Json* container;   // stays put: its parent gets no further element while it is open
    size_t first_key;  // index into key_ends_ of its first member
  };

  size_t offset() const { return static_cast<size_t>(seen_ - text_.data()); }

  bool fail(size_t at, std::string_view reason) {
    error_ = str("byte ", at, ": ", reason);
    return false;
  }

  Json* add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& container = *open_.back().container;
    if (container.is_array()) {
      container.as_array().push_back(std::move(value));
      return &container.as_array().back();
    }
    container.as_object().back().second = std::move(value);
    return &container.as_object().back().second;
  }

  bool open(Json empty) {
    if (open_.size() >= static_cast<size_t>(std::max(limits_.max_depth, 0))) {
      return fail(offset() - 1, str("nesting deeper than ", limits_.max_depth, " levels"));
    }
    open_.push_back({add(std::move(empty)), key_ends_.size()});
    return true;
  }

  size_t key_begin(size_t key_end) const;

  std::string_view text_;
  JsonLimits limits_;
  const char* seen_;
  Json root_;
  std::vector<Open> open_;
  std::vector<size_t> key_ends_;  // of every member of every open object: the offset just after the key
  std::optional<std::string> error_;
};

// Index of the first member whose key an earlier one has, or nothing.
std::optional<size_t> first_duplicate(const Json::Object& object) {
  if (object.size() <= 16) {
    for (size_t i = 1; i < object.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (object[i].first == object[j].first) return i;
      }
    }
    return std::nullopt;
  }

  // Sorted by hash first: fast for a vocabulary, and still n log n when somebody makes hashes collide.
  struct Key {
    size_t hash;
    size_t index;
  };

  std::vector<Key> keys(object.size());
  for (size_t i = 0; i < object.size(); ++i) keys[i] = {std::hash<std::string>{}(object[i].first), i};
  std::sort(keys.begin(), keys.end(), [&](const Key& a, const Key& b) {
    if (a.hash != b.hash) return a.hash < b.hash;
    const int order = object[a.index].first.compare(object[b.index].first);
    return order != 0 ? order < 0 : a.index < b.index;
  });
  std::optional<size_t> found;
  for (size_t i = 1; i < keys.size(); ++i) {
    if (keys[i].hash != keys[i - 1].hash || object[keys[i].index].first != object[keys[i - 1].index].first) continue;
    if (!found || keys[i].index < *found) found = keys[i].index;
  }
  return found;
}

bool Builder::end_object() {
  const Open closed = open_.back();
  const Json::Object& object = closed.container->as_object();
  if (const auto duplicate = first_duplicate(object)) {
    return fail(key_begin(key_ends_[closed.first_key + *duplicate]),
                str("duplicate key ", quoted(object[*duplicate].first)));
  }
  key_ends_.resize(closed.first_key);
  open_.pop_back();
  return true;
}

// The opening quote of the key that ends just before `key_end`: going back, the first quote not escaped by a backslash.
size_t Builder::key_begin(size_t key_end) const {
  size_t at = key_end - 1;  // the closing quote
  while (at > 0) {
    --at;
    if (text_[at] != '"') continue;
    size_t backslashes = 0;
    while (backslashes < at && text_[at - backslashes - 1] == '\\') ++backslashes;
    if (backslashes % 2 == 0) break;
  }
  return at;
}

// "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while parsing ..." becomes
// "syntax error while parsing ...". What the library quotes of the input can be megabytes; it is replaced.
bool Builder::parse_error(size_t position, const std::string& /*token*/, const nlohmann::json::exception& error) {
  std::string_view reason = error.what();
  for (const std::string_view marker : {std::string_view("] "), std::string_view(": ")}) {
    const size_t at = reason.substr(0, 120).find(marker);
    if (at != std::string_view::npos) reason.remove_prefix(at + marker.size());
    if (!reason.starts_with("parse error")) break;  // error 406 (number overflow) has no line and column
  }
  const size_t byte = std::min(position > 0 ? position - 1 : 0, text_.size());
  std::string text(reason);
  if (const size_t last_read = text.find("; last read: '"); last_read != std::string::npos) {
    text.resize(last_read);
    text += byte < text_.size() ? str(", found ", quoted(text_.substr(byte), 20)) : std::string(", found end of input");
  } else if (text.starts_with("number overflow")) {
    text = "number does not fit a double";
  }
  return fail(byte, std::move(text));
}

void append_string(std::string& out, const std::string& value) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  const std::string repaired = is_valid_utf8(value) ? std::string() : to_valid_utf8(value);
  out += '"';
  for (const char c : repaired.empty() ? value : repaired) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kDigits[static_cast<unsigned char>(c) >> 4];
          out += kDigits[static_cast<unsigned char>(c) & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void append_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  const std::string text = str(value);
  out += text;
  if (text.find_first_of(".e") == std::string::npos) out += ".0";  // reads back as a double, not as an integer
}

void append_line(std::string& out, int indent, int depth) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<size_t>(indent) * static_cast<size_t>(depth), ' ');
}

void append_value(std::string& out, const Json& value, int indent, int depth) {
  switch (value.kind()) {
    case Json::Kind::kNull:
      out += "null";
      return;
    case Json::Kind::kBool:
      out += value.as_bool() ? "true" : "false";
      return;
    case Json::Kind::kInt:
      append_to(out, value.as_int());
      return;
    case Json::Kind::kDouble:
      append_double(out, value.as_double());
      return;
    case Json::Kind::kString:
      append_string(out, value.as_string());
      return;
    case Json::Kind::kArray: {
      out += '[';
      bool first = true;
      for (const Json& element : value.as_array()) {
        if (!first) out += ',';
        first = false;
        append_line(out, indent, depth + 1);
        append_value(out, element, indent, depth + 1);
      }
      if (!first) append_line(out, indent, depth);
      out += ']';
      return;
    }
    case Json::Kind::kObject: {
      out += '{';
      bool first = true;
      for (const auto& [key, member] : value.as_object()) {
        if (!first) out += ',';
        first = false;
        append_line(out, indent, depth + 1);
        append_string(out, key);
        out += indent < 0 ? ":" : ": ";
        append_value(out, member, indent, depth + 1);
      }
      if (!first) append_line(out, indent, depth);
      out += '}';
      return;
    }
  }
}

}  // namespace

Json::Json(uint64_t value) {
  if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    value_ = static_cast<int64_t>(value);
  } else {
    value_ = static_cast<double>(value);
  }
}

bool Json::as_bool() const {
  const bool* value = std::get_if<bool>(&value_);
  LATHE_CHECK(value != nullptr, "a boolean wanted, this is: ", kind_name());
  return *value;
}

int64_t Json::as_int() const {
  const int64_t* value = std::get_if<int64_t>(&value_);
  LATHE_CHECK(value != nullptr, "an integer wanted, this is: ", kind_name());
  return *value;
}

double Json::as_double() const {
  if (const int64_t* integer = std::get_if<int64_t>(&value_)) return static_cast<double>(*integer);
  const double* value = std::get_if<double>(&value_);
  LATHE_CHECK(value != nullptr, "a number wanted, this is: ", kind_name());
  return *value;
}

const std::string& Json::as_string() const {
  const std::string* value = std::get_if<std::string>(&value_);
  LATHE_CHECK(value != nullptr, "a string wanted, this is: ", kind_name());
  return *value;
}

const Json::Array& Json::as_array() const {
  const Array* value = std::get_if<Array>(&value_);
  LATHE_CHECK(value != nullptr, "an array wanted, this is: ", kind_name());
  return *value;
}

Json::Array& Json::as_array() {
  return const_cast<Array&>(std::as_const(*this).as_array());
}

const Json::Object& Json::as_object() const {
  const Object* value = std::get_if<Object>(&value_);
  LATHE_CHECK(value != nullptr, "an object wanted, this is: ", kind_name());
  return *value;
}

Json::Object& Json::as_object() {
  return const_cast<Object&>(std::as_const(*this).as_object());
}

const Json* Json::find(std::string_view key) const {
  const Object* members = std::get_if<Object>(&value_);
  if (members == nullptr) return nullptr;
  for (const Member& member : *members) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

Json& Json::set(std::string_view key, Json value) {
  if (is_null()) value_ = Object{};
  Object& members = as_object();
  for (Member& member : members) {
    if (member.first == key) {
      member.second = std::move(value);
      return *this;
    }
  }
  members.emplace_back(std::string(key), std::move(value));
  return *this;
}

Json& Json::push(Json value) {
  if (is_null()) value_ = Array{};
  as_array().push_back(std::move(value));
  return *this;
}

std::string Json::dump(int indent) const {
  std::string out;
  append_value(out, *this, indent, 0);
  return out;
}

std::string_view Json::kind_name() const {
  switch (kind()) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return "boolean";
    case Kind::kInt:
      return "integer";
    case Kind::kDouble:
      return "number";
    case Kind::kString:
      return "string";
    case Kind::kArray:
      return "array";
    case Kind::kObject:
      break;
  }
  return "object";
}

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Error{Errc::kInvalidData, str("expected at most ", limits.max_bytes, " bytes, found ", text.size())};
  }
  // nlohmann-json takes both of these as if they were nothing: a mark at the start, and a NUL as the end of the text.
  if (text.starts_with("\xef\xbb\xbf"))
    return Error{Errc::kInvalidData, "byte 0: byte order mark before the JSON text"};
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return Error{Errc::kInvalidData, str("byte ", nul, ": NUL byte")};
  }
  try {
    Builder builder(text, limits);
    const bool complete = nlohmann::json::sax_parse(builder.begin(), builder.end(), &builder);
    if (complete) return builder.take_value();
    return Error{Errc::kInvalidData, builder.take_error().value_or("not JSON")};
  } catch (const std::bad_alloc&) {
    return Error{Errc::kResourceExhausted, str("not enough memory for ", text.size(), " bytes of JSON")};
  } catch (const std::exception& error) {
    return Error{Errc::kInvalidData, str("not JSON: ", quoted(error.what()))};
  }
}

Result<Json> read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  LATHE_TRY(const std::string text, read_file(path, limits.max_bytes));
  Result<Json> json = parse_json(text, limits);
  if (!json) return json.error().at(path.string());
  return json;
}

}  // namespace lathe
