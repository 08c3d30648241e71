// The formats of 32 elements: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1.
#include <array>
#include <cmath>
#include <cstring>

#include "lathe/formats/quant/block_scale.h"
#include "lathe/formats/quant/encoders.h"
#include "lathe/formats/quant/search.h"

namespace lathe::quant {

namespace {

constexpr int kElements = 32;

struct alignas(16) Values {
  std::array<float, kElements> v{};
};

// Weights of a group in which all errors count the same.
constexpr Values kEven = [] {
  Values even;
  even.v.fill(1.0F);
  return even;
}();

// Low nibbles in order, elements i and i + 16 in one byte; the fifth bits, if any, in four bytes before them.
void put_integers(const std::array<uint8_t, kElements>& q, bool fifth, std::byte* out) {
  if (fifth) {
    uint32_t bits = 0;
    for (size_t i = 0; i < kElements; ++i) bits |= static_cast<uint32_t>(q[i] >> 4) << i;
    std::memcpy(out, &bits, sizeof bits);
    out += sizeof bits;
  }
  for (size_t i = 0; i < kElements / 2; ++i) out[i] = static_cast<std::byte>((q[i] & 15) | (q[i + 16] & 15) << 4);
}

}  // namespace

void encode_q8_0(const float* x, std::byte* out) {
  constexpr float kMost = 127.0F;
  const Unit unit(x, kElements);
  Values scaled;
  unit.divide(x, kElements, scaled.v.data());
  float most = 0.0F;
  for (const float v : scaled.v) most = std::max(most, std::fabs(v));
  uint16_t d = unit.to_f16(most / kMost);
  // Among the subnormal numbers of fp16 the nearest scale may be far too small, and would cut the largest values.
  constexpr uint16_t kSmallestNormal = 0x0400;
  if (d != 0 && d < kSmallestNormal && most > (kMost + 0.5F) * unit.from_f16(d)) ++d;
  Integers q;
  round_group({scaled.v.data(), kEven.v.data(), kElements}, unit.from_f16(d), 0.0F, -kMost, kMost, q);
  put_u16(out, d);
  for (size_t i = 0; i < kElements; ++i) out[2 + i] = static_cast<std::byte>(static_cast<int8_t>(q.q[i]));
}

void encode_small(DType format, const float* x, std::byte* out) {
  const bool has_minimum = format == DType::kQ4_1 || format == DType::kQ5_1;
  const bool has_fifth = format == DType::kQ5_0 || format == DType::kQ5_1;
  const float half = has_fifth ? 16.0F : 8.0F;
  const Unit unit(x, kElements);
  Values scaled;
  unit.divide(x, kElements, scaled.v.data());
  Values weights;
  if (has_minimum || has_fifth) {
    weigh_by_magnitude(scaled.v.data(), kElements, weights.v.data());
  } else {
    weigh_by_square(scaled.v.data(), kElements, weights.v.data());
  }
  const Group group{scaled.v.data(), weights.v.data(), kElements};
  Integers found;
  float offset = 0.0F;
  if (has_minimum) {
    const Affine fit = search_affine(group, 2.0F * half - 1.0F, false);
    const uint16_t d = unit.to_f16(fit.scale);
    const uint16_t m = unit.to_f16(fit.minimum);
    round_group(group, unit.from_f16(d), unit.from_f16(m), 0.0F, 2.0F * half - 1.0F, found);
    put_u16(out, d);
    put_u16(out + 2, m);
    out += 4;
  } else {
    const uint16_t d = unit.to_f16(search_symmetric(group, half));
    round_group(group, unit.from_f16(d), 0.0F, -half, half - 1.0F, found);
    put_u16(out, d);
    out += 2;
    offset = half;
  }
  std::array<uint8_t, kElements> q{};
  for (size_t i = 0; i < kElements; ++i) q[i] = static_cast<uint8_t>(found.q[i] + offset);
  put_integers(q, has_fifth, out);
}

}  // namespace lathe::quant
