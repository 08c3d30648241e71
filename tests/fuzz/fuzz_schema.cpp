// JSON schemas: what compiles leads to strict JSON, never into a dead end; what does not is refused with a clean
// message. The bytes behind a zero byte choose how the text goes on.
#include <vector>

#include "fuzz.h"
#include "lathe/base/json.h"
#include "lathe/constrain/grammar.h"
#include "lathe/constrain/recognizer.h"

using lathe::fuzz::require;

namespace {

// Small, so that an input takes milliseconds.
constexpr lathe::SchemaLimits kLimits = {.max_nodes = 2000,
                                         .max_states = 5000,
                                         .max_alternatives = 32,
                                         .max_branches = 200,
                                         .max_schemas = 16,
                                         .max_enum_bytes = 4096,
                                         .max_values = 500,
                                         .max_output_depth = 8,
                                         .max_work = 100'000,
                                         .max_pattern_work = 50'000};
constexpr size_t kMaxText = 300;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const lathe::Result<lathe::Json> schema = lathe::parse_json(lathe::fuzz::take_part(rest));
  if (!schema) return 0;
  const auto grammar = lathe::compile_json_schema(*schema, kLimits);
  if (!grammar) {
    lathe::fuzz::require_clean_message(grammar.error().message);
    return 0;
  }
  lathe::Recognizer recognizer(**grammar);
  int32_t set = recognizer.start();
  std::string text;
  for (const char choice : rest.substr(0, kMaxText)) {
    std::vector<uint8_t> next;
    for (int byte = 0; byte < 256; ++byte) {
      if (recognizer.step(set, static_cast<uint8_t>(byte)) != lathe::Recognizer::kDead) {
        next.push_back(static_cast<uint8_t>(byte));
      }
    }
    const bool complete = recognizer.set(set).complete;
    require(complete || !next.empty(), "a text that can neither end nor go on");
    if (complete) require(lathe::parse_json(text).has_value(), "a complete text that is no JSON");
    if (next.empty()) break;
    const uint8_t byte = next[static_cast<uint8_t>(choice) % next.size()];
    set = recognizer.step(set, byte);
    text += static_cast<char>(byte);
  }
  return 0;
}
