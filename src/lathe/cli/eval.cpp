// lathe eval: logits of every position, perplexity of a text.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/cli/common.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/runtime/prompt.h"

namespace lathe::cli {

namespace {

template <class T>
StoredTensor stored(const std::string& name,
                    DType dtype,
                    const std::vector<int64_t>& shape,
                    const std::vector<T>& values) {
  return {.name = name, .dtype = dtype, .shape = shape, .bytes = std::as_bytes(std::span(values))};
}

// The contract of `eval logits`: logits, and with --trace hidden, final_norm and routing per MoE layer.
Status eval_logits(const EvalLogitsOptions& o) {
  LATHE_TRY(const std::unique_ptr<Engine> engine, open_engine(o.engine));
  LATHE_TRY(const std::vector<int32_t> ids, parse_token_ids(o.token_ids));
  const ModelConfig& config = engine->config();
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<float> logits;
  ForwardTrace trace;
  LATHE_TRY(engine->score(
      ids,
      [&](int64_t, int64_t rows, const float* values) {
        logits.insert(logits.end(), values, values + rows * config.vocab_size);
        return true;
      },
      o.trace ? &trace : nullptr));
  std::vector<StoredTensor> tensors;
  tensors.push_back(stored("logits", DType::kF32, {tokens, config.vocab_size}, logits));
  std::vector<float> hidden;
  if (o.trace) {
    for (const std::vector<float>& layer : trace.hidden) hidden.insert(hidden.end(), layer.begin(), layer.end());
    const auto layers = static_cast<int64_t>(trace.hidden.size());
    tensors.push_back(stored("hidden", DType::kF32, {layers, tokens, config.hidden_size}, hidden));
    tensors.push_back(stored("final_norm", DType::kF32, {tokens, config.hidden_size}, trace.final_norm));
    for (size_t i = 0; i < trace.routing.size(); ++i) {
      if (trace.routing[i].experts.empty()) continue;
      const std::vector<int64_t> shape{tokens, config.num_experts_per_tok};
      tensors.push_back(stored(str("layer", i, ".router_idx"), DType::kI32, shape, trace.routing[i].experts));
      tensors.push_back(stored(str("layer", i, ".router_weight"), DType::kF32, shape, trace.routing[i].weights));
    }
  }
  LATHE_TRY(write_safetensors(o.out, tensors));
  if (!o.engine.json) return {};
  Json out = Json::object();
  out.set("out", o.out);
  out.set("tokens", tokens);
  out.set("vocab_size", config.vocab_size);
  return write_json(out);
}

struct Perplexity {
  int64_t tokens = 0;  // predicted
  double nll = 0.0;    // nats, summed
  int64_t bytes = 0;   // of the text that the predicted tokens spell
};

// A line on stderr now and then: on a terminal redrawn, in a log once in ten seconds.
class ProgressLine {
 public:
  explicit ProgressLine(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1) {}

  void show(int64_t done, int64_t total, const Perplexity& so_far) {
    const auto now = std::chrono::steady_clock::now();
    const double since = std::chrono::duration<double>(now - last_).count();
    if (quiet_ || (done < total && since < (terminal_ ? 0.2 : 10.0))) return;
    last_ = now;
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    const double rate = tokens_per_second(done, elapsed);
    const double left = rate > 0.0 ? static_cast<double>(total - done) / rate : 0.0;
    const std::string text =
        str(done,
            " of ",
            total,
            " tokens, ",
            fixed(rate, 0),
            " tok/s, perplexity ",
            fixed(std::exp(so_far.nll / static_cast<double>(std::max<int64_t>(so_far.tokens, 1))), 3),
            ", ",
            fixed(left, 0),
            " s left");
    if (!terminal_) {
      log_info(text);
      return;
    }
    (void)write_all(STDERR_FILENO, str("\r\x1b[K", text, done >= total ? "\n" : ""), "stderr");
  }

