// lathe train: a recipe to a checkpoint, with a line that says how far it is.
#include "lathe/base/log.h"
#include "lathe/cli/common.h"
#include "lathe/cli/progress.h"
#include "lathe/train/prepare.h"
#include "lathe/train/report_runs.h"
#include "lathe/train/trainer.h"

namespace lathe::cli {
namespace {

std::string step_text(const train::StepReport& r) {
  std::string out = str("step ",
                        r.step,
                        "/",
                        r.max_steps,
                        ", loss ",
                        fixed(r.loss, 4),
                        ", lr ",
                        fixed(r.learning_rate * 1e4, 3),
                        "e-4, grad ",
                        fixed(r.gradient_norm, 3),
                        ", ",
                        fixed(r.tokens_per_s, 0),
                        " tok/s");
  if (r.load_ratio > 0.0) out += str(", max load ", fixed(r.load_ratio, 2));
  if (r.dropped_share > 0.0) out += str(", dropped ", fixed(100.0 * r.dropped_share, 1), " %");
  if (r.bad) out += ", left out";
  return out + str(", ", clock_text(r.seconds_left), " left");
}

void show_step(StatusLine& line, const train::StepReport& report) {
  const bool last = report.step == report.max_steps;
  if (line.due(last)) line.show(step_text(report), last);
}

Json outcome_json(const train::RunOutcome& outcome) {
  Json out = Json::object();
  out.set("steps", outcome.steps);
  out.set("tokens", outcome.tokens);
  out.set("train_loss", outcome.train_loss);
  out.set("valid_loss", outcome.has_valid_loss ? Json(outcome.valid_loss) : Json());
  out.set("tokens_per_s", outcome.tokens_per_s);
  out.set("checkpoint", outcome.checkpoint.string());
  return out;
}

std::string outcome_text(const train::RunOutcome& outcome) {
  std::string out = str(
      outcome.steps, " steps, ", with_commas(outcome.tokens), " tokens, training loss ", fixed(outcome.train_loss, 4));
  if (outcome.has_valid_loss) out += str(", validation loss ", fixed(outcome.valid_loss, 4));
  return out + str(", ", fixed(outcome.tokens_per_s, 0), " tokens/s\n", outcome.checkpoint, "\n");
}

Status print_outcomes(const std::vector<train::VariantOutcome>& all, bool variants, bool json) {
  if (!json) {
    std::string text;
    for (const train::VariantOutcome& one : all) {
      text += str(variants ? one.name + ": " : std::string(), outcome_text(one.run));
    }
    return write_stdout(text);
  }
  if (!variants) return write_json(outcome_json(all.front().run));
  // The members of a single run are those of the last variant.
  Json out = outcome_json(all.back().run);
  Json list = Json::array();
  for (const train::VariantOutcome& one : all) {
    Json entry = Json::object();
    entry.set("name", one.name);
    const Json members = outcome_json(one.run);
    for (const auto& [key, value] : members.as_object()) entry.set(key, value);
    list.push(std::move(entry));
  }
  out.set("variants", std::move(list));
  return write_json(out);
}

bool stop_asked() {
  return SignalScope::caught() != 0;
}

Status prepare_only(const train::Recipe& recipe, bool json) {
  LATHE_TRY(const train::DataSummary summary, train::prepare_data(recipe, stop_asked));
  return json ? write_json(summary.json()) : write_stdout(summary.text());
}

Status report_only(const train::Recipe& recipe, const Json& document, bool json) {
  LATHE_TRY(const train::RebuiltReport report, train::rebuild_report(recipe, document));
  if (!json) return write_stdout(str(report.path, "\n"));
  Json out = Json::object();
  out.set("report", report.path.string());
  out.set("runs", Json::list(report.names));
  return write_json(out);
}

// Whether the run came to its end; else it was asked to stop and has saved where it is.
Result<bool> train_recipe(const TrainCommandOptions& o) {
  if (o.quiet) set_log_level(LogLevel::kWarning);
  Json document;
  LATHE_TRY(train::Recipe recipe, train::load_recipe(o.recipe, o.set, &document));
  if (o.threads > 0) {
    recipe.threads = o.threads;
    document.set("threads", o.threads);
  }
  if (o.prepare || o.report) {
    LATHE_TRY(o.prepare ? prepare_only(recipe, o.json) : report_only(recipe, document, o.json));
    return true;
  }
  StatusLine line(o.quiet);
  const train::RunHooks hooks{.stop = stop_asked,
                              .step = [&line](const train::StepReport& report) { show_step(line, report); },
                              .resume = o.resume};
  std::vector<train::VariantOutcome> outcomes;
  if (recipe.variants.empty()) {
    LATHE_TRY(train::RunOutcome outcome, train::run_recipe(recipe, hooks));
    outcomes.push_back({.name = {}, .run = std::move(outcome)});
  } else {
    LATHE_TRY(outcomes, train::run_variants(recipe, document, hooks));
  }
  LATHE_TRY(print_outcomes(outcomes, !recipe.variants.empty(), o.json));
  return !outcomes.back().run.stopped;
}

}  // namespace

int run_train(const TrainCommandOptions& options) {
  const SignalScope signals;
  const Result<bool> finished = train_recipe(options);
  if (finished) return *finished ? kExitOk : SignalScope::exit_code();
  if (finished.error().code == Errc::kCancelled && SignalScope::caught() != 0) return SignalScope::exit_code();
  return report(finished.error());
}

}  // namespace lathe::cli
