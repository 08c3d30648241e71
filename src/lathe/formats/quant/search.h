// The search for scales behind the encoders: given the values of one group of 16 or 32 elements, find the scale (and
// minimum) whose rounding loses least, by the weighted sum of squares. Everything is in units of the block, whose
// largest value is between 1 and 2.
#pragma once

#include <array>
#include <cstdint>

namespace lathe::quant {

// Most elements of a group.
inline constexpr int kMaxGroup = 32;

// Integers of a group, as floats.
struct alignas(16) Integers {
  std::array<float, kMaxGroup> q{};
};

// Values to encode, n a multiple of 4, and what the square of each one's error counts.
struct Group {
  const float* values = nullptr;
  const float* weights = nullptr;
  int n = 0;
};

// Weights for n values of a group. Errors of large values weigh more than of small ones: the outputs of trained models
// diverge less from the exact ones, though the plain sum of squares grows. How much more was measured
// (docs/numerics.md): half the mean square plus the square for Q4_0, root mean square plus magnitude for all others.
void weigh_by_magnitude(const float* values, int n, float* weights);
void weigh_by_square(const float* values, int n, float* weights);

// x is near scale q, with q from -levels to levels - 1 (the sign of `scale` is free, so the extreme may lie at
// -levels). Returns the scale; 0 when all values are 0.
float search_symmetric(const Group& group, float levels);

// x is near scale q + minimum, with q from 0 to levels and scale >= 0.
struct Affine {
  float scale = 0.0F;
  float minimum = 0.0F;
};

// With `negative`, the minimum is at most 0.
Affine search_affine(const Group& group, float levels, bool negative);

// Rounds x to the nearest q for a given scale and minimum, q clamped to [low, high]; a scale of 0 gives q = 0
// (clamped). Returns the weighted sum of squared errors.
float round_group(const Group& group, float scale, float minimum, float low, float high, Integers& out);

}  // namespace lathe::quant
