// F32x16: sixteen fp32 lanes for the ISA units, one register with AVX-512, two with AVX2, four with NEON. Everything
// above this file is written once against it, so all units do the same operations in the same order and agree bit for
// bit.
//
// Only ISA units include this file. Everything has internal linkage and nothing here instantiates library templates: a
// function compiled for AVX-512 must never be the copy that the linker keeps for the whole program.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lathe/tensor/dtype.h"

#define LATHE_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define LATHE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LATHE_UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__aarch64__)
#include "lathe/kernels/vec16_neon-inl.h"
#else
#include "lathe/kernels/vec16_x86-inl.h"
#endif

namespace lathe {
namespace {

constexpr int kLanes = 16;

// ---- what will be read or written soon -----------------------------------------------------------------------------

// Hints by address: one past the end is fine to prefetch, but not as a pointer.
LATHE_INLINE void prefetch(uintptr_t address) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  __builtin_prefetch(reinterpret_cast<const char*>(address), 0, 3);
}

// Into the second cache.
LATHE_INLINE void prefetch_farther(uintptr_t address) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  __builtin_prefetch(reinterpret_cast<const char*>(address), 0, 2);
}

LATHE_INLINE void prefetch_to_write(uintptr_t address) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  __builtin_prefetch(reinterpret_cast<const char*>(address), 1, 3);
}

// ---- stored elements to a Part -------------------------------------------------------------------------------------

constexpr int64_t element_bytes(DType type) {
  return type == DType::kF32 ? 4 : type == DType::kF8E4M3 ? 1 : 2;
}

// kPartLanes stored elements as fp32 (E4M3: without scale).
template <DType kType>
LATHE_INLINE PartRegister part_decode(const std::byte* p) {
  if constexpr (kType == DType::kF32) {
    return part_load(p);
  } else if constexpr (kType == DType::kBF16) {
    return part_from_bf16(words_load(p));
  } else if constexpr (kType == DType::kF16) {
    return part_from_f16(words_load(p));
  } else {
    return part_mul(part_from_f16(codes_to_f16(codes_load(p))), part_set(256.0f));
  }
}

// The first n of them, n in [0, kPartLanes), zeros after; reads nothing beyond them.
template <DType kType>
LATHE_INLINE PartRegister part_decode_first(const std::byte* p, int64_t n) {
  if constexpr (kType == DType::kF32) {
    return part_load_first(p, n);
  } else if constexpr (kType == DType::kBF16) {
    return part_from_bf16(words_load_first(p, n));
  } else if constexpr (kType == DType::kF16) {
    return part_from_f16(words_load_first(p, n));
  } else {
    return part_mul(part_from_f16(codes_to_f16(codes_load_first(p, n))), part_set(256.0f));
  }
}

// E4M3 values / 256, right for all codes but NaN: a third fewer instructions, for loops that look for NaN beforehand
// and multiply by 256 times the scale.
LATHE_INLINE PartRegister part_decode_finite_e4m3(const std::byte* p) {
  return part_from_f16(codes_to_finite_f16(codes_load(p)));
}

LATHE_INLINE PartRegister part_decode_finite_e4m3_first(const std::byte* p, int64_t n) {
  return part_from_f16(codes_to_finite_f16(codes_load_first(p, n)));
}

// ---- F32x16 --------------------------------------------------------------------------------------------------------

constexpr int kParts = kLanes / kPartLanes;

struct F32x16 {
  PartRegister part[kParts];
};

// How many of n lanes (0..16) fall into part p.
LATHE_INLINE int64_t lanes_in_part(int64_t n, int p) {
  const int64_t rest = n - static_cast<int64_t>(p) * kPartLanes;
  return rest < 0 ? 0 : rest < kPartLanes ? rest : kPartLanes;
}

// out.part[p] = EXPRESSION(p) for every part.
#define LATHE_EACH_PART(expression)  \
  F32x16 out;                        \
  LATHE_UNROLL                       \
  for (int p = 0; p < kParts; ++p) { \
    out.part[p] = (expression);      \
  }                                  \
  return out

LATHE_INLINE F32x16 zero() {
  LATHE_EACH_PART(part_zero());
}

LATHE_INLINE F32x16 broadcast(float v) {
  LATHE_EACH_PART(part_set(v));
}

LATHE_INLINE F32x16 load(const float* a) {
  LATHE_EACH_PART(part_load(a + p * kPartLanes));
}

// Lanes [0, n) from memory, zeros after, n in [0, 16]; touches nothing beyond.
LATHE_INLINE F32x16 load_first(const float* a, int64_t n) {
  LATHE_EACH_PART(part_load_first(a + p * kPartLanes, lanes_in_part(n, p)));
}

