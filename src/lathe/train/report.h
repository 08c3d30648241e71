// report.html: what happened in one run, or in several side by side, as one page without anything from elsewhere.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/model/config.h"

namespace lathe::train {

struct ReportRun {
  std::string name;
  Json recipe;  // recipe_json()
  ModelConfig config;
  int64_t parameters = 0;
  Json statistics;          // of the corpus
  std::vector<Json> lines;  // of metrics.jsonl
};

// Loss, learning rate, gradient norm, load of the experts, dropped assignments and the recipe of one run; for several
// also a table of final validation loss, cache per token, parameters and speed.
std::string html_report(std::string_view title, std::span<const ReportRun> runs);

}  // namespace lathe::train
