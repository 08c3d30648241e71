// What the server knows about its model without asking the engine, which belongs to another thread; and the way from a
// checked request to the engine's requests. Everything here is read-only after open() and may be used by any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "lathe/chat/answer_parser.h"
#include "lathe/chat/chat_format.h"
#include "lathe/chat/conversation.h"
#include "lathe/constrain/constraint_cache.h"
#include "lathe/runtime/engine.h"
#include "lathe/server/api_request.h"
#include "lathe/tokenizer/chat_template.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe::server {

struct ServedModel {
  std::string id;                             // what clients call it
  const Tokenizer* tokenizer = nullptr;       // the engine's; never null
  std::optional<ChatTemplate> chat_template;  // nothing: a base model, which continues the text of messages
  ChatFormat chat_format;                     // of the template and the vocabulary
  std::vector<int32_t> special_markers;       // ids of markers that the vocabulary calls special
  int64_t context = 0;                        // positions of prompt and answer
  int64_t created = 0;                        // seconds since 1970
  int64_t longest_token = 1;                  // bytes
  RequestLimits limits;
  std::unique_ptr<ConstraintCache> constraints;  // never null; does its own locking

  // Reads what it needs from the engine, before that starts to work. Fails for a model without a tokenizer and for a
  // template file that does not compile.
  static Result<std::unique_ptr<const ServedModel>> open(const Engine& engine,
                                                         std::string id,
                                                         const std::optional<std::filesystem::path>& chat_template);

  // `given` as the template expects it: earlier tool calls in its form, tools described, the texts of BOS and EOS.
  Result<Conversation> complete_variables(const Json& given) const;

  // Whether the answer to a chat's prompt begins inside <think>.
  bool opens_reasoning(std::span<const int32_t> prompt) const;

  // The prompt of a chat as text and as ids.
  std::variant<std::string, ApiError> render(const Json& template_variables) const;
  std::variant<std::vector<int32_t>, ApiError> encode_chat_prompt(const Json& template_variables) const;
  // With `add_bos` as the tokenizer says. Special tokens in the text stay text.
  std::variant<std::vector<int32_t>, ApiError> encode_text(std::string_view text, bool add_bos) const;
};

// Requests for the engine, prompt by prompt, best_of for each; all but callbacks is set.
struct PreparedRequest {
  std::vector<Request> requests;
  std::vector<std::vector<int32_t>> prompts;  // ids of each prompt
  AnswerOptions answer;                       // chat: how to read the answers; without the seed of ids
};

// Renders, tokenizes, checks against the context and compiles schemas: the slow part of a request, done by a thread of
// its own.
std::variant<PreparedRequest, ApiError> prepare(const ServedModel& model, const GenerationRequest& request);

}  // namespace lathe::server