LATHE_INLINE F32x16 add(F32x16 a, F32x16 b) {
  LATHE_EACH_PART(part_add(a.part[p], b.part[p]));
}

LATHE_INLINE F32x16 sub(F32x16 a, F32x16 b) {
  LATHE_EACH_PART(part_sub(a.part[p], b.part[p]));
}

LATHE_INLINE F32x16 mul(F32x16 a, F32x16 b) {
  LATHE_EACH_PART(part_mul(a.part[p], b.part[p]));
}

LATHE_INLINE F32x16 div(F32x16 a, F32x16 b) {
  LATHE_EACH_PART(part_div(a.part[p], b.part[p]));
}

LATHE_INLINE F32x16 square_roots(F32x16 a) {
  LATHE_EACH_PART(part_sqrt(a.part[p]));
}

// The larger; b where either is NaN.
LATHE_INLINE F32x16 max(F32x16 a, F32x16 b) {
  LATHE_EACH_PART(part_max(a.part[p], b.part[p]));
}

// x where a < b, else y.
LATHE_INLINE F32x16 select_below(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  LATHE_EACH_PART(part_select_below(a.part[p], b.part[p], x.part[p], y.part[p]));
}

// The smaller; b where either is NaN.
LATHE_INLINE F32x16 min(F32x16 a, F32x16 b) {
  LATHE_EACH_PART(part_min(a.part[p], b.part[p]));
}

// a * b + c, a * b - c and c - a * b, rounded once.
LATHE_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  LATHE_EACH_PART(part_fma(a.part[p], b.part[p], c.part[p]));
}

LATHE_INLINE F32x16 fms(F32x16 a, F32x16 b, F32x16 c) {
  LATHE_EACH_PART(part_fms(a.part[p], b.part[p], c.part[p]));
}

LATHE_INLINE F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) {
  LATHE_EACH_PART(part_fnma(a.part[p], b.part[p], c.part[p]));
}

// a * b - c in even lanes, a * b + c in odd ones.
LATHE_INLINE F32x16 fmaddsub(F32x16 a, F32x16 b, F32x16 c) {
  LATHE_EACH_PART(part_fmaddsub(a.part[p], b.part[p], c.part[p]));
}

LATHE_INLINE F32x16 round_to_integer(F32x16 a) {
  LATHE_EACH_PART(part_round(a.part[p]));
}

LATHE_INLINE F32x16 swap_pairs(F32x16 a) {
  LATHE_EACH_PART(part_swap_pairs(a.part[p]));
}

// Lanes [0, n) of a, then b.
LATHE_INLINE F32x16 select_first(int64_t n, F32x16 a, F32x16 b) {
  LATHE_EACH_PART(part_select_first(lanes_in_part(n, p), a.part[p], b.part[p]));
}

// n <= 8 floats, each twice; zeros after.
LATHE_INLINE F32x16 load_doubled(const float* a, int64_t n) {
  LATHE_EACH_PART(part_load_doubled(a + p * (kPartLanes / 2), lanes_in_part(2 * n, p) / 2));
}

template <DType kType>
LATHE_INLINE F32x16 decode(const std::byte* a) {
  LATHE_EACH_PART(part_decode<kType>(a + p * kPartLanes * element_bytes(kType)));
}

template <DType kType>
LATHE_INLINE F32x16 decode_first(const std::byte* a, int64_t n) {
  LATHE_EACH_PART(lanes_in_part(n, p) == kPartLanes
                      ? part_decode<kType>(a + p * kPartLanes * element_bytes(kType))
                      : part_decode_first<kType>(a + p * kPartLanes * element_bytes(kType), lanes_in_part(n, p)));
}

#undef LATHE_EACH_PART

// As decode where n is 16 or more, else the first n.
template <DType kType>
LATHE_INLINE F32x16 decode_some(const std::byte* a, int64_t n) {
  return n >= kLanes ? decode<kType>(a) : decode_first<kType>(a, n);
}

LATHE_INLINE void store(float* a, F32x16 v) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) part_store(a + p * kPartLanes, v.part[p]);
}

LATHE_INLINE void store_first(float* a, F32x16 v, int64_t n) {
  LATHE_UNROLL
  for (int p = 0; p < kParts; ++p) part_store_first(a + p * kPartLanes, v.part[p], lanes_in_part(n, p));
}

// Sum of the lanes as a tree: i with i + 8, then i + 4, i + 2, i + 1.
LATHE_INLINE float reduce_add(F32x16 a) {
  return parts_reduce_add(a.part);
}

// Largest lane; no lane is NaN.
LATHE_INLINE float reduce_max(F32x16 a) {
  return parts_reduce_max(a.part);
}

LATHE_INLINE float first_lane(F32x16 a) {
  return part_first_lane(a.part[0]);
}

}  // namespace
}  // namespace lathe
