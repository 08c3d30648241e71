// A recipe's data alone: tokenizer and token files as training makes them, and what is in them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/train/corpus.h"
#include "lathe/train/recipe.h"

namespace lathe::train {

// How much of what is trained on comes from one file of data.train, or from all of them when there are no weights.
struct MixtureShare {
  std::string name;
  double share = 1.0;   // of the tokens trained on
  int64_t tokens = 0;   // there are
  double passes = 0.0;  // over them
};

struct DataSummary {
  std::filesystem::path tokenizer;  // folder
  std::filesystem::path tokens;     // likewise
  Json statistics;                  // by set
  int64_t planned_tokens = 0;       // that the recipe trains on
  std::vector<MixtureShare> mixture;

  // What --json prints.
  Json json() const;
  // The same for people, in lines.
  std::string text() const;
};

// Prepares what run_recipe() would, which then finds it. Errors as there; kCancelled when `stop` says so. Of a recipe
// with variants the data of the recipe itself.
Result<DataSummary> prepare_data(const Recipe& recipe, const StopRequest& stop);

}  // namespace lathe::train
