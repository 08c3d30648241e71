// One byte of options, one that says where to cut, the text of an answer. Cuts make no difference, and nothing is made
// up.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "fuzz.h"
#include "lathe/chat/answer_parser.h"
#include "lathe/chat/chat_format.h"

using lathe::AnswerEvent;
using lathe::fuzz::require;

namespace {

using Events = std::vector<AnswerEvent>;

lathe::AnswerOptions options_of(uint8_t bits) {
  constexpr std::array kFormats = {lathe::ToolFormat::kNone, lathe::ToolFormat::kV3, lathe::ToolFormat::kV31};
  return {.tools = kFormats.at(bits % kFormats.size()),
          .reasoning = (bits & 0x40) != 0,
          .reasoning_open = (bits & 0xC0) == 0xC0,
          .id_seed = "seed"};
}

void join(Events& into, Events events) {
  for (AnswerEvent& e : events) {
    require(e.kind == AnswerEvent::Kind::kToolCall ? !e.name.empty() && e.text.empty() : !e.text.empty(),
            "empty event");
    if (!into.empty() && into.back().kind == e.kind && e.kind != AnswerEvent::Kind::kToolCall) {
      into.back().text += e.text;
    } else {
      into.push_back(std::move(e));
    }
  }
}

Events parse(const lathe::AnswerOptions& options, std::string_view text, size_t piece) {
  lathe::AnswerParser parser(options);
  Events out;
  // Pieces of 1 to `piece` bytes, in a pattern without a small period.
  for (size_t i = 0; !text.empty(); ++i) {
    const size_t bytes = std::min(text.size(), 1 + (i * i * 7 + i) % piece);
    join(out, parser.push(text.substr(0, bytes)));
    text.remove_prefix(bytes);
  }
  join(out, parser.finish());
  return out;
}

// Whether the bytes of `part` stand in `text`, in this order.
bool is_subsequence(std::string_view part, std::string_view text) {
  size_t found = 0;
  for (const char c : text) {
    if (found < part.size() && part[found] == c) ++found;
  }
  return found == part.size();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const lathe::AnswerOptions options = options_of(data[0]);
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Events events = parse(options, text, std::max<size_t>(text.size(), 1));
  require(events == parse(options, text, 1 + data[1] % 32), "another cut, another answer");
  std::string all;
  for (const AnswerEvent& e : events) all += e.name + e.text;
  require(is_subsequence(all, text), "text that is not in the answer");
  if (options.tools == lathe::ToolFormat::kNone && !options.reasoning) require(all == text, "text is lost");
  lathe::detect_chat_format(text);
  return 0;
}
