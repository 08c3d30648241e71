// lathe tokenize: text -> ids, ids -> text.
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/cli/common.h"
#include "lathe/model/model_files.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe::cli {

namespace {

std::vector<int32_t> encode(const Tokenizer& tokenizer, const TokenizeOptions& o, std::string_view text) {
  std::vector<int32_t> ids = tokenizer.encode(text, o.plain ? AddedTokens::kPlain : AddedTokens::kRecognise);
  if (o.bos && tokenizer.bos_id()) ids.insert(ids.begin(), *tokenizer.bos_id());
  return ids;
}

Json ids_json(const std::vector<int32_t>& ids) {
  return Json::list(std::vector<int64_t>(ids.begin(), ids.end()));
}

Result<std::vector<int32_t>> ids_from(const Json& json) {
  if (!json.is_array())
    return Error{Errc::kInvalidData, str("expected an array of token ids, found ", json.kind_name())};
  std::vector<int32_t> ids;
  for (const Json& item : json.as_array()) {
    if (!item.is_int() || item.as_int() < 0 || item.as_int() > INT32_MAX) {
      return Error{Errc::kInvalidData,
                   str("expected token ids from 0 to ", INT32_MAX, ", found ", quoted(item.dump()))};
    }
    ids.push_back(static_cast<int32_t>(item.as_int()));
  }
  return ids;
}

Status check_known(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    if (!tokenizer.contains(id)) {
      return Error{Errc::kInvalidData,
                   str("expected ids of the vocabulary (0 to ", tokenizer.vocabulary_size() - 1, "), found ", id)};
    }
  }
  return {};
}

// One JSON value per line in and out.
Status convert_lines(const Tokenizer& tokenizer, const TokenizeOptions& o, std::string_view input) {
  int64_t number = 0;
  std::string out;
  while (!input.empty()) {
    const std::string_view line = input.substr(0, input.find('\n'));
    input.remove_prefix(std::min(input.size(), line.size() + 1));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = str("line ", number);
    Result<Json> json = parse_json(line);
    if (!json) return json.error().at(where);
    if (o.decode) {
      Result<std::vector<int32_t>> ids = ids_from(*json);
      if (!ids) return ids.error().at(where);
      if (Status known = check_known(tokenizer, *ids); !known) return known.error().at(where);
      out += Json(tokenizer.decode(*ids, /*skip_special=*/false)).dump();
    } else {
      if (!json->is_string()) {
        return Error{Errc::kInvalidData, str(where, ": expected a JSON string, found ", json->kind_name())};
      }
      out += ids_json(encode(tokenizer, o, json->as_string())).dump();
    }
    out += '\n';
    if (out.size() > (1 << 16)) {
      LATHE_TRY(write_stdout(out));
      out.clear();
    }
  }
  return write_stdout(out);
}

Result<std::vector<int32_t>> ids_from_text(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  if (text.starts_with('[')) {
    LATHE_TRY(const Json json, parse_json(text));
    return ids_from(json);
  }
  return parse_token_ids(std::string(text));
}

Status tokenize(const TokenizeOptions& o) {
  LATHE_TRY(const std::filesystem::path folder, model_folder(o.model));
  LATHE_TRY(const ModelFiles files, ModelFiles::open(folder));
  LATHE_TRY(const Tokenizer tokenizer, files.tokenizer());
  std::string input;
  if (o.prompt) {
    input = *o.prompt;
  } else {
    LATHE_TRY(input, read_stdin());
  }
  if (o.jsonl) return convert_lines(tokenizer, o, input);
  if (o.decode) {
    LATHE_TRY(const std::vector<int32_t> ids, ids_from_text(input));
    LATHE_TRY(check_known(tokenizer, ids));
    const std::string text = tokenizer.decode(ids, /*skip_special=*/false);
    if (!o.json) return write_stdout(tokenizer.decode_bytes(ids, /*skip_special=*/false) + "\n");
    Json out = Json::object();
    out.set("text", text);
    return write_json(out);
  }
  const std::vector<int32_t> ids = encode(tokenizer, o, input);
  if (!o.json) {
    std::string line;
    for (const int32_t id : ids) line += str(line.empty() ? "" : " ", id);
    return write_stdout(line + "\n");
  }
  Json tokens = Json::array();
  for (const int32_t id : ids) tokens.push(tokenizer.token_bytes(id));
  Json out = Json::object();
  out.set("ids", ids_json(ids));
  out.set("tokens", std::move(tokens));
  out.set("count", static_cast<int64_t>(ids.size()));
  return write_json(out);
}

}  // namespace

int run_tokenize(const TokenizeOptions& options) {
  const Status status = tokenize(options);
  return status ? kExitOk : report(status.error());
}

}  // namespace lathe::cli
