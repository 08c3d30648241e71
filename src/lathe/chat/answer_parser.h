// AnswerParser: the text of a model's answer in, its parts out as soon as they are certain: reasoning, content, tool
// calls. Nothing is given out that may turn out to be part of a marker. Never fails: markup that is broken comes out as
// content, exactly as it was written.
//
// Feed it text with the special tokens in it (Tokenizer::decode with skip_special false, less the end-of-sequence
// token), since some vocabularies mark the markers as special.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/chat/tool_format.h"

namespace lathe {

struct AnswerOptions {
  ToolFormat tools = ToolFormat::kNone;  // kNone also when the request has no tools
  bool reasoning = false;                // split <think>...</think> off; otherwise it stays in the content
  bool reasoning_open = false;           // the prompt ended inside <think>; needs `reasoning`
  // Ids of tool calls are "call_" and a hash of this text and the call's index: unique if it is unique per choice of a
  // request, and the same when a request is repeated.
  std::string id_seed;
};

// One piece of an answer.
struct AnswerEvent {
  enum class Kind {
    kReasoning,  // text
    kContent,    // text
    kToolCall,   // a call begins: index, id, name; its arguments follow
    kArguments,  // index, text: the next piece of the arguments' JSON text
  };

  Kind kind = Kind::kContent;
  std::string text;
  int32_t index = 0;  // of the tool call, from 0
  std::string id;
  std::string name;

  friend bool operator==(const AnswerEvent&, const AnswerEvent&) = default;
};

// State of one answer; not thread safe. Memory: the held-back tail (a marker's length, or one tool name).
class AnswerParser {
 public:
  explicit AnswerParser(AnswerOptions options);

  // What became certain with this text. Adjacent pieces of one kind come as one event.
  std::vector<AnswerEvent> push(std::string_view text);
  // The rest at the end of the answer. An open tool call ends here as it is.
  std::vector<AnswerEvent> finish();

  // Tool calls begun so far; with one or more, the finish_reason is "tool_calls".
  int32_t tool_calls() const { return calls_; }

 private:
  enum class Place {
    kStart,  // nothing but white space so far: a <think> may open
    kReasoning,
    kAfterThink,  // white space after </think> is dropped
    kContent,
    kCallsBegin,  // after tool_calls_begin
    kType,        // V3: the type of a call
    kName,
    kFence,  // V3: after the name's newline, ```json expected
    kArguments,
    kAfterCall,  // after tool_call_end
    kDone,       // after tool_calls_end
  };

  bool step(bool at_end, std::vector<AnswerEvent>& out);
  void emit(AnswerEvent::Kind kind, std::string_view text, std::vector<AnswerEvent>& out) const;

  AnswerOptions options_;
  Place place_ = Place::kStart;
  std::string pending_;  // not yet certain
  int32_t calls_ = 0;
};

// A whole message, put together from events.
struct AnswerMessage {
  struct ToolCall {
    std::string id;
    std::string name;
    std::string arguments;  // JSON text as the model wrote it; not checked, see is_json_object()
  };

  std::string reasoning;
  std::string content;
  std::vector<ToolCall> tool_calls;

  void add(const AnswerEvent& event);
};

// Whether the text of a call's arguments is one strict JSON object. What is not is passed on as it is: the client sees
// what the model wrote.
bool is_json_object(std::string_view arguments);

}  // namespace lathe