 private:
  bool quiet_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_;
};

// The text in windows of `window` tokens that begin with BOS where the tokenizer adds one; every token of the text is
// predicted once, from what precedes it in its window. Windows do not overlap.
Result<Perplexity> perplexity(Engine& engine, const std::vector<int32_t>& text, int64_t window, bool quiet) {
  const Tokenizer& tokenizer = *engine.tokenizer();
  const bool bos = tokenizer.add_bos() && tokenizer.bos_id().has_value();
  const int64_t step = bos ? window - 1 : window;
  const auto total = static_cast<int64_t>(text.size());
  const auto vocab = static_cast<size_t>(engine.config().vocab_size);
  Perplexity sum;
  ProgressLine progress(quiet);
  for (int64_t begin = 0; begin < total; begin += step) {
    const int64_t end = std::min(begin + step, total);
    std::vector<int32_t> ids;
    if (bos) ids.push_back(*tokenizer.bos_id());
    ids.insert(ids.end(), text.begin() + begin, text.begin() + end);
    if (ids.size() < 2) break;
    bool finite = true;
    const Status status = engine.score(ids, [&](int64_t first, int64_t rows, const float* logits) {
      for (int64_t i = 0; i < rows && first + i + 1 < static_cast<int64_t>(ids.size()); ++i) {
        const std::span<const float> row(logits + static_cast<size_t>(i) * vocab, vocab);
        const int32_t next = ids[static_cast<size_t>(first + i + 1)];
        const double nll = log_sum_exp(row) - row[static_cast<size_t>(next)];
        finite = finite && std::isfinite(nll);
        sum.nll += nll;
        sum.tokens += 1;
        sum.bytes += static_cast<int64_t>(tokenizer.token_bytes(next).size());
      }
      return finite && SignalScope::caught() == 0;
    });
    LATHE_TRY(status);
    if (!finite) {
      return Error{Errc::kInvalidData,
                   str("logits: expected finite values, found others in tokens ", begin, " to ", end)};
    }
    if (SignalScope::caught() != 0) return Error{Errc::kCancelled, "perplexity: interrupted"};
    progress.show(end, total, sum);
  }
  return sum;
}

Status eval_perplexity(const EvalPerplexityOptions& o) {
  LATHE_TRY(const std::unique_ptr<Engine> engine, open_engine(o.engine));
  if (engine->tokenizer() == nullptr) {
    return Error{Errc::kNotFound,
                 str(engine->weights().checkpoint().folder(), ": expected tokenizer.json, found none")};
  }
  LATHE_TRY(const std::string text, read_file(o.file, uint64_t{1} << 32));
  const int64_t window = o.window > 0 ? o.window : engine->context_size();
  if (window > engine->context_size()) {
    return Error{Errc::kInvalidArgument,
                 str("--ctx: expected at most the context size ", engine->context_size(), ", found ", window)};
  }
  const std::vector<int32_t> ids = engine->tokenizer()->encode(text, AddedTokens::kText);
  const SignalScope signals;
  LATHE_TRY(const Perplexity result, perplexity(*engine, ids, window, o.engine.quiet));
  if (result.tokens == 0) {
    return Error{Errc::kInvalidData,
                 str(o.file, ": expected at least one token to predict, found ", ids.size(), " tokens")};
  }
  const double mean = result.nll / static_cast<double>(result.tokens);
  const double bits_per_byte = result.bytes > 0 ? result.nll / std::log(2.0) / static_cast<double>(result.bytes) : 0.0;
  if (!o.engine.json) {
    return write_stdout(str("tokens         ",
                            result.tokens,
                            "\nnll            ",
                            fixed(mean, 6),
                            " nats per token\nperplexity     ",
                            fixed(std::exp(mean), 4),
                            "\nbits per byte  ",
                            fixed(bits_per_byte, 5),
                            "\n"));
  }
  Json out = Json::object();
  out.set("tokens", result.tokens);
  out.set("nll", mean);
  out.set("perplexity", std::exp(mean));
  out.set("bits_per_byte", bits_per_byte);
  return write_json(out);
}

}  // namespace

int run_eval_logits(const EvalLogitsOptions& options) {
  const Status status = eval_logits(options);
  return status ? kExitOk : report(status.error());
}

int run_eval_perplexity(const EvalPerplexityOptions& options) {
  const Status status = eval_perplexity(options);
  if (status) return kExitOk;
  if (status.error().code == Errc::kCancelled) return SignalScope::exit_code();
  return report(status.error());
}

}  // namespace lathe::cli
