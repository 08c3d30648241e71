// Shows what the model expects after a text: example_next_token MODEL TEXT
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "lathe/lathe.h"

namespace {

// The five most likely next tokens of `text`, with their probabilities.
lathe::Expected<void> show(lathe::Model& model, const std::string& text) {
  const auto ids = model.tokenize(text, {.add_bos = true});
  if (!ids) return ids.error();
  const auto logits = model.logits(*ids, lathe::LogitRows::kLast);
  if (!logits) return logits.error();

  const std::span<const float> scores = logits->row(0);
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto best = [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  };
  const size_t shown = std::min<size_t>(5, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(), best);
  order.resize(shown);

  const double largest = scores[static_cast<size_t>(order.front())];
  double sum = 0.0;
  for (const float score : scores) sum += std::exp(score - largest);
  for (const int32_t id : order) {
    const auto token = model.detokenize(std::span(&id, 1), {.skip_special = false});
    if (!token) return token.error();
    std::printf(
        "%5.1f %%  \"%s\"\n", 100.0 * std::exp(scores[static_cast<size_t>(id)] - largest) / sum, token->c_str());
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]);
    return 2;
  }
  lathe::Expected<lathe::Model> model = lathe::Model::open(argv[1]);
  const lathe::Expected<void> done = model ? show(*model, argv[2]) : model.error();
  if (!done) std::fprintf(stderr, "%s\n", done.error().message.c_str());
  return done ? 0 : 1;
}
