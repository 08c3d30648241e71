#include "lathe/attention/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lathe/base/check.h"

namespace lathe {

double yarn_correction_dim(double rotations, const RopeParameters& rope) {
  const double turns = rope.original_max_position_embeddings / (2.0 * std::numbers::pi * rotations);
  return static_cast<double>(rope.dim) * std::log(turns) / (2.0 * std::log(rope.theta));
}

YarnBounds yarn_bounds(const RopeParameters& rope) {
  YarnBounds bounds;
  bounds.low = std::max(std::floor(yarn_correction_dim(rope.beta_fast, rope)), 0.0);
  // n - 1, not n/2 - 1: the checkpoints' code clamps to the number of components although i counts pairs.
  bounds.high = std::min(std::ceil(yarn_correction_dim(rope.beta_slow, rope)), static_cast<double>(rope.dim - 1));
  if (bounds.low == bounds.high) bounds.high += 0.001;
  return bounds;
}

double yarn_ramp(int64_t pair, const YarnBounds& bounds) {
  return std::clamp((static_cast<double>(pair) - bounds.low) / (bounds.high - bounds.low), 0.0, 1.0);
}

double yarn_mscale(double factor, double mscale) {
  if (factor <= 1.0) return 1.0;
  return 0.1 * mscale * std::log(factor) + 1.0;
}

std::vector<double> rope_inv_freq(const RopeParameters& rope) {
  LATHE_CHECK(rope.dim >= 2 && rope.dim % 2 == 0, "dim ", rope.dim);
  LATHE_CHECK(rope.theta > 1.0 && rope.factor >= 1.0, "theta ", rope.theta, ", factor ", rope.factor);
  std::vector<double> inv_freq(static_cast<size_t>(rope.dim / 2));
  const YarnBounds bounds = rope.kind == RopeKind::kYarn ? yarn_bounds(rope) : YarnBounds{};
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const double plain = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope.dim));
    switch (rope.kind) {
      case RopeKind::kPlain:
        inv_freq[i] = plain;
        break;
      case RopeKind::kLinear:
        inv_freq[i] = plain / rope.factor;
        break;
      case RopeKind::kYarn: {
        const double ramp = yarn_ramp(static_cast<int64_t>(i), bounds);
        inv_freq[i] = plain * ((1.0 - ramp) + ramp / rope.factor);
        break;
      }
    }
  }
  return inv_freq;
}

double rope_cos_sin_factor(const RopeParameters& rope) {
  if (rope.kind != RopeKind::kYarn) return 1.0;
  return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
}

double rope_softmax_factor(const RopeParameters& rope) {
  if (rope.kind != RopeKind::kYarn || rope.mscale_all_dim == 0.0) return 1.0;
  const double g = yarn_mscale(rope.factor, rope.mscale_all_dim);
  return g * g;
}

double softmax_scale(int64_t qk_head_dim, const RopeParameters& rope) {
  LATHE_CHECK(qk_head_dim > 0, "qk_head_dim ", qk_head_dim);
  return rope_softmax_factor(rope) / std::sqrt(static_cast<double>(qk_head_dim));
}

RopeTable RopeTable::make(const RopeParameters& rope, int64_t table_positions) {
  LATHE_CHECK(table_positions >= 0, "table_positions ", table_positions);
  RopeTable table;
  table.inv_freq_ = rope_inv_freq(rope);
  table.factor_ = rope_cos_sin_factor(rope);
  const size_t pairs = table.inv_freq_.size();
  table.cos_.resize(static_cast<size_t>(table_positions) * pairs);
  table.sin_.resize(static_cast<size_t>(table_positions) * pairs);
  for (int64_t position = 0; position < table_positions; ++position) {
    const size_t row = static_cast<size_t>(position) * pairs;
    table.compute(position, table.cos_.data() + row, table.sin_.data() + row);
  }
  table.table_positions_ = table_positions;
  return table;
}

void RopeTable::cos_sin(int64_t position, float* cos, float* sin) const {
  LATHE_DCHECK(position >= 0, "position ", position);
  if (position >= table_positions_) {
    compute(position, cos, sin);
    return;
  }
  const size_t row = static_cast<size_t>(position) * inv_freq_.size();
  std::copy_n(cos_.data() + row, inv_freq_.size(), cos);
  std::copy_n(sin_.data() + row, inv_freq_.size(), sin);
}

void RopeTable::cos_sin_range(int64_t begin, int64_t count, std::span<float> cos, std::span<float> sin) const {
  const size_t pairs = inv_freq_.size();
  LATHE_CHECK(begin >= 0 && count >= 0, "begin ", begin, ", count ", count);
  LATHE_CHECK(cos.size() >= static_cast<size_t>(count) * pairs, "cos has ", cos.size());
  LATHE_CHECK(sin.size() >= static_cast<size_t>(count) * pairs, "sin has ", sin.size());
  for (int64_t i = 0; i < count; ++i) {
    const size_t row = static_cast<size_t>(i) * pairs;
    cos_sin(begin + i, cos.data() + row, sin.data() + row);
  }
}

void RopeTable::compute(int64_t position, float* cos, float* sin) const {
  for (size_t i = 0; i < inv_freq_.size(); ++i) {
    const double angle = static_cast<double>(position) * inv_freq_[i];
    cos[i] = static_cast<float>(std::cos(angle) * factor_);
    sin[i] = static_cast<float>(std::sin(angle) * factor_);
  }
}

}  // namespace lathe
