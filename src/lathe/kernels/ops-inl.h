// Elementwise and reducing kernels on F32x16; included by the ISA units only (see vec16-inl.h). Every loop takes
// sixteen elements at a time and ends with one partial vector, so an element's lane is its index mod 16 wherever it
// matters.
#pragma once

#include "lathe/kernels/int16-inl.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/kernels/vec16-inl.h"
#include "lathe/tensor/blocks.h"

namespace lathe {
namespace {

constexpr float kInfinity = __builtin_inff();

// e^x within 1 ulp or so: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r, two multiplications by powers of two
// (so that subnormal results are rounded once and the largest finite ones do not overflow on the way). -infinity and
// everything below -104 gives 0, above 88.8 infinity, NaN stays NaN.
LATHE_INLINE F32x16 exp(F32x16 x) {
  // max and min return their second operand where one is NaN.
  const F32x16 bounded = min(broadcast(89.0f), max(broadcast(-105.0f), x));
  const F32x16 n = round_to_integer(mul(bounded, broadcast(1.44269504088896340736f)));
  // ln 2 in two pieces; the first has 9 significant bits, so that n times it is exact.
  F32x16 r = fnma(n, broadcast(0.693359375f), bounded);
  r = fnma(n, broadcast(-2.12194440054690581e-4f), r);
  // Taylor coefficients: with |r| < 0.347 the term dropped, r^8 / 8!, is below 6e-9.
  F32x16 poly = fma(r, broadcast(1.0f / 5040.0f), broadcast(1.0f / 720.0f));
  poly = fma(poly, r, broadcast(1.0f / 120.0f));
  poly = fma(poly, r, broadcast(1.0f / 24.0f));
  poly = fma(poly, r, broadcast(1.0f / 6.0f));
  poly = fma(poly, r, broadcast(0.5f));
  poly = fma(poly, r, broadcast(1.0f));
  poly = fma(poly, r, broadcast(1.0f));
  F32x16 low, high;
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) part_half_powers(n.part[p], low.part[p], high.part[p]);
  return mul(mul(poly, low), high);
}

// Calls body(offset, count) for whole vectors, then once for the rest.
template <class Body>
LATHE_INLINE void for_vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, static_cast<int64_t>(kLanes));
  if (i < n) body(i, n - i);
}

LATHE_INLINE F32x16 load_some(const float* a, int64_t count) {
  return count == kLanes ? load(a) : load_first(a, count);
}

LATHE_INLINE void store_some(float* a, F32x16 v, int64_t count) {
  if (count == kLanes) {
    store(a, v);
  } else {
    store_first(a, v, count);
  }
}

void rms_norm(const float* x, const float* weight, float* y, int64_t n, float eps) {
  F32x16 squares = zero();
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 v = load_some(x + i, count);
        squares = fma(v, v, squares);
      });
  const float mean = reduce_add(squares) / static_cast<float>(n);
  const float root = square_root(mean + eps);
  const F32x16 factor = broadcast(1.0f / root);
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        store_some(y + i, mul(load_some(weight + i, count), mul(load_some(x + i, count), factor)), count);
      });
}

void silu_mul(const float* gate, const float* up, float* out, int64_t n) {
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 g = load_some(gate + i, count);
        const F32x16 silu = div(g, add(broadcast(1.0f), exp(sub(zero(), g))));
        store_some(out + i, mul(silu, load_some(up + i, count)), count);
      });
}

float softmax_step(float* scores, int64_t count, int64_t padded, float scale, SoftmaxState& state) {
  const F32x16 factor = broadcast(scale);
  const F32x16 lowest = broadcast(-kInfinity);
  F32x16 highest = lowest;
  for_vectors(
      count, [&](int64_t i, int64_t some) __attribute__((always_inline)) {
        const F32x16 v = mul(load_some(scores + i, some), factor);
        // A NaN score never becomes the maximum: max returns its second operand.
        highest = max(select_first(some, v, lowest), highest);
      });
  const float old_maximum = state.maximum;
  const float step_maximum = reduce_max(highest);
  const float maximum = step_maximum > old_maximum ? step_maximum : old_maximum;
  // While every score is -infinity the shift is 0, so that they become 0 and not NaN.
  const F32x16 shift = broadcast(maximum == -kInfinity ? 0.0f : maximum);
  F32x16 sums = zero();
  for_vectors(
      count, [&](int64_t i, int64_t some) __attribute__((always_inline)) {
        const F32x16 v = exp(sub(mul(load_some(scores + i, some), factor), shift));
        sums = add(sums, select_first(some, v, zero()));
        store_some(scores + i, v, some);
      });
  for (int64_t i = count; i < padded; ++i) scores[i] = 0.0f;
  const float rescale = first_lane(exp(sub(broadcast(old_maximum), shift)));
  state.maximum = maximum;
  state.sum = state.sum * rescale + reduce_add(sums);
  return rescale;
}

