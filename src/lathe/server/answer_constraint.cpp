#include "lathe/server/answer_constraint.h"

#include <algorithm>
#include <utility>

namespace lathe::server {

namespace {

// Where the prompt leaves the model in its thoughts: the token that ends them, behind which the answer comes.
std::optional<int32_t> end_of_thoughts(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt) {
  const std::optional<int32_t> begin = tokenizer.find("<think>"), end = tokenizer.find("</think>");
  if (!begin || !end) return {};
  const auto last =
      std::find_if(prompt.rbegin(), prompt.rend(), [&](int32_t id) { return id == *begin || id == *end; });
  return last != prompt.rend() && *last == *begin ? end : std::nullopt;
}

}  // namespace

std::optional<ApiError> constrain_answers(const ServedModel& model,
                                          const GenerationRequest& request,
                                          std::vector<Request>& answers) {
  if (request.format == ResponseFormat::kText) return {};
  Json object;
  object.set("type", "object");
  const bool has_schema = request.format == ResponseFormat::kJsonSchema;
  Result<std::shared_ptr<GrammarMasks>> masks = model.constraints->prepare(has_schema ? request.schema : object);
  if (!masks) return invalid_field("response_format", masks.error().message);
  for (Request& answer : answers) {
    answer.constraint = model.constraints->begin(
        *masks, request.chat ? end_of_thoughts(*model.tokenizer, answer.prompt) : std::nullopt);
  }
  return {};
}

}  // namespace lathe::server
