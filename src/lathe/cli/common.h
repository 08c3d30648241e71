// What the subcommands share: exit codes, opening a model with its plan and warnings printed, output that notices a
// full disk, signals that end an answer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/cli/options.h"
#include "lathe/model/generation_defaults.h"
#include "lathe/runtime/engine.h"

namespace lathe::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNoRoom = 3;  // the memory plan does not fit

// Prints `lathe: error: ...` and gives the exit code that belongs to the error.
int report(const Error& error);
// The exit code alone.
int exit_code(const Error& error);

// Writes to stdout; a failure (full disk, closed pipe) is an error.
Status write_stdout(std::string_view text);
Status write_json(const Json& json);  // pretty, with a newline

// The folder of `model`: the embedded default model when empty, else resolve_model().
Result<std::filesystem::path> model_folder(const std::string& model);

// "f16", "bf16" or "f32"; nothing for an empty text.
Result<std::optional<CacheFormat>> parse_cache_type(const std::string& text);

// Says on stderr what the model will take.
void log_plan(const MemoryPlan& plan);

// Opens the model; prints warnings, and the memory plan unless quiet, to stderr. `adjust` sets what is no flag.
Result<std::unique_ptr<Engine>> open_engine(const EngineFlags& flags,
                                            const std::function<void(EngineOptions&)>& adjust = {});

// Flags over the model's generation_config.json. A model whose defaults say do_sample=false is greedy unless told
// otherwise.
Result<SamplingParams> sampling_params(const SamplingFlags& flags, const GenerationDefaults& defaults);

// "1,2,3" or "@FILE.json" (a JSON array of integers).
Result<std::vector<int32_t>> parse_token_ids(const std::string& text);

// All of stdin.
Result<std::string> read_stdin();

// Speeds and counts of a finished answer, e.g. for stderr: "28 prompt tokens, 812.3 tok/s; 120 tokens, 1503.1 tok/s".
std::string describe_speed(const Completion& completion);

// Tokens per second; 0 when nothing was measured.
double tokens_per_second(int64_t tokens, double seconds);

// SIGINT and SIGTERM set a flag instead of ending the process while this object lives.
class SignalScope {
 public:
  SignalScope();
  SignalScope(const SignalScope&) = delete;
  SignalScope& operator=(const SignalScope&) = delete;
  ~SignalScope();

  static int caught();  // the signal, or 0
  static void reset();
  static int exit_code();  // 130 or 143 for the signal caught
};

}  // namespace lathe::cli
