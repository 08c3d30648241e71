#include "lathe/train/toml.h"

#include <string>

#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_UNRELEASED_FEATURES 0
#include <toml++/toml.h>

namespace lathe::train {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 24;

Result<Json> to_json(const toml::node& node);

Result<Json> to_json(const toml::table& table) {
  Json::Object out;
  for (const auto& [key, value] : table) {
    LATHE_TRY(Json member, to_json(value));
    out.emplace_back(std::string(key.str()), std::move(member));
  }
  return Json(std::move(out));
}

Result<Json> to_json(const toml::array& array) {
  Json::Array out;
  for (const toml::node& node : array) {
    LATHE_TRY(Json element, to_json(node));
    out.push_back(std::move(element));
  }
  return Json(std::move(out));
}

Result<Json> to_json(const toml::node& node) {
  if (const toml::table* table = node.as_table()) return to_json(*table);
  if (const toml::array* array = node.as_array()) return to_json(*array);
  if (const auto* text = node.as_string()) return Json(text->get());
  if (const auto* number = node.as_integer()) return Json(int64_t{number->get()});
  if (const auto* number = node.as_floating_point()) return Json(number->get());
  if (const auto* flag = node.as_boolean()) return Json(flag->get());
  return Error{
      Errc::kInvalidData,
      str("line ", node.source().begin.line, ": expected text, a number, true or false, found a date or time")};
}

}  // namespace

Result<Json> parse_toml(std::string_view text, std::string_view where) {
  if (!is_valid_utf8(text)) return Error{Errc::kInvalidData, str(where, ": expected UTF-8, found other bytes")};
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return Error{Errc::kInvalidData,
                 str(where,
                     ": line ",
                     error.source().begin.line,
                     ", column ",
                     error.source().begin.column,
                     ": ",
                     error.description())};
  }
  Result<Json> json = to_json(parsed.table());
  if (!json) return json.error().at(where);
  return json;
}

Result<Json> read_toml(const std::filesystem::path& path) {
  LATHE_TRY(const std::string text, read_file(path, kMaxBytes));
  return parse_toml(text, path.string());
}

Json parse_toml_value(std::string_view text) {
  const std::string plain(text);
  if (text.find_first_of("\r\n#") != std::string_view::npos) return Json(plain);
  const Result<Json> json = parse_toml(str("value = ", text), "");
  if (!json || json->as_object().size() != 1) return Json(plain);
  return json->as_object().front().second;
}

}  // namespace lathe::train
