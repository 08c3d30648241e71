#include "lathe/chat/answer_parser.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "lathe/base/begun_marker.h"
#include "lathe/base/str.h"
#include "lathe/chat/call_head.h"

namespace lathe {

namespace {

constexpr size_t kPieceBytes = 1024;
constexpr std::string_view kFence = "```";
// What ends arguments; a list that ends without the end of its last call ends that, too.
constexpr std::array<std::string_view, 2> kArgumentEnds = {kToolCallEnd, kToolCallsEnd};
constexpr std::array<std::string_view, 1> kThinkEnds = {kThinkEnd};

struct Found {
  size_t at = std::string_view::npos;
  std::string_view marker;
};

Found first_of(std::string_view text, std::span<const std::string_view> markers) {
  Found out;
  for (const std::string_view marker : markers) {
    if (const size_t at = text.find(marker); at < out.at) out = {.at = at, .marker = marker};
  }
  return out;
}

// `text` without the longest end that begins one of the markers.
std::string_view without_begun_marker(std::string_view text, std::span<const std::string_view> markers) {
  return text.substr(0, text.size() - begun_marker(text, markers));
}

// `text` without a closing fence and the white space around it.
std::string_view without_fence(std::string_view text) {
  std::string_view out = without_trailing_space(text);
  if (out.ends_with(kFence)) out = without_trailing_space(out.substr(0, out.size() - kFence.size()));
  return out;
}

// `text` without the longest end that may begin what closes arguments. Whatever closes them, every beginning of it is
// held back; so the cuts between pieces make no difference.
std::string_view without_begun_end(ToolFormat format, std::string_view text) {
  std::string_view out = without_trailing_space(without_begun_marker(text, kArgumentEnds));
  if (format != ToolFormat::kV3) return out;
  if (out.ends_with(kFence)) return without_trailing_space(out.substr(0, out.size() - kFence.size()));
  if (out.size() < text.size()) return out;
  while (out.ends_with('`')) out.remove_suffix(1);
  return without_trailing_space(out);
}

}  // namespace

AnswerParser::AnswerParser(AnswerOptions options) : options_(std::move(options)) {
  if (!options_.reasoning) {
    place_ = Place::kContent;
  } else if (options_.reasoning_open) {
    place_ = Place::kReasoning;
    trim_ = true;
  }
}

std::vector<AnswerEvent> AnswerParser::push(std::string_view text) {
  Events out;
  // In pieces, so that the time is linear in the text whatever it holds.
  for (; !text.empty(); text.remove_prefix(std::min(text.size(), kPieceBytes))) {
    pending_ += text.substr(0, kPieceBytes);
    run(/*at_end=*/false, out);
  }
  return out;
}

std::vector<AnswerEvent> AnswerParser::finish() {
  Events out;
  run(/*at_end=*/true, out);
  return out;
}

void AnswerParser::run(bool at_end, Events& out) {
  while (!pending_.empty() && step(at_end, out)) {
  }
}

bool AnswerParser::step(bool at_end, Events& out) {
  if (trim_) {
    pending_.erase(0, pending_.size() - without_leading_space(pending_).size());
    if (pending_.empty()) return false;
    trim_ = false;
  }
  switch (place_) {
    case Place::kStart:
      return start(at_end);
    case Place::kReasoning:
      return reasoning(at_end, out);
    case Place::kContent:
      return content(at_end, out);
    case Place::kArguments:
      return arguments(at_end, out);
    case Place::kAfterCall:
      return after_call(at_end);
  }
  return false;
}

// Goes on behind the first `bytes` of what is pending, and behind white space there.
void AnswerParser::enter(Place place, size_t bytes) {
  pending_.erase(0, bytes);
  place_ = place;
  trim_ = true;
}

bool AnswerParser::start(bool at_end) {
  const std::string_view rest = without_leading_space(pending_);
  if (rest.starts_with(kThinkBegin)) {
    enter(Place::kReasoning, pending_.size() - rest.size() + kThinkBegin.size());
    return true;
  }
  if (kThinkBegin.starts_with(rest) && !at_end) return false;
  place_ = Place::kContent;
  return true;
}

bool AnswerParser::reasoning(bool at_end, Events& out) {
  const std::string_view text = pending_;
  if (const size_t end = text.find(kThinkEnd); end != std::string_view::npos) {
    emit(AnswerEvent::Kind::kReasoning, without_trailing_space(text.substr(0, end)), out);
    enter(Place::kContent, end + kThinkEnd.size());
    return true;
  }
  const std::string_view certain = at_end ? text : without_trailing_space(without_begun_marker(text, kThinkEnds));
  emit(AnswerEvent::Kind::kReasoning, certain, out);
  pending_.erase(0, certain.size());
  return false;
}

bool AnswerParser::content(bool at_end, Events& out) {
  const std::string_view text = pending_;
  const bool calls = options_.tools != ToolFormat::kNone;
  const Found opener = calls ? first_of(text, call_openers()) : Found{};
  if (opener.at == std::string_view::npos) {
    const std::string_view certain = at_end || !calls ? text : without_begun_marker(text, call_openers());
    emit(AnswerEvent::Kind::kContent, certain, out);
    pending_.erase(0, certain.size());
    return false;
  }
  emit(AnswerEvent::Kind::kContent, text.substr(0, opener.at), out);
  pending_.erase(0, opener.at);
  CallHead head;
  const TextMatch match = match_call_head(options_.tools, pending_, head);
  if (match == TextMatch::kPartial && !at_end) return false;
  if (match != TextMatch::kYes) {
    emit(AnswerEvent::Kind::kContent, opener.marker, out);
    pending_.erase(0, opener.marker.size());
    return true;
  }
  out.push_back({.kind = AnswerEvent::Kind::kToolCall,
                 .index = calls_,
                 .id = str("call_", options_.id_seed, "_", calls_),
                 .name = std::move(head.name)});
  ++calls_;
  enter(Place::kArguments, head.bytes);
  return true;
}

bool AnswerParser::arguments(bool at_end, Events& out) {
  const std::string_view text = pending_;
  const bool fenced = options_.tools == ToolFormat::kV3;
  const auto whole = [fenced](std::string_view t) { return fenced ? without_fence(t) : without_trailing_space(t); };
  if (const Found end = first_of(text, kArgumentEnds); end.at != std::string_view::npos) {
    emit(AnswerEvent::Kind::kArguments, whole(text.substr(0, end.at)), out);
    enter(end.marker == kToolCallEnd ? Place::kAfterCall : Place::kContent, end.at + end.marker.size());
    return true;
  }
  const std::string_view certain = at_end ? whole(text) : without_begun_end(options_.tools, text);
  emit(AnswerEvent::Kind::kArguments, certain, out);
  pending_.erase(0, certain.size());
  return false;
}

bool AnswerParser::after_call(bool at_end) {
  if (pending_.starts_with(kToolCallsEnd)) {
    enter(Place::kContent, kToolCallsEnd.size());
    return true;
  }
  if (kToolCallsEnd.starts_with(pending_) && !at_end) return false;
  place_ = Place::kContent;
  return true;
}

void AnswerParser::emit(AnswerEvent::Kind kind, std::string_view text, Events& out) const {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == kind) {
    out.back().text += text;
    return;
  }
  const bool arguments = kind == AnswerEvent::Kind::kArguments;
  out.push_back({.kind = kind, .text = std::string(text), .index = arguments ? calls_ - 1 : 0});
}

void AnswerMessage::add(const AnswerEvent& event) {
  switch (event.kind) {
    case AnswerEvent::Kind::kReasoning:
      reasoning += event.text;
      break;
    case AnswerEvent::Kind::kContent:
      content += event.text;
      break;
    case AnswerEvent::Kind::kToolCall:
      tool_calls.push_back({.id = event.id, .name = event.name, .arguments = {}});
      break;
    case AnswerEvent::Kind::kArguments:
      if (!tool_calls.empty()) tool_calls.back().arguments += event.text;
      break;
  }
}

}  // namespace lathe
