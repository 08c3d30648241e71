#include "lathe/cli/answer_format.h"

#include <optional>
#include <string>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/chat/chat_format.h"

namespace lathe::cli {

namespace {

// The schema itself where it begins like one, else the name of its file.
Result<Json> read_schema(const std::string& given) {
  if (!without_leading_space(given).starts_with('{')) return read_json(given);
  Result<Json> schema = parse_json(given);
  if (!schema) return Error{Errc::kInvalidArgument, schema.error().message}.at("--json-schema");
  return schema;
}

Result<Json> schema_of(const FormatFlags& flags) {
  Json any_object = Json::object();
  any_object.set("type", "object");
  if (!flags.json_schema) return any_object;
  LATHE_TRY(Json schema, read_schema(*flags.json_schema));
  if (schema.is_object() || schema.is_bool()) return schema;
  return Error{Errc::kInvalidArgument, str("--json-schema: expected an object, found ", schema.kind_name())};
}

}  // namespace

Result<AnswerFormat> AnswerFormat::open(const FormatFlags& flags, const Engine& engine) {
  AnswerFormat out;
  if (!flags.json_schema && !flags.json_object) return out;
  out.option_ = flags.json_schema ? "--json-schema" : "--json-object";
  out.tokenizer_ = engine.tokenizer();
  if (out.tokenizer_ == nullptr) {
    return Error{Errc::kInvalidArgument, str(out.option_, ": expected a model with tokenizer.json, found none")};
  }
  LATHE_TRY(const Json schema, schema_of(flags));
  out.cache_ = std::make_unique<ConstraintCache>(*out.tokenizer_, engine.config().vocab_size, engine.eos_ids());
  Result<std::shared_ptr<GrammarMasks>> masks = out.cache_->prepare(schema);
  if (!masks) return masks.error().at(out.option_);
  out.masks_ = *std::move(masks);
  return out;
}

Result<std::shared_ptr<TokenConstraint>> AnswerFormat::begin(std::span<const int32_t> prompt, bool chat) const {
  if (is_any_text()) return std::shared_ptr<TokenConstraint>();
  std::optional<int32_t> marker;
  if (chat && prompt_opens_reasoning(*tokenizer_, prompt)) {
    marker = tokenizer_->find(kThinkEnd);
    if (!marker) {
      return Error{Errc::kInvalidArgument,
                   str(option_,
                       ": expected a vocabulary with ",
                       kThinkEnd,
                       " where the prompt ends in ",
                       kThinkBegin,
                       ", found none")};
    }
  }
  return std::shared_ptr<TokenConstraint>(cache_->begin(masks_, marker));
}

}  // namespace lathe::cli
