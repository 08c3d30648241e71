// AnswerParser: the text of a model's answer in, its parts out as soon as they are certain: reasoning, content, tool
// calls. Nothing is given out that may turn out to be part of a marker. Never fails: calls that are malformed up to
// their arguments come out as content, exactly as they were written; arguments come out as they are, JSON or not.
//
// Feed it text with the markers in it, since some vocabularies mark them as special tokens (Request::visible_special).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/chat/chat_format.h"

namespace lathe {

struct AnswerOptions {
  ToolFormat tools = ToolFormat::kNone;  // kNone also when the request has no tools: then calls are content
  bool reasoning = false;                // split <think>...</think> off; otherwise it stays in the content
  bool reasoning_open = false;           // the prompt ended inside <think>; needs `reasoning`
  // Ids of tool calls are "call_", this, "_" and the call's index.
  std::string id_seed = {};
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
  std::string text = {};
  int32_t index = 0;  // of the tool call, from 0
  std::string id = {};
  std::string name = {};

  friend bool operator==(const AnswerEvent&, const AnswerEvent&) = default;
};

// State of one answer; not thread safe. However the text is cut into pieces, the events add up to the same. White space
// around reasoning, behind </think> and around arguments and calls is dropped.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerOptions options);

  // What became certain with this text. Adjacent pieces of one kind come as one event.
  std::vector<AnswerEvent> push(std::string_view text);
  // The rest at the end of the answer: a call that was cut off in its arguments ends as it is, one that was cut off
  // before them is content.
  std::vector<AnswerEvent> finish();

  // Whether what comes next is reasoning.
  bool in_reasoning() const { return place_ == Place::kReasoning; }

  // Whether reasoning is over, or there is none.
  bool past_reasoning() const { return place_ != Place::kStart && place_ != Place::kReasoning; }

 private:
  enum class Place {
    kStart,  // nothing but white space so far: a <think> may open
    kReasoning,
    kContent,
    kArguments,
    kAfterCall,  // the next call or the end of the calls
  };
  using Events = std::vector<AnswerEvent>;

  void run(bool at_end, Events& out);
  // Each takes what is certain from `pending_`; false when more text is needed.
  bool step(bool at_end, Events& out);
  bool start(bool at_end);
  bool reasoning(bool at_end, Events& out);
  bool content(bool at_end, Events& out);
  bool arguments(bool at_end, Events& out);
  bool after_call(bool at_end);
  void enter(Place place, size_t bytes);
  void emit(AnswerEvent::Kind kind, std::string_view text, Events& out) const;

  AnswerOptions options_;
  Place place_ = Place::kStart;
  bool trim_ = false;    // white space that comes now is dropped
  std::string pending_;  // not yet certain: at most a marker and white space, or the head of a call
  int32_t calls_ = 0;
};

// A whole message, put together from events.
struct AnswerMessage {
  struct ToolCall {
    std::string id;
    std::string name;
    std::string arguments;  // as the model wrote them
  };

  std::string reasoning;
  std::string content;
  std::vector<ToolCall> tool_calls;

  // Appends a piece where it belongs.
  void add(const AnswerEvent& event);
};

}  // namespace lathe
