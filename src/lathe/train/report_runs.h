// report.html from what runs have written: metrics.jsonl, and run.json, which a run writes when it begins. Neither a
// checkpoint nor the data are needed.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/train/recipe.h"
#include "lathe/train/report.h"

namespace lathe::train {

// OUTPUT/run.json: recipe, config.json of the model, its parameters, statistics of the data.
Status write_run_record(const std::filesystem::path& output, const ReportRun& run, const Json& config);

// OUTPUT/report.html.
Status write_report_file(const std::filesystem::path& output, std::string_view title, std::span<const ReportRun> runs);

struct RebuiltReport {
  std::filesystem::path path;      // of the report, of the comparison when there are variants
  std::vector<std::string> names;  // of the runs in it
};

// Writes the report of a recipe's run anew, or of each variant that has run and their comparison; may be called while
// they run. Where there is no run.json (of runs before there was such a file) the recipe says what the model was, and
// the corpus is left out. `document` is the table the recipe was parsed from. kNotFound without a metrics.jsonl.
Result<RebuiltReport> rebuild_report(const Recipe& recipe, const Json& document);

}  // namespace lathe::train
