#include "lathe/train/adamw.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace lathe {
namespace {

constexpr int64_t kBlockFloats = 1 << 16;   // of the norm's sums
constexpr int64_t kNormLanes = 8;           // sums of a block; all parameters together are a multiple
constexpr int64_t kUpdateFloats = 1 << 12;  // of an update's parts, a multiple of a vector and of a cache line

}  // namespace

Result<AdamW> AdamW::create(const AdamWOptions& options, int64_t size, ThreadPool& pool, const KernelTable& kernels) {
  AdamW out;
  out.options_ = options;
  out.pool_ = &pool;
  out.kernels_ = &kernels;
  out.size_ = size;
  LATHE_TRY(out.memory_, Workspace::create(2 * Workspace::padded(size)));
  out.first_ = out.memory_.take(size);
  out.second_ = out.memory_.take(size);
  std::fill_n(out.first_, size, 0.0F);
  std::fill_n(out.second_, size, 0.0F);
  return out;
}

void AdamW::step(ParameterSet& parameters, double learning_rate, double gradient_factor) {
  ++steps_;
  const auto t = static_cast<double>(steps_);
  AdamwArgs all{.gradient_factor = static_cast<float>(gradient_factor),
                .beta1 = static_cast<float>(options_.beta1),
                .beta2 = static_cast<float>(options_.beta2),
                .rest1 = static_cast<float>(1.0 - options_.beta1),
                .rest2 = static_cast<float>(1.0 - options_.beta2),
                .correction1 = static_cast<float>(1.0 / (1.0 - std::pow(options_.beta1, t))),
                .correction2 = static_cast<float>(1.0 / (1.0 - std::pow(options_.beta2, t))),
                .learning_rate = static_cast<float>(learning_rate),
                .epsilon = static_cast<float>(options_.epsilon)};
  // All parameters as one row of floats, divided evenly: there are many small ones.
  const int64_t blocks = (parameters.size() + kUpdateFloats - 1) / kUpdateFloats;
  pool_->run(blocks, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kUpdateFloats;
    const int64_t last = end * kUpdateFloats;
    const std::span<const Parameter> list = parameters.list();
    auto p = std::ranges::upper_bound(list, first, {}, [](const Parameter& q) { return q.offset + q.size; });
    for (; p != list.end() && p->offset < last; ++p) {
      if (p->hidden && !options_.hidden_matrices) continue;
      const int64_t from = std::max(first, p->offset);
      AdamwArgs part = all;
      part.value = parameters.values().data() + from;
      part.gradient = parameters.gradients().data() + from;
      part.first = first_ + from;
      part.second = second_ + from;
      part.n = std::min(last, p->offset + p->size) - from;
      part.decay = p->decay ? static_cast<float>(options_.weight_decay) : 0.0F;
      kernels_->adamw(part);
    }
  });
}

double AdamW::global_norm(const ParameterSet& parameters) const {
  const std::span<const float> gradients = parameters.gradients();
  const int64_t blocks = (parameters.size() + kBlockFloats - 1) / kBlockFloats;
  std::vector<double> sums(static_cast<size_t>(blocks));
  pool_->run(blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t last = std::min((block + 1) * kBlockFloats, parameters.size());
      double lanes[kNormLanes] = {};
      for (int64_t i = block * kBlockFloats; i < last; i += kNormLanes) {
        const float* some = gradients.data() + i;
        for (int64_t lane = 0; lane < kNormLanes; ++lane) {
          const double g = some[lane];
          lanes[lane] += g * g;
        }
      }
      double sum = 0.0;
      for (const double lane : lanes) sum += lane;
      sums[static_cast<size_t>(block)] = sum;
    }
  });
  double sum = 0.0;
  for (const double block : sums) sum += block;
  return std::sqrt(sum);
}

double AdamW::clip_factor(double norm, double max_norm) {
  return max_norm > 0.0 && norm > max_norm ? max_norm / norm : 1.0;
}

}  // namespace lathe
