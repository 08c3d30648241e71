#include "lathe/train/prepare.h"

#include <algorithm>
#include <numeric>

#include "lathe/base/str.h"
#include "lathe/train/corpus_statistics.h"
#include "lathe/train/run_folder.h"
#include "lathe/train/schedule.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

std::vector<MixtureShare> mixture_of(const Recipe& recipe, const PreparedCorpus& corpus, int64_t planned_tokens) {
  const std::vector<double>& weights = recipe.data.weights;
  const double sum = weights.empty() ? 1.0 : std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<MixtureShare> out;
  for (size_t i = 0; i < corpus.train.size(); ++i) {
    MixtureShare share{
        .name = weights.empty() ? std::string("all files") : fs::path(recipe.data.train[i]).filename().string(),
        .share = weights.empty() ? 1.0 : weights[i] / sum,
        .tokens = corpus.train[i].tokens()};
    share.passes =
        share.share * static_cast<double>(planned_tokens) / static_cast<double>(std::max<int64_t>(share.tokens, 1));
    out.push_back(std::move(share));
  }
  return out;
}

}  // namespace

Json DataSummary::json() const {
  Json out = Json::object();
  out.set("tokenizer", tokenizer.string());
  out.set("tokens", tokens.string());
  out.set("statistics", statistics);
  out.set("planned_tokens", planned_tokens);
  Json shares = Json::array();
  for (const MixtureShare& one : mixture) {
    Json share = Json::object();
    share.set("name", one.name);
    share.set("share", one.share);
    share.set("tokens", one.tokens);
    share.set("passes", one.passes);
    shares.push(std::move(share));
  }
  out.set("mixture", std::move(shares));
  return out;
}

std::string DataSummary::text() const {
  std::string out = statistics_text(statistics);
  out += str("training on ", with_commas(planned_tokens), " tokens:\n");
  for (const MixtureShare& one : mixture) {
    out += str("  ",
               one.name,
               ": ",
               fixed(100.0 * one.share, 1),
               " %, ",
               fixed(one.passes, 2),
               " passes over ",
               with_commas(one.tokens),
               " tokens\n");
  }
  return out + str(tokens, "\n");
}

Result<DataSummary> prepare_data(const Recipe& recipe, const StopRequest& stop) {
  LATHE_TRY(const FileLock lock, lock_run_folder(recipe.output));
  const fs::path cache = data_folder(recipe);
  LATHE_TRY(const PreparedTokenizer tokenizer, prepare_tokenizer(recipe, cache, stop));
  LATHE_TRY(const PreparedCorpus corpus, prepare_corpus(recipe, tokenizer, cache, stop));
  const int64_t planned = Schedule(recipe).total_tokens();
  return DataSummary{.tokenizer = tokenizer.folder,
                     .tokens = corpus.folder,
                     .statistics = corpus.statistics,
                     .planned_tokens = planned,
                     .mixture = mixture_of(recipe, corpus, planned)};
}

}  // namespace lathe::train
