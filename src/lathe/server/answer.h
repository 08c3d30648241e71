// Answer: what becomes of one generation request: takes the updates of its job and gives the events of a stream, or in
// the end one document.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/chat/answer_parser.h"
#include "lathe/server/api_request.h"
#include "lathe/server/api_response.h"
#include "lathe/server/message_splitter.h"
#include "lathe/server/served_model.h"
#include "lathe/server/service.h"

namespace lathe::server {

class Answer {
 public:
  // `model` must outlive this. `prompts` are the ids of the prompts, `options` how to read the answers of a chat.
  Answer(const ServedModel& model,
         const GenerationRequest& request,
         const std::vector<std::vector<int32_t>>& prompts,
         const AnswerOptions& options);

  // Takes news in. With "stream": the events that they make, else nothing.
  std::string take(std::vector<Update> updates);

  // Every answer has ended, or one has failed.
  bool done() const { return error_.has_value() || finished_ == choices_.size(); }

  // Why it failed, if it did.
  const std::optional<ApiError>& error() const { return error_; }

  // After done() without an error: the last events of a stream, or the document.
  std::string end_of_stream() const;
  Json document() const;

  const Usage& usage() const { return usage_; }

  const Timings& timings() const { return timings_; }

  // Why each answer ended, as far as they have.
  std::vector<std::string> finish_reasons() const;

 private:
  struct Choice {
    MessageSplitter splitter;
    bool begun = false;  // stream: its first chunk is out
    std::string text = {};
    AnswerMessage message = {};
    std::vector<SampledToken> tokens = {};  // where log-probabilities or ids are wanted
    std::vector<SampledToken> prompt_tokens = {};
    int64_t text_offset = 0;
    double logprob = 0.0;  // of its tokens together
    int64_t made = 0;      // tokens
    std::string finish_reason = {};
  };

  void take_one(Update update, std::string& events);
  void finish(Choice& choice, size_t index, const Completion& completion);
  void add_chat_events(Choice& choice, size_t index, const Update& update, std::string& events);
  void add_completion_events(Choice& choice, size_t index, const Update& update, std::string& events);
  Json chunk(size_t index, Json payload, Json logprobs, const std::string& finish_reason) const;
  Json progress_chunk(size_t index, const PromptEvent& event) const;
  void add_token_ids(Json& chunk, const Update& update) const;
  // index: of the choice among all made; told: among those of the document.
  Json chat_choice(const Choice& choice, size_t index, int64_t told) const;
  Json completion_choice(const Choice& choice, size_t index, int64_t told) const;
  std::vector<size_t> best_choices() const;
  void add_extras(Json& out, const Choice& choice, size_t index) const;

  const ServedModel& model_;
  bool chat_;
  bool stream_;
  bool include_usage_;
  bool continuous_usage_;
  bool progress_;
  bool logprobs_;
  bool prompt_logprobs_;
  bool token_ids_;
  bool echo_;
  size_t n_;        // answers told per prompt
  size_t best_of_;  // answers made per prompt
  AnswerIdentity identity_;
  std::vector<std::string> prompt_texts_;         // with echo
  std::vector<std::vector<int32_t>> prompt_ids_;  // with return_token_ids
  std::vector<Choice> choices_;
  size_t finished_ = 0;
  Usage usage_;
  Timings timings_;
  std::optional<ApiError> error_;
};

}  // namespace lathe::server
