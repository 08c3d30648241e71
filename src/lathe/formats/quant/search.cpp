#include "lathe/formats/quant/search.h"

#include <cmath>
#include <cstring>

namespace lathe::quant {

namespace {

// Four floats of the compiler's own vector type: SSE2 and NEON without naming either.
using Four = float __attribute__((vector_size(16)));

Four load(const float* p) {
  Four out;
  std::memcpy(&out, p, sizeof out);
  return out;
}

Four all(float value) {
  return Four{value, value, value, value};
}

float sum(Four v) {
  return (v[0] + v[2]) + (v[1] + v[3]);
}

// Nearest integer, ties to even, of |x| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
Four nearest(Four x) {
  const Four shift = all(12582912.0F);
  return (x + shift) - shift;
}

Four clamped(Four x, Four low, Four high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// What is smaller than this part of the block's largest value is 0 in every format; its reciprocal is no problem.
constexpr float kNothing = 1e-9F;

constexpr float kStep = 0.1F;  // between candidates, in levels
// Candidates put the extreme up to one level outside the range, which clamps it, and up to 1.6 inside.
constexpr int kOutside = 10;
constexpr int kInside = 16;

float mean_square(const float* values, int n) {
  float squares = 0.0F;
  for (int i = 0; i < n; ++i) squares += values[i] * values[i];
  return squares / static_cast<float>(n);
}

}  // namespace

void weigh_by_magnitude(const float* values, int n, float* weights) {
  const float rms = std::sqrt(mean_square(values, n));
  for (int i = 0; i < n; ++i) weights[i] = rms + std::fabs(values[i]);
}

void weigh_by_square(const float* values, int n, float* weights) {
  const float half = 0.5F * mean_square(values, n);
  for (int i = 0; i < n; ++i) weights[i] = half + values[i] * values[i];
}

float search_symmetric(const Group& group, float levels) {
  float extreme = 0.0F;
  for (int i = 0; i < group.n; ++i) {
    if (std::fabs(group.values[i]) > std::fabs(extreme)) extreme = group.values[i];
  }
  if (std::fabs(extreme) < kNothing) return 0.0F;
  const Four low = all(-levels);
  const Four high = all(levels - 1.0F);
  float best = -1.0F;
  float scale = 0.0F;
  for (int k = -kOutside; k <= kInside; ++k) {
    const Four inverse = all((-levels + kStep * static_cast<float>(k)) / extreme);
    Four sum_xq = all(0.0F);
    Four sum_qq = all(0.0F);
    for (int i = 0; i < group.n; i += 4) {
      const Four x = load(group.values + i);
      const Four q = clamped(nearest(x * inverse), low, high);
      const Four wq = load(group.weights + i) * q;
      sum_xq += wq * x;
      sum_qq += wq * q;
    }
    // The best scale for these q is xq / qq, and takes xq^2 / qq off the error.
    const float xq = sum(sum_xq);
    const float qq = sum(sum_qq);
    if (qq <= 0.0F) continue;
    const float gain = xq * xq / qq;
    if (gain > best) {
      best = gain;
      scale = xq / qq;
    }
  }
  return scale;
}

Affine search_affine(const Group& group, float levels, bool negative) {
  float least = group.values[0];
  float most = group.values[0];
  float sum_x = 0.0F;
  float sum_w = 0.0F;
  for (int i = 0; i < group.n; ++i) {
    const float x = group.values[i];
    least = std::fmin(least, x);
    most = std::fmax(most, x);
    sum_x += group.weights[i] * x;
    sum_w += group.weights[i];
  }
  if (negative) least = std::fmin(least, 0.0F);
  if (most - least < kNothing) return {0.0F, least};  // one value, or nothing above 0
  const Four zero = all(0.0F);
  const Four high = all(levels);
  Affine best{(most - least) / levels, least};
  float best_gain = -1.0F;
  for (int k = -kOutside; k <= kInside; ++k) {
    const Four inverse = all((levels - kStep * static_cast<float>(k)) / (most - least));
    const Four from = all(least);
    Four total_q = zero;
    Four total_qq = zero;
    Four total_xq = zero;
    for (int i = 0; i < group.n; i += 4) {
      const Four x = load(group.values + i);
      const Four q = clamped(nearest((x - from) * inverse), zero, high);
      const Four wq = load(group.weights + i) * q;
      total_q += wq;
      total_qq += wq * q;
      total_xq += wq * x;
    }
    const float sum_q = sum(total_q);
    const float sum_qq = sum(total_qq);
    const float sum_xq = sum(total_xq);
    // Least squares for x ~ scale q + minimum; the gain is what it takes off the weighted sum of x^2.
    const float determinant = sum_w * sum_qq - sum_q * sum_q;
    if (!(determinant > 0.0F)) continue;
    Affine fit{(sum_w * sum_xq - sum_x * sum_q) / determinant, (sum_qq * sum_x - sum_q * sum_xq) / determinant};
    if (negative && fit.minimum > 0.0F) fit = {sum_xq / sum_qq, 0.0F};
    const float gain = fit.scale * sum_xq + fit.minimum * sum_x;
    if (fit.scale > 0.0F && gain > best_gain) {
      best_gain = gain;
      best = fit;
    }
  }
  return best;
}

float round_group(const Group& group, float scale, float minimum, float low, float high, Integers& out) {
  const Four s = all(scale);
  const Four inverse = all(scale != 0.0F ? 1.0F / scale : 0.0F);
  const Four m = all(minimum);
  const Four bottom = all(low);
  const Four top = all(high);
  Four error = all(0.0F);
  for (int i = 0; i < group.n; i += 4) {
    const Four x = load(group.values + i);
    const Four q = nearest(clamped((x - m) * inverse, bottom, top));
    const Four off = x - (s * q + m);
    error += load(group.weights + i) * off * off;
    std::memcpy(out.q.data() + i, &q, sizeof q);
  }
  return sum(error);
}

}  // namespace lathe::quant
