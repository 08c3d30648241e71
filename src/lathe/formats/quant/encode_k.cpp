// The formats of 256 elements: Q4_K, Q5_K, Q6_K. Each sub-block gets its own best scale first; these are rounded to
// multiples of a common one. Then small changes of the multiples, and the common scales by least squares, are tried in
// turn for as long as the error falls.
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "lathe/formats/quant/block_scale.h"
#include "lathe/formats/quant/encoders.h"
#include "lathe/formats/quant/search.h"

namespace lathe::quant {

namespace {

constexpr int kElements = 256;
constexpr int kRounds = 3;  // of changing multiples and common scales

struct alignas(16) Values {
  std::array<float, kElements> v{};
  std::array<float, kElements> w{};  // what their errors count

  void weigh(int size) {
    for (int i = 0; i < kElements; i += size) weigh_by_magnitude(v.data() + i, size, w.data() + i);
  }

  Group group(int index, int size) const {
    const ptrdiff_t at = static_cast<ptrdiff_t>(index) * size;
    return {v.data() + at, w.data() + at, size};
  }
};

float rounded(float x) {
  return std::nearbyintf(x);
}

// Q4_K and Q5_K ---------------------------------------------------------------------------------------------------

constexpr int kAffineGroups = 8;
constexpr int kAffineSize = 32;
constexpr float kMostMultiple = 63.0F;

struct AffineBlock {
  uint16_t d = 0;
  uint16_t dmin = 0;
  std::array<float, kAffineGroups> scales{};  // multiples of d
  std::array<float, kAffineGroups> minima{};  // multiples of dmin, to be subtracted
  std::array<Integers, kAffineGroups> q;
  float error = 0.0F;
};

// The best multiples near the wanted ones, for given common scales.
void choose_multiples(const Values& x, const Unit& unit, float levels, std::span<const Affine> wanted, AffineBlock& b) {
  const float d = unit.from_f16(b.d);
  const float dmin = unit.from_f16(b.dmin);
  b.error = 0.0F;
  for (int j = 0; j < kAffineGroups; ++j) {
    const auto at = static_cast<size_t>(j);
    const Group group = x.group(j, kAffineSize);
    const float scale = d > 0.0F ? std::clamp(rounded(wanted[at].scale / d), 0.0F, kMostMultiple) : 0.0F;
    const float minimum = dmin > 0.0F ? std::clamp(rounded(-wanted[at].minimum / dmin), 0.0F, kMostMultiple) : 0.0F;
    float best = -1.0F;
    for (int near = 0; near < 9; ++near) {
      const int ds = near / 3 - 1;
      const int dm = near % 3 - 1;
      const float s = scale + static_cast<float>(ds);
      const float m = minimum + static_cast<float>(dm);
      if (s < 0.0F || m < 0.0F || s > kMostMultiple || m > kMostMultiple) continue;
      Integers q;
      const float error = round_group(group, d * s, -(dmin * m), 0.0F, levels, q);
      if (best >= 0.0F && error >= best) continue;
      best = error;
      b.scales[at] = s;
      b.minima[at] = m;
      b.q[at] = q;
    }
    b.error += best;
  }
}

// Common scales by least squares for the integers and multiples of b: x ~ d (s q) - dmin m.
bool fit_common(const Values& x, const AffineBlock& b, float& d, float& dmin) {
  double aa = 0.0;
  double ab = 0.0;
  double bb = 0.0;
  double ax = 0.0;
  double bx = 0.0;
  for (int i = 0; i < kElements; ++i) {
    const auto j = static_cast<size_t>(i / kAffineSize);
    const double value = x.v[static_cast<size_t>(i)];
    const double a = b.scales[j] * b.q[j].q[static_cast<size_t>(i % kAffineSize)];
    const double m = -b.minima[j];
    const double w = x.w[static_cast<size_t>(i)];
    aa += w * a * a;
    ab += w * a * m;
    bb += w * m * m;
    ax += w * a * value;
    bx += w * m * value;
  }
  const double determinant = aa * bb - ab * ab;
  if (determinant > 1e-6 * aa * bb) {
    d = static_cast<float>((ax * bb - bx * ab) / determinant);
    dmin = static_cast<float>((bx * aa - ax * ab) / determinant);
  } else if (aa > 0.0) {
    d = static_cast<float>(ax / aa);
    dmin = 0.0F;
  } else {
    return false;
  }
  return d > 0.0F && dmin >= 0.0F;
}

void put_affine(DType format, const AffineBlock& b, std::byte* out) {
  put_u16(out, b.d);
  put_u16(out + 2, b.dmin);
  // Six bits each: sub-blocks 0..3 in the low bits of bytes j and j + 4; of 4..7 the low nibbles in byte j + 4, the
  // upper two bits on top of bytes j - 4 and j.
  std::array<unsigned, 12> packed{};
  for (size_t j = 0; j < kAffineGroups; ++j) {
    const auto s = static_cast<unsigned>(b.scales[j]);
    const auto m = static_cast<unsigned>(b.minima[j]);
    if (j < 4) {
      packed[j] |= s;
      packed[j + 4] |= m;
    } else {
      packed[j + 4] |= (s & 15) | (m & 15) << 4;
      packed[j - 4] |= s >> 4 << 6;
      packed[j] |= m >> 4 << 6;
    }
  }
  for (size_t i = 0; i < packed.size(); ++i) out[4 + i] = static_cast<std::byte>(packed[i]);
  std::byte* nibbles = out + 16;
  if (format == DType::kQ5_K) {
    for (size_t i = 0; i < kAffineSize; ++i) {
      unsigned bits = 0;
      for (size_t j = 0; j < kAffineGroups; ++j) bits |= static_cast<unsigned>(b.q[j].q[i]) >> 4 << j;
      nibbles[i] = static_cast<std::byte>(bits);
    }
    nibbles += kAffineSize;
  }
  for (size_t j = 0; j < kAffineGroups; j += 2) {
    for (size_t i = 0; i < kAffineSize; ++i) {
      const auto low = static_cast<unsigned>(b.q[j].q[i]) & 15;
      const auto high = static_cast<unsigned>(b.q[j + 1].q[i]) & 15;
      *nibbles++ = static_cast<std::byte>(low | high << 4);
    }
  }
}

// Q6_K ------------------------------------------------------------------------------------------------------------

constexpr int kSymmetricGroups = 16;
constexpr int kSymmetricSize = 16;
constexpr float kHalf = 32.0F;           // q is from -32 to 31
constexpr float kLowestScale = -128.0F;  // of the signed bytes
constexpr float kHighestScale = 127.0F;

struct SymmetricBlock {
  uint16_t d = 0;
  std::array<float, kSymmetricGroups> scales{};
  std::array<Integers, kSymmetricGroups> q;
  float error = 0.0F;
};

void choose_scales(const Values& x, const Unit& unit, std::span<const float> wanted, SymmetricBlock& b) {
  const float d = unit.from_f16(b.d);
  b.error = 0.0F;
  for (int j = 0; j < kSymmetricGroups; ++j) {
    const auto at = static_cast<size_t>(j);
    const Group group = x.group(j, kSymmetricSize);
    const float scale = d != 0.0F ? std::clamp(rounded(wanted[at] / d), kLowestScale, kHighestScale) : 0.0F;
    float best = -1.0F;
    for (const float step : {-1.0F, 0.0F, 1.0F}) {
      const float s = scale + step;
      if (s < kLowestScale || s > kHighestScale) continue;
      Integers q;
      const float error = round_group(group, d * s, 0.0F, -kHalf, kHalf - 1.0F, q);
      if (best >= 0.0F && error >= best) continue;
      best = error;
      b.scales[at] = s;
      b.q[at] = q;
    }
    b.error += best;
  }
}

float fit_common(const Values& x, const SymmetricBlock& b) {
  double ax = 0.0;
  double aa = 0.0;
  for (int i = 0; i < kElements; ++i) {
    const auto j = static_cast<size_t>(i / kSymmetricSize);
    const double a = b.scales[j] * b.q[j].q[static_cast<size_t>(i % kSymmetricSize)];
    const double w = x.w[static_cast<size_t>(i)];
    ax += w * a * x.v[static_cast<size_t>(i)];
    aa += w * a * a;
  }
  return aa > 0.0 ? static_cast<float>(ax / aa) : 0.0F;
}

void put_symmetric(const SymmetricBlock& b, std::byte* out) {
  std::array<unsigned, kElements> q{};
  for (size_t i = 0; i < kElements; ++i) {
    q[i] = static_cast<unsigned>(b.q[i / kSymmetricSize].q[i % kSymmetricSize] + kHalf);
  }
  // Each half of 128 elements: 64 bytes of nibbles (quarters 0 and 2, then 1 and 3, share bytes), 32 of upper bits.
  for (size_t half = 0; half < 2; ++half) {
    const unsigned* from = q.data() + half * 128;
    std::byte* low = out + half * 64;
    std::byte* high = out + 128 + half * 32;
    for (size_t i = 0; i < 32; ++i) {
      low[i] = static_cast<std::byte>((from[i] & 15) | (from[i + 64] & 15) << 4);
      low[i + 32] = static_cast<std::byte>((from[i + 32] & 15) | (from[i + 96] & 15) << 4);
      high[i] = static_cast<std::byte>(from[i] >> 4 | from[i + 32] >> 4 << 2 | from[i + 64] >> 4 << 4 |
                                       from[i + 96] >> 4 << 6);
    }
  }
  for (size_t j = 0; j < kSymmetricGroups; ++j) {
    out[192 + j] = static_cast<std::byte>(static_cast<int8_t>(b.scales[j]));
  }
  put_u16(out + 208, b.d);
}

}  // namespace

void encode_q45_k(DType format, const float* x, std::byte* out) {
  const float levels = format == DType::kQ4_K ? 15.0F : 31.0F;
  const Unit unit(x, kElements);
  Values scaled;
  unit.divide(x, kElements, scaled.v.data());
  scaled.weigh(kAffineSize);
  std::array<Affine, kAffineGroups> wanted;
  float most_scale = 0.0F;
  float most_minimum = 0.0F;
  for (int j = 0; j < kAffineGroups; ++j) {
    const Affine fit = search_affine(scaled.group(j, kAffineSize), levels, true);
    most_scale = std::max(most_scale, fit.scale);
    most_minimum = std::max(most_minimum, -fit.minimum);
    wanted[static_cast<size_t>(j)] = fit;
  }
  AffineBlock best;
  best.d = unit.to_f16(most_scale / kMostMultiple);
  best.dmin = unit.to_f16(most_minimum / kMostMultiple);
  choose_multiples(scaled, unit, levels, wanted, best);
  for (int round = 0; round < kRounds; ++round) {
    float d = 0.0F;
    float dmin = 0.0F;
    if (!fit_common(scaled, best, d, dmin)) break;
    AffineBlock next;
    next.d = unit.to_f16(d);
    next.dmin = unit.to_f16(dmin);
    if (next.d == best.d && next.dmin == best.dmin) break;
    choose_multiples(scaled, unit, levels, wanted, next);
    if (!(next.error < best.error)) break;
    best = next;
  }
  put_affine(format, best, out);
}

void encode_q6_k(const float* x, std::byte* out) {
  const Unit unit(x, kElements);
  Values scaled;
  unit.divide(x, kElements, scaled.v.data());
  scaled.weigh(kSymmetricSize);
  std::array<float, kSymmetricGroups> wanted{};
  float extreme = 0.0F;
  for (int j = 0; j < kSymmetricGroups; ++j) {
    const float scale = search_symmetric(scaled.group(j, kSymmetricSize), kHalf);
    if (std::fabs(scale) > std::fabs(extreme)) extreme = scale;
    wanted[static_cast<size_t>(j)] = scale;
  }
  SymmetricBlock best;
  best.d = unit.to_f16(extreme / kLowestScale);
  choose_scales(scaled, unit, wanted, best);
  for (int round = 0; round < kRounds; ++round) {
    SymmetricBlock next;
    next.d = unit.to_f16(fit_common(scaled, best));
    if (next.d == best.d) break;
    choose_scales(scaled, unit, wanted, next);
    if (!(next.error < best.error)) break;
    best = next;
  }
  put_symmetric(best, out);
}

}  // namespace lathe::quant
