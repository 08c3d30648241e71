#include "lathe/train/report_runs.h"

#include <optional>
#include <system_error>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/train/model_setup.h"
#include "lathe/train/run_folder.h"
#include "lathe/train/run_log.h"
#include "lathe/train/variants.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRecord = "run.json";
constexpr std::string_view kLog = "metrics.jsonl";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Error missing(const fs::path& record, std::string_view member, std::string_view kind) {
  return {Errc::kInvalidData, str(record, ": ", member, ": expected ", kind, ", found none or another kind")};
}

Result<ReportRun> read_record(const fs::path& record) {
  LATHE_TRY(const Json json, read_json(record));
  const Json* recipe = json.find("recipe");
  const Json* config = json.find("config");
  const Json* parameters = json.find("parameters");
  const Json* statistics = json.find("statistics");
  if (recipe == nullptr || !recipe->is_object()) return missing(record, "recipe", "an object");
  if (config == nullptr || !config->is_object()) return missing(record, "config", "an object");
  if (parameters == nullptr || !parameters->is_int()) return missing(record, "parameters", "a whole number");
  Result<ParsedConfig> parsed = parse_config(*config);
  if (!parsed) return parsed.error().at(str(record, ": config"));
  return ReportRun{.name = {},
                   .recipe = *recipe,
                   .config = std::move(parsed->config),
                   .parameters = parameters->as_int(),
                   .statistics = statistics == nullptr ? Json() : *statistics,
                   .lines = {}};
}

// What can be told from the recipe alone: the vocabulary is that which it asks for.
Result<ReportRun> run_from_recipe(const Recipe& recipe) {
  LATHE_TRY(ModelSetup setup, set_up_model(recipe, nullptr));
  int64_t count = 0;
  for (const Parameter& parameter : model_parameters(setup.config)) count += parameter.size;
  return ReportRun{.name = {},
                   .recipe = recipe_json(recipe),
                   .config = std::move(setup.config),
                   .parameters = count,
                   .statistics = {},
                   .lines = {}};
}

// Nothing when the recipe has not been run yet.
Result<std::optional<ReportRun>> read_run(const Recipe& recipe) {
  const fs::path output = recipe.output;
  if (!is_there(output / kLog)) return std::optional<ReportRun>();
  LATHE_TRY(ReportRun run, is_there(output / kRecord) ? read_record(output / kRecord) : run_from_recipe(recipe));
  run.name = run_name(recipe);
  LATHE_TRY(run.lines, read_run_log(output / kLog));
  return std::optional<ReportRun>(std::move(run));
}

Error none_found(const Recipe& recipe) {
  return {Errc::kNotFound, str("output: ", recipe.output, ": expected a run with ", kLog, ", found none")};
}

// For runs without a record, whose configuration builds on that of an earlier variant, "@NAME".
void merge_fields(Recipe& recipe, std::span<const Recipe> earlier) {
  if (!recipe.model.from.starts_with('@')) return;
  for (const Recipe& other : earlier) {
    if (other.title != recipe.model.from.substr(1)) continue;
    Json fields = other.model.fields;
    for (const auto& [key, value] : recipe.model.fields.as_object()) fields.set(key, value);
    recipe.model.fields = std::move(fields);
    recipe.model.from = other.model.from;
    recipe.model.config = other.model.config;
    return;
  }
}

Result<RebuiltReport> rebuild_comparison(const Recipe& recipe, const Json& document) {
  LATHE_TRY(std::vector<Recipe> recipes, variant_recipes(recipe, document));
  RebuiltReport out{.path = fs::path(recipe.output) / "report.html", .names = {}};
  std::vector<ReportRun> runs;
  for (size_t i = 0; i < recipes.size(); ++i) {
    Recipe& own = recipes[i];
    merge_fields(own, std::span(recipes).first(i));
    Result<std::optional<ReportRun>> run = read_run(own);
    if (!run) return run.error().at(str("variant ", own.title));
    if (!*run) {
      log_warning("variant ", own.title, ": no ", kLog, " yet: not in the report");
      continue;
    }
    LATHE_TRY(write_report_file(own.output, own.title, std::span(&**run, 1)));
    out.names.push_back(own.title);
    runs.push_back(**std::move(run));
  }
  if (runs.empty()) return none_found(recipe);
  LATHE_TRY(write_report_file(recipe.output, comparison_title(recipe), runs));
  return out;
}

}  // namespace

Status write_run_record(const fs::path& output, const ReportRun& run, const Json& config) {
  Json record = Json::object();
  record.set("recipe", run.recipe);
  record.set("config", config);
  record.set("parameters", run.parameters);
  record.set("statistics", run.statistics);
  return write_file_atomically(output / kRecord, record.dump(2) + "\n");
}

Status write_report_file(const fs::path& output, std::string_view title, std::span<const ReportRun> runs) {
  return write_file_atomically(output / "report.html", html_report(title, runs));
}

Result<RebuiltReport> rebuild_report(const Recipe& recipe, const Json& document) {
  if (!recipe.variants.empty()) return rebuild_comparison(recipe, document);
  LATHE_TRY(const std::optional<ReportRun> run, read_run(recipe));
  if (!run) return none_found(recipe);
  LATHE_TRY(write_report_file(recipe.output, run->name, std::span(&*run, 1)));
  return RebuiltReport{.path = fs::path(recipe.output) / "report.html", .names = {run->name}};
}

}  // namespace lathe::train
