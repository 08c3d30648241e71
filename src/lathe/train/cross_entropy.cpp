#include "lathe/train/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lathe {
namespace {

// Softmax of one row in place, its cross entropy, and with a factor the derivative in place of the row.
float row_loss(const TrainContext& c, const HeadArgs& args, int64_t token, float* row, bool gradient) {
  const int32_t target = args.targets[static_cast<size_t>(token)];
  const float logit = row[target];
  SoftmaxState state{-std::numeric_limits<float>::infinity(), 0.0F};
  c.kernels.softmax_step(row, args.vocab, args.vocab, 1.0F, state);
  if (gradient) {
    const double weight = args.weights.empty() ? 1.0 : static_cast<double>(args.weights[static_cast<size_t>(token)]);
    const auto factor = static_cast<float>(args.factor * weight);
    c.kernels.scale(row, factor / state.sum, args.vocab);
    row[target] -= factor;
  }
  return static_cast<float>(std::log(static_cast<double>(state.sum)) + (static_cast<double>(state.maximum) - logit));
}

}  // namespace

int64_t head_rows(int64_t vocab_size) {
  return std::clamp<int64_t>((int64_t{1} << 21) / std::max<int64_t>(vocab_size, 1), 32, 512);
}

double head_cross_entropy(const TrainContext& c, const HeadArgs& args) {
  const int64_t d = args.hidden;
  const int64_t V = args.vocab;
  const bool gradient = args.dx != nullptr;
  const auto tokens = static_cast<int64_t>(args.targets.size());
  std::ranges::fill(args.token_losses, 0.0F);
  const int64_t chunk = head_rows(V);
  std::vector<int64_t> counted;
  double loss = 0.0;
  for (int64_t t = 0; t < tokens;) {
    counted.clear();
    for (; t < tokens && static_cast<int64_t>(counted.size()) < chunk; ++t) {
      if (args.targets[static_cast<size_t>(t)] >= 0) {
        counted.push_back(t);
      } else if (gradient) {
        std::fill_n(args.dx + t * d, d, 0.0F);
      }
    }
    const auto rows = static_cast<int64_t>(counted.size());
    if (rows == 0) break;
    c.pool.run(rows, row_grain(d), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(args.x + counted[static_cast<size_t>(i)] * d, d, args.rows + i * d);
      }
    });
    linear_forward(c, {rows, d, V}, args.rows, args.head.value, args.logits, Sum::kStore);
    c.pool.run(rows, row_grain(V), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t token = counted[static_cast<size_t>(i)];
        args.token_losses[static_cast<size_t>(token)] = row_loss(c, args, token, args.logits + i * V, gradient);
      }
    });
    for (const int64_t token : counted) {
      const double weight = args.weights.empty() ? 1.0 : static_cast<double>(args.weights[static_cast<size_t>(token)]);
      loss += weight * args.token_losses[static_cast<size_t>(token)];
    }
    if (!gradient) continue;
    linear_weight_gradient(c, {rows, d, V}, args.logits, args.rows, args.head.gradient);
    linear_input_gradient(c, {rows, d, V}, args.logits, args.head.value, args.drows, Sum::kStore);
    c.pool.run(rows, row_grain(d), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(args.drows + i * d, d, args.dx + counted[static_cast<size_t>(i)] * d);
      }
    });
  }
  return loss;
}

void embedding_backward(
    const TrainContext& c, std::span<const int32_t> token_ids, const float* dx, int64_t hidden, float* gradient) {
  constexpr int64_t kUnit = 16;  // columns: threads never share a cache line
  c.pool.run((hidden + kUnit - 1) / kUnit, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kUnit;
    const int64_t count = std::min(end * kUnit, hidden) - first;
    for (size_t t = 0; t < token_ids.size(); ++t) {
      c.kernels.add(gradient + token_ids[t] * hidden + first, dx + static_cast<int64_t>(t) * hidden + first, count);
    }
  });
}

}  // namespace lathe
