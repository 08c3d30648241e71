#include "lathe/model/generation_defaults.h"

#include "lathe/base/str.h"
#include "lathe/model/config_fields.h"

namespace lathe {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 22;
constexpr IntegerRange kTokenId{0, (int64_t{1} << 24) - 1};
constexpr size_t kMaxEosTokens = 1024;

Status read_eos(FieldReader& fields, std::vector<int64_t>& ids) {
  const Json* eos = fields.find_value("eos_token_id");
  if (eos == nullptr) return {};
  const Json::Array list = eos->is_array() ? eos->as_array() : Json::Array{*eos};
  if (list.size() > kMaxEosTokens) {
    return Error{Errc::kInvalidData,
                 str("eos_token_id: expected at most ", kMaxEosTokens, " ids, found ", list.size())};
  }
  for (const Json& element : list) {
    const Json member = Json(Json::Object{{"eos_token_id", element}});
    FieldReader one(member, "");
    int64_t id = 0;
    LATHE_TRY(one.integer("eos_token_id", kTokenId, Presence::kRequired, id));
    ids.push_back(id);
  }
  return {};
}

Status read_dry(FieldReader& fields, GenerationDefaults& out) {
  LATHE_TRY(fields.real("dry_multiplier", {0.0, kMaxDryMultiplier}, Presence::kNullIsAbsent, out.dry_multiplier));
  if (fields.find_value("dry_base") != nullptr) {
    LATHE_TRY(fields.real("dry_base", {1.0, kMaxDryBase}, Presence::kRequired, out.dry_base.emplace()));
  }
  if (fields.find_value("dry_allowed_length") != nullptr) {
    LATHE_TRY(fields.integer(
        "dry_allowed_length", {1, kMaxDryLength}, Presence::kRequired, out.dry_allowed_length.emplace()));
  }
  return {};
}

}  // namespace

Result<GenerationDefaults> parse_generation_defaults(const Json& json) {
  if (!json.is_object()) return Error{Errc::kInvalidData, str("expected an object, found ", found_text(json))};
  FieldReader fields(json, "");
  GenerationDefaults out;
  constexpr Presence kNullable = Presence::kNullIsAbsent;
  LATHE_TRY(fields.boolean("do_sample", kNullable, out.do_sample));
  LATHE_TRY(fields.real("temperature", {0.0, 1e3}, kNullable, out.temperature));
  LATHE_TRY(fields.real("top_p", {0.0, 1.0, true}, kNullable, out.top_p));
  LATHE_TRY(fields.integer("top_k", {0, int64_t{1} << 24}, kNullable, out.top_k));
  LATHE_TRY(fields.real("repetition_penalty", {0.0, 1e3, true}, kNullable, out.repetition_penalty));
  LATHE_TRY(read_dry(fields, out));
  LATHE_TRY(read_eos(fields, out.eos_token_ids));
  return out;
}

Result<GenerationDefaults> load_generation_defaults(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return GenerationDefaults{};
  LATHE_TRY(const Json json, read_json(file, {.max_bytes = kMaxBytes}));
  Result<GenerationDefaults> parsed = parse_generation_defaults(json);
  if (!parsed) return parsed.error().at(file.string());
  return parsed;
}

}  // namespace lathe
