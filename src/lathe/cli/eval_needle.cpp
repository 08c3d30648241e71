// lathe eval needle: passkey retrieval over context lengths and depths (paper, Figure 4).
#include <algorithm>
#include <numeric>

#include "lathe/base/file.h"
#include "lathe/base/svg_chart.h"
#include "lathe/cli/common.h"
#include "lathe/cli/eval_report.h"
#include "lathe/runtime/needle.h"
#include "lathe/runtime/prompt.h"

namespace lathe::cli {

namespace {

// Sums over the samples of a length and depth, or of all.
struct Cell {
  int64_t samples = 0;
  int64_t exact = 0;
  double reciprocal_rank = 0.0;
  double logprob = 0.0;
  int64_t prompt_tokens = 0;

  void add(const NeedlePrompt& prompt, const NeedleScore& score) {
    ++samples;
    exact += score.exact ? 1 : 0;
    reciprocal_rank += score.reciprocal_rank;
    logprob += score.logprob;
    prompt_tokens += static_cast<int64_t>(prompt.prompt.size());
  }

  double share(double sum) const { return sum / static_cast<double>(std::max<int64_t>(samples, 1)); }

  double exact_share() const { return share(static_cast<double>(exact)); }
};

struct Needle {
  bool chat = false;
  std::vector<int64_t> lengths;
  std::vector<int64_t> depths;
  std::vector<Cell> cells;  // [depths, lengths]
  Cell all;
};

std::vector<int64_t> sorted_set(std::vector<int64_t> values) {
  std::ranges::sort(values);
  const auto [begin, end] = std::ranges::unique(values);
  values.erase(begin, end);
  return values;
}

// The lengths asked for, or the figure's scaled to the context; refused when the model or the prompt cannot have them.
Result<std::vector<int64_t>> checked_lengths(const EvalNeedleOptions& o,
                                             const NeedlePrompts& prompts,
                                             int64_t context) {
  if (prompts.shortest() > context) {
    return Error{Errc::kInvalidArgument,
                 str("--ctx-size: expected at least ",
                     prompts.shortest(),
                     " tokens for question, key and some text around it, found ",
                     context)};
  }
  if (o.lengths.empty()) return needle_lengths(prompts.shortest(), context);
  std::vector<int64_t> lengths = sorted_set(o.lengths);
  if (lengths.front() < prompts.shortest()) {
    return Error{Errc::kInvalidArgument,
                 str("--lengths: expected at least ",
                     prompts.shortest(),
                     " tokens (question, key and some text around it), found ",
                     lengths.front())};
  }
  if (lengths.back() > context) {
    return Error{
        Errc::kInvalidArgument,
        str("--lengths: expected at most the context size ", context, " (see --ctx-size), found ", lengths.back())};
  }
  return lengths;
}

Result<Needle> measure(const EvalNeedleOptions& o, Engine& engine, const NeedlePrompts& prompts) {
  Needle needle;
  LATHE_TRY(needle.lengths, checked_lengths(o, prompts, engine.context_size()));
  needle.depths = o.depths.empty() ? needle_depths() : sorted_set(o.depths);
  needle.cells.resize(needle.lengths.size() * needle.depths.size());
  const auto per_length = static_cast<int64_t>(needle.depths.size()) * o.samples;
  const int64_t total = per_length * std::accumulate(needle.lengths.begin(), needle.lengths.end(), int64_t{0});
  int64_t done = 0;
  EvalProgress progress(o.engine.quiet);
  const auto proceed = [] { return SignalScope::caught() == 0; };
  for (size_t column = 0; column < needle.lengths.size(); ++column) {
    const int64_t length = needle.lengths[column];
    for (size_t row = 0; row < needle.depths.size(); ++row) {
      for (int64_t sample = 0; sample < o.samples; ++sample) {
        const double depth = static_cast<double>(needle.depths[row]) / 100.0;
        LATHE_TRY(const NeedlePrompt prompt, prompts.make(length, depth, sample));
        LATHE_TRY(const NeedleScore score, score_needle(engine, prompt, proceed));
        needle.cells[row * needle.lengths.size() + column].add(prompt, score);
        needle.all.add(prompt, score);
        done += length;
        progress.show(done, total, str(needle.all.exact, " of ", needle.all.samples, " keys found"));
      }
    }
  }
  return needle;
}

HeatMap heat_map(const Needle& needle, const std::string& title, const std::string& scale_label, const auto& value) {
  HeatMap map;
  map.frame = {.title = title, .x_label = "context length (tokens)", .y_label = "depth of the key (%)"};
  for (const int64_t length : needle.lengths) map.columns.push_back(str(length));
  for (const int64_t depth : needle.depths) map.rows.push_back(str(depth));
  for (const Cell& cell : needle.cells) map.values.push_back(value(cell));
  map.low = 0.0;
  map.high = 1.0;
  map.scale_label = scale_label;
  return map;
}

Status write_maps(const EvalNeedleOptions& o, const Needle& needle) {
  if (o.out.empty()) return {};
  const HeatMap exact =
      heat_map(needle, "Passkey retrieval", "share of keys found", [](const Cell& c) { return c.exact_share(); });
  const HeatMap rank = heat_map(needle, "Reciprocal rank of the key's tokens", "mean of 1 / rank", [](const Cell& c) {
    return c.share(c.reciprocal_rank);
  });
  const std::vector<std::string> notes = {
      str("Model: ", o.engine.model),
      str(needle.all.exact,
          " of ",
          needle.all.samples,
          " keys found, ",
          o.samples,
          " for each length and depth, seed ",
          o.seed),
      str("Prompts: ",
          needle.chat ? "a user's message in the model's chat template" : "plain text, ending where the key follows")};
  return write_pictures(o.out, "Passkey retrieval", notes, {heat_map_svg(exact), heat_map_svg(rank)});
}

Json needle_json(const EvalNeedleOptions& o, const Needle& needle) {
  Json out = Json::object();
  out.set("form", needle.chat ? "chat" : "plain");
  out.set("seed", static_cast<int64_t>(o.seed));
  out.set("samples", o.samples);
  out.set("lengths", Json::list(needle.lengths));
  out.set("depths", Json::list(needle.depths));
  const auto add_scores = [](Json& entry, const Cell& cell) {
    entry.set("exact", cell.exact_share());
    entry.set("reciprocal_rank", cell.share(cell.reciprocal_rank));
    entry.set("logprob", cell.share(cell.logprob));
  };
  add_scores(out, needle.all);
  Json cells = Json::array();
  for (size_t column = 0; column < needle.lengths.size(); ++column) {
    for (size_t row = 0; row < needle.depths.size(); ++row) {
      const Cell& cell = needle.cells[row * needle.lengths.size() + column];
      Json entry = Json::object();
      entry.set("length", needle.lengths[column]);
      entry.set("depth", needle.depths[row]);
      entry.set("prompt_tokens", cell.share(static_cast<double>(cell.prompt_tokens)));
      add_scores(entry, cell);
      cells.push(std::move(entry));
    }
  }
  out.set("cells", std::move(cells));
  return out;
}

std::string padded(const std::string& text, size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

// Depths down, lengths across: share of keys found, and below each other the mean of 1 / rank.
std::string needle_text(const Needle& needle) {
  std::string out = "keys found / mean of 1 / rank, by depth (%) and length (tokens)\n" + padded("", 5);
  for (const int64_t length : needle.lengths) out += padded(str(length), 12);
  out += '\n';
  for (size_t row = 0; row < needle.depths.size(); ++row) {
    out += padded(str(needle.depths[row]), 5);
    for (size_t column = 0; column < needle.lengths.size(); ++column) {
      const Cell& cell = needle.cells[row * needle.lengths.size() + column];
      out += padded(str(fixed(cell.exact_share(), 2), "/", fixed(cell.share(cell.reciprocal_rank), 2)), 12);
    }
    out += '\n';
  }
  return out + str("keys found       ",
                   needle.all.exact,
                   " of ",
                   needle.all.samples,
                   "\nreciprocal rank  ",
                   fixed(needle.all.share(needle.all.reciprocal_rank), 4),
                   "\nlog-probability  ",
                   fixed(needle.all.share(needle.all.logprob), 4),
                   " nats per token of the key\n");
}

Status eval_needle(const EvalNeedleOptions& o) {
  LATHE_TRY(check_picture_path(o.out));
  std::string filler;
  if (!o.file.empty()) {
    LATHE_TRY(filler, read_file(o.file, uint64_t{1} << 30));
    if (filler.empty()) return Error{Errc::kInvalidData, str(o.file, ": expected a text to hide a key in, found none")};
  }
  LATHE_TRY(const std::unique_ptr<Engine> engine, open_engine(o.engine));
  const Tokenizer* tokenizer = engine->tokenizer();
  if (tokenizer == nullptr) {
    return Error{Errc::kNotFound,
                 str(engine->weights().checkpoint().folder(), ": expected tokenizer.json, found none")};
  }
  std::optional<ChatTemplate> chat;
  if (!o.plain) {
    Result<ChatTemplate> opened = open_chat_template(*tokenizer, std::nullopt);
    if (opened) {
      chat.emplace(*std::move(opened));
    } else if (opened.error().code != Errc::kNotFound) {
      return opened.error();
    }
  }
  const SignalScope signals;
  LATHE_TRY(const NeedlePrompts prompts,
            NeedlePrompts::create(*tokenizer,
                                  {.seed = o.seed, .filler = std::move(filler), .chat = chat ? &*chat : nullptr}));
  LATHE_TRY(Needle needle, measure(o, *engine, prompts));
  needle.chat = chat.has_value();
  LATHE_TRY(write_maps(o, needle));
  return o.engine.json ? write_json(needle_json(o, needle)) : write_stdout(needle_text(needle));
}

}  // namespace

int run_eval_needle(const EvalNeedleOptions& options) {
  const Status status = eval_needle(options);
  if (status) return kExitOk;
  if (status.error().code == Errc::kCancelled) return SignalScope::exit_code();
  return report(status.error());
}

}  // namespace lathe::cli
