// From text files to token files: trains the tokenizer where the recipe wants one, filters, tokenises, and keeps the
// result under a name that depends on everything that went in, so that the next run finds it.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/tokenizer/tokenizer.h"
#include "lathe/train/loader.h"
#include "lathe/train/recipe.h"

namespace lathe::train {

// Asked now and then during long work; true ends it with kCancelled.
using StopRequest = std::function<bool()>;

// A folder with tokenizer.json and tokenizer_config.json that the recipe's model uses.
struct PreparedTokenizer {
  std::filesystem::path folder;
  Tokenizer tokenizer;
};

// tokenizer.path, or that of model.from, or one trained on data.train (below `cache`, made once).
Result<PreparedTokenizer> prepare_tokenizer(const Recipe& recipe,
                                            const std::filesystem::path& cache,
                                            const StopRequest& stop);

struct PreparedCorpus {
  std::filesystem::path folder;  // whose name depends on the content of everything that went in
  std::vector<TokenSet> train;   // one per file when data.weights is given, else one in all
  TokenSet valid;                // no documents without data.valid
  Json statistics;               // by set: what the filters left out, bytes per token, document lengths, ...

  std::string name() const { return folder.filename().string(); }
};

// Documents become BOS (where the tokenizer has one), text, EOS. Validation documents go through the same filters, and
// first, so that a training document that copies one is left out. Every file is checked before any is read.
Result<PreparedCorpus> prepare_corpus(const Recipe& recipe,
                                      const PreparedTokenizer& tokenizer,
                                      const std::filesystem::path& cache,
                                      const StopRequest& stop);

}  // namespace lathe::train
