// lathe eval perplexity: perplexity of a text, also by position in the window.
#include <algorithm>
#include <cmath>

#include "lathe/base/file.h"
#include "lathe/base/svg_chart.h"
#include "lathe/cli/common.h"
#include "lathe/cli/eval_report.h"
#include "lathe/runtime/prompt.h"

namespace lathe::cli {

namespace {

struct NllSum {
  int64_t tokens = 0;  // predicted
  double nll = 0.0;    // nats, summed

  double mean() const { return tokens > 0 ? nll / static_cast<double>(tokens) : 0.0; }
};

struct Perplexity {
  NllSum all;
  int64_t bytes = 0;         // of the text that the predicted tokens spell
  std::vector<NllSum> bins;  // by the predicted token's position in its window
};

// The first position of bin `index` out of `count` over a window.
int64_t bin_begin(int64_t window, int64_t count, int64_t index) {
  return (window * index + count - 1) / count;
}

// The text in windows of `window` tokens that begin with BOS where the tokenizer adds one; every token of the text is
// predicted once, from what precedes it in its window. Windows do not overlap. `bins` may be 0.
Result<Perplexity> perplexity(
    Engine& engine, const std::vector<int32_t>& text, int64_t window, int64_t bins, bool quiet) {
  const Tokenizer& tokenizer = *engine.tokenizer();
  const bool bos = tokenizer.add_bos() && tokenizer.bos_id().has_value();
  const int64_t step = bos ? window - 1 : window;
  const auto total = static_cast<int64_t>(text.size());
  const auto vocab = static_cast<size_t>(engine.config().vocab_size);
  Perplexity sum;
  sum.bins.resize(static_cast<size_t>(bins));
  EvalProgress progress(quiet);
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
        const int64_t position = first + i + 1;
        const int32_t next = ids[static_cast<size_t>(position)];
        const double nll = log_sum_exp(row) - row[static_cast<size_t>(next)];
        finite = finite && std::isfinite(nll);
        sum.all.nll += nll;
        sum.all.tokens += 1;
        sum.bytes += static_cast<int64_t>(tokenizer.token_bytes(next).size());
        if (bins == 0) continue;
        NllSum& bin = sum.bins[static_cast<size_t>(position * bins / window)];
        bin.nll += nll;
        bin.tokens += 1;
      }
      return finite && SignalScope::caught() == 0;
    });
    LATHE_TRY(status);
    if (!finite) {
      return Error{Errc::kInvalidData,
                   str("logits: expected finite values, found others in tokens ", begin, " to ", end)};
    }
    if (SignalScope::caught() != 0) return Error{Errc::kCancelled, "perplexity: interrupted"};
    progress.show(end, total, str("perplexity ", fixed(std::exp(sum.all.mean()), 3)));
  }
  return sum;
}

Json bins_json(const Perplexity& result, int64_t window) {
  Json out = Json::array();
  const auto bins = static_cast<int64_t>(result.bins.size());
  for (int64_t i = 0; i < bins; ++i) {
    const NllSum& bin = result.bins[static_cast<size_t>(i)];
    Json entry = Json::object();
    entry.set("from", bin_begin(window, bins, i));
    entry.set("to", bin_begin(window, bins, i + 1));
    // A bin that no window reached has no mean.
    entry.set("nll", bin.tokens > 0 ? Json(bin.mean()) : Json());
    entry.set("perplexity", bin.tokens > 0 ? Json(std::exp(bin.mean())) : Json());
    entry.set("tokens", bin.tokens);
    out.push(std::move(entry));
  }
  return out;
}

std::string bins_text(const Perplexity& result, int64_t window) {
  std::string out;
  const auto bins = static_cast<int64_t>(result.bins.size());
  for (int64_t i = 0; i < bins; ++i) {
    const NllSum& bin = result.bins[static_cast<size_t>(i)];
    std::string range = str("  ", bin_begin(window, bins, i), " to ", bin_begin(window, bins, i + 1) - 1);
    range.resize(std::max<size_t>(range.size() + 2, 24), ' ');
    out += range;
    out += bin.tokens > 0 ? str(fixed(std::exp(bin.mean()), 4), " (", bin.tokens, " tokens)\n") : "none\n";
  }
  return out.empty() ? out : "perplexity by position in the window\n" + out;
}

Status write_bins(const EvalPerplexityOptions& o, const Perplexity& result, int64_t window) {
  if (o.out.empty()) return {};
  LineSeries series;
  const auto bins = static_cast<int64_t>(result.bins.size());
  for (int64_t i = 0; i < bins; ++i) {
    const NllSum& bin = result.bins[static_cast<size_t>(i)];
    series.x.push_back(static_cast<double>(bin_begin(window, bins, i) + bin_begin(window, bins, i + 1)) / 2.0);
    series.y.push_back(bin.tokens > 0 ? std::exp(bin.mean()) : std::nan(""));
  }
  const LineChart chart{.frame = {.title = "Perplexity by position in the window",
                                  .description = str("Windows of ", window, " tokens of a text, in ", bins, " bins"),
                                  .x_label = "position (tokens)",
                                  .y_label = "perplexity"},
                        .series = {std::move(series)}};
  const std::vector<std::string> notes = {str("Model: ", o.engine.model),
                                          str("Text: ", o.file, ", ", result.all.tokens, " tokens predicted"),
                                          str("Perplexity of all: ", fixed(std::exp(result.all.mean()), 4))};
  return write_pictures(o.out, "Perplexity by position", notes, {line_chart_svg(chart)});
}

Status eval_perplexity(const EvalPerplexityOptions& o) {
  LATHE_TRY(check_picture_path(o.out));
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
  if (o.by_position > window) {
    return Error{Errc::kInvalidArgument,
                 str("--by-position: expected at most one bin for each of ", window, " tokens, found ", o.by_position)};
  }
  const std::vector<int32_t> ids = engine->tokenizer()->encode(text, AddedTokens::kText);
  const SignalScope signals;
  LATHE_TRY(const Perplexity result, perplexity(*engine, ids, window, o.by_position, o.engine.quiet));
  if (result.all.tokens == 0) {
    return Error{Errc::kInvalidData,
                 str(o.file, ": expected at least one token to predict, found ", ids.size(), " tokens")};
  }
  LATHE_TRY(write_bins(o, result, window));
  const double mean = result.all.mean();
  const double bits_per_byte =
      result.bytes > 0 ? result.all.nll / std::log(2.0) / static_cast<double>(result.bytes) : 0.0;
  if (!o.engine.json) {
    return write_stdout(str("tokens         ",
                            result.all.tokens,
                            "\nnll            ",
                            fixed(mean, 6),
                            " nats per token\nperplexity     ",
                            fixed(std::exp(mean), 4),
                            "\nbits per byte  ",
                            fixed(bits_per_byte, 5),
                            "\n",
                            bins_text(result, window)));
  }
  Json out = Json::object();
  out.set("tokens", result.all.tokens);
  out.set("nll", mean);
  out.set("perplexity", std::exp(mean));
  out.set("bits_per_byte", bits_per_byte);
  if (o.by_position > 0) out.set("by_position", bins_json(result, window));
  return write_json(out);
}

}  // namespace

int run_eval_perplexity(const EvalPerplexityOptions& options) {
  const Status status = eval_perplexity(options);
  if (status) return kExitOk;
  if (status.error().code == Errc::kCancelled) return SignalScope::exit_code();
  return report(status.error());
}

}  // namespace lathe::cli
