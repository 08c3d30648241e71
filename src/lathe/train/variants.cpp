#include "lathe/train/variants.h"

#include <filesystem>
#include <utility>

#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/train/model_setup.h"
#include "lathe/train/report_runs.h"
#include "lathe/train/run_folder.h"
#include "lathe/train/trainer.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

// The recipe of one variant. `@NAME` in model.from stays as it is.
Result<Recipe> recipe_of(const Recipe& base, const Json& document, const Variant& variant) {
  Json own = document;
  std::erase_if(own.as_object(), [](const Json::Member& member) { return member.first == "variant"; });
  for (const auto& [key, value] : variant.set.as_object()) {
    const Status status = set_dotted(own, key, value);
    if (!status) return status.error().at(str("variant ", variant.name));
  }
  Result<Recipe> recipe = parse_recipe(own);
  if (!recipe) return recipe.error().at(str("variant ", variant.name));
  recipe->output = (fs::path(base.output) / variant.name).string();
  recipe->title = variant.name;
  if (recipe->data.cache.empty()) recipe->data.cache = data_folder(base).string();
  return recipe;
}

// Puts the checkpoint of an earlier variant in place of its name.
Status resolve_from(Recipe& recipe, const std::vector<VariantOutcome>& done) {
  if (!recipe.model.from.starts_with('@')) return {};
  for (const VariantOutcome& earlier : done) {
    if (earlier.name != recipe.model.from.substr(1)) continue;
    recipe.model.from = earlier.run.checkpoint.string();
    return {};
  }
  return Error{Errc::kInvalidArgument,
               str("variant ", recipe.title, ": model.from: expected an earlier variant, found ", recipe.model.from)};
}

// What can be known before the first run: keys, names, and the model where it does not start from another variant.
Status check_all(const std::vector<Recipe>& recipes) {
  std::vector<VariantOutcome> names;
  for (const Recipe& recipe : recipes) {
    Recipe copy = recipe;
    LATHE_TRY(resolve_from(copy, names));
    names.push_back({.name = recipe.title, .run = {}});
    if (recipe.model.from.starts_with('@')) continue;
    const Result<ModelSetup> setup = set_up_model(recipe, nullptr);
    if (!setup) return setup.error().at(str("variant ", recipe.title));
  }
  return {};
}

}  // namespace

Result<std::vector<Recipe>> variant_recipes(const Recipe& recipe, const Json& document) {
  std::vector<Recipe> out;
  for (const Variant& variant : recipe.variants) {
    LATHE_TRY(Recipe own, recipe_of(recipe, document, variant));
    out.push_back(std::move(own));
  }
  return out;
}

std::string comparison_title(const Recipe& recipe) {
  return recipe.title.empty() ? std::string("Comparison") : recipe.title;
}

Result<std::vector<VariantOutcome>> run_variants(const Recipe& recipe, const Json& document, const RunHooks& hooks) {
  LATHE_TRY(std::vector<Recipe> recipes, variant_recipes(recipe, document));
  LATHE_TRY(check_all(recipes));
  std::vector<VariantOutcome> done;
  std::vector<ReportRun> reports;
  for (Recipe& own : recipes) {
    log_info("variant ", own.title, " (", done.size() + 1, " of ", recipes.size(), ")");
    LATHE_TRY(resolve_from(own, done));
    ReportRun report;
    Result<RunOutcome> outcome = run_recipe(own, hooks, &report);
    if (!outcome) return outcome.error().at(str("variant ", own.title));
    done.push_back({.name = own.title, .run = *std::move(outcome)});
    reports.push_back(std::move(report));
    LATHE_TRY(write_report_file(recipe.output, comparison_title(recipe), reports));
    if (done.back().run.stopped) break;
  }
  return done;
}

}  // namespace lathe::train
