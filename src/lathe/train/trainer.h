// A training run from a recipe to its last checkpoint (docs/training.md): data, model, loop, evaluation, checkpoints,
// log and report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/train/corpus.h"
#include "lathe/train/recipe.h"
#include "lathe/train/report.h"

namespace lathe::train {

// After a step, for a line on a screen.
struct StepReport {
  int64_t step = 0;  // done, of
  int64_t max_steps = 0;
  int64_t tokens = 0;
  double loss = 0.0;  // nats per token
  double learning_rate = 0.0;
  double gradient_norm = 0.0;
  double tokens_per_s = 0.0;
  double seconds_left = 0.0;
  double load_ratio = 0.0;     // fullest expert over the mean, of the worst layer; 0 without experts
  double dropped_share = 0.0;  // of all assignments
  bool bad = false;            // the guard kept its update out
};

struct RunHooks {
  StopRequest stop;                             // asked after every step: the run then ends with a checkpoint
  std::function<void(const StepReport&)> step;  // null: none
  bool resume = false;
};

// How a run ended.
struct RunOutcome {
  int64_t steps = 0;
  int64_t tokens = 0;
  double train_loss = 0.0;  // mean of the last 20 steps
  double valid_loss = 0.0;  // of the last evaluation
  bool has_valid_loss = false;
  double tokens_per_s = 0.0;  // of this process, evaluation and checkpoints left out
  std::filesystem::path checkpoint;
  bool stopped = false;  // asked to, before its last step
};

// Runs a recipe without variants. Everything that can be refused is refused before work begins: a folder with an
// earlier run (unless resuming), one that is in use, files that cannot be read, memory and disk that do not suffice.
// `report`, when given, receives what the report of the run was made of.
Result<RunOutcome> run_recipe(const Recipe& recipe, const RunHooks& hooks, ReportRun* report = nullptr);

// One of several runs.
struct VariantOutcome {
  std::string name;
  RunOutcome run;
};

// Runs each variant of a recipe into OUTPUT/NAME with the token files of all in OUTPUT/data, then writes
// OUTPUT/report.html, which compares them. `document` is the table the recipe was parsed from. A variant's model.from
// may be "@NAME": the last checkpoint of an earlier variant. Every variant is checked before the first one begins. When
// resuming, finished variants stay as they are. After a stop the outcomes end with the stopped variant.
Result<std::vector<VariantOutcome>> run_variants(const Recipe& recipe, const Json& document, const RunHooks& hooks);

}  // namespace lathe::train