void scale_in_place(float* y, float factor, int64_t n) {
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        store_some(y + i, mul(load_some(y + i, count), broadcast(factor)), count);
      });
}

void axpy(float* y, float factor, const float* x, int64_t n) {
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        store_some(y + i, fma(broadcast(factor), load_some(x + i, count), load_some(y + i, count)), count);
      });
}

void add_in_place(float* y, const float* x, int64_t n) {
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        store_some(y + i, add(load_some(y + i, count), load_some(x + i, count)), count);
      });
}

// (a, b) -> (a cos - b sin, b cos + a sin): the product with sin is rounded, the other one fused, in both layouts.
void rope_interleaved(float* x, const float* cos, const float* sin, int64_t pairs) {
  for_vectors(
      2 * pairs, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 v = load_some(x + i, count);
        const F32x16 c = load_doubled(cos + i / 2, count / 2);
        const F32x16 s = load_doubled(sin + i / 2, count / 2);
        store_some(x + i, fmaddsub(v, c, mul(swap_pairs(v), s)), count);
      });
}

void rope_half_split(float* x, const float* cos, const float* sin, int64_t pairs) {
  for_vectors(
      pairs, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 a = load_some(x + i, count);
        const F32x16 b = load_some(x + pairs + i, count);
        const F32x16 c = load_some(cos + i, count);
        const F32x16 s = load_some(sin + i, count);
        store_some(x + i, fms(a, c, mul(b, s)), count);
        store_some(x + pairs + i, fma(b, c, mul(a, s)), count);
      });
}

template <DType kType>
LATHE_INLINE void decode_all(const std::byte* source, float* out, int64_t n) {
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const std::byte* from = source + i * element_bytes(kType);
        store_some(out + i, decode_some<kType>(from, count), count);
      });
}

// Blocks of 32: d in fp16, then signed bytes. The other block formats are only read for single rows.
void decode_q8_0(const std::byte* source, float* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, source += 34, out += 32) {
    const F32x16 scale = half_at(source);
    store(out, mul(scale, to_f32(i32_from_signed_bytes(source + 2))));
    store(out + 16, mul(scale, to_f32(i32_from_signed_bytes(source + 18))));
  }
}

void to_float(DType dtype, const void* source, float* out, int64_t n) {
  const auto* bytes = static_cast<const std::byte*>(source);
  switch (dtype) {
    case DType::kF32:
      return decode_all<DType::kF32>(bytes, out, n);
    case DType::kBF16:
      return decode_all<DType::kBF16>(bytes, out, n);
    case DType::kF16:
      return decode_all<DType::kF16>(bytes, out, n);
    case DType::kF8E4M3:
      return decode_all<DType::kF8E4M3>(bytes, out, n);
    case DType::kQ8_0:
      return decode_q8_0(bytes, out, n);
    default:
      return decode_blocks(dtype, bytes, out, n);
  }
}

template <DType kType>
LATHE_INLINE void encode_all(const float* source, std::byte* out, int64_t n) {
  for_vectors(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const F32x16 v = load_some(source + i, count);
        LATHE_UNROLL
        for (int p = 0; p < kParts; ++p) {
          std::byte* to = out + (i + p * kPartLanes) * element_bytes(kType);
          const int64_t lanes = lanes_in_part(count, p);
          if constexpr (kType == DType::kF32) {
            part_store_first(to, v.part[p], lanes);
          } else {
            const HalfWords words = kType == DType::kBF16 ? part_to_bf16(v.part[p]) : part_to_f16(v.part[p]);
            if (lanes == kPartLanes) {
              words_store(to, words);
            } else {
              words_store_first(to, words, lanes);
            }
          }
        }
      });
}

void from_float(DType dtype, const float* source, void* out, int64_t n) {
  auto* bytes = static_cast<std::byte*>(out);
  switch (dtype) {
    case DType::kF32:
      return encode_all<DType::kF32>(source, bytes, n);
    case DType::kBF16:
      return encode_all<DType::kBF16>(source, bytes, n);
    case DType::kF16:
      return encode_all<DType::kF16>(source, bytes, n);
    default:
      __builtin_trap();  // not a type that this table promises
  }
}

}  // namespace
}  // namespace lathe
