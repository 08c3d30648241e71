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

Result<std::shared_ptr<GrammarMasks>> masks_of(const FormatFlags& flags, ConstraintCache& cache) {
  if (!flags.json_schema) return cache.prepare_object();
  LATHE_TRY(const Json schema, read_schema(*flags.json_schema));
  if (!schema.is_object() && !schema.is_bool()) {
    return Error{Errc::kInvalidArgument, str("--json-schema: expected an object, found ", schema.kind_name())};
  }
  Result<std::shared_ptr<GrammarMasks>> masks = cache.prepare(schema);
  if (!masks) return masks.error().at("--json-schema");
  return masks;
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
  out.cache_ = std::make_unique<ConstraintCache>(*out.tokenizer_, engine.config().vocab_size, engine.eos_ids());
  LATHE_TRY(out.masks_, masks_of(flags, *out.cache_));
  return out;
}

Result<std::shared_ptr<TokenConstraint>> AnswerFormat::begin(std::span<const int32_t> prompt, bool chat) const {
  if (is_any_text()) return std::shared_ptr<TokenConstraint>();
  std::optional<int32_t> marker;
  if (chat && prompt_opens_reasoning(*tokenizer_, prompt)) {
    const Result<int32_t> end = end_of_thoughts(*tokenizer_);
    if (!end) return end.error().at(option_);
    marker = *end;
  }
  return std::shared_ptr<TokenConstraint>(cache_->begin(masks_, marker));
}

}  // namespace lathe::cli
