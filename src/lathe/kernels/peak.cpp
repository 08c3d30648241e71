#include "lathe/kernels/peak.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace lathe {
namespace {

// Enough independent chains to hide the latency of an addition on two ports, few enough for 16 registers.
constexpr int kChains = 12;

// Plain code for what the baseline offers: 4 floats or words at a time, if the compiler likes.
int64_t plain_loop(int64_t rounds) {
  constexpr int kLanes = 4 * kChains;
  float sums[kLanes] = {};
  float factor = 0.5F;
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+m"(factor));  // or the whole loop would be one expression
    for (float& sum : sums) sum = sum * factor + 1.0F;
  }
  asm volatile("" : : "m"(sums));
  return rounds * kLanes * 2;
}

constexpr size_t kReadBytes = 128;  // at a time

uint64_t read_words(std::span<const std::byte> bytes) {
  constexpr size_t kWords = kReadBytes / 8;
  uint64_t sums[kWords] = {};
  for (size_t i = 0; i + kReadBytes <= bytes.size(); i += kReadBytes) {
    uint64_t words[kWords];
    std::memcpy(words, bytes.data() + i, kReadBytes);
    for (size_t j = 0; j < kWords; ++j) sums[j] ^= words[j];
  }
  uint64_t all = 0;
  for (const uint64_t sum : sums) all ^= sum;
  return all;
}

#if defined(__x86_64__)

// The factors pass through an empty asm before each product, so that neither products are taken out of the loop nor
// equal ones are made one.
__attribute__((target("avx2,fma"))) int64_t fp32_loop_256(int64_t rounds) {
  __m256 sums[kChains] = {};
  __m256 a = _mm256_set1_ps(0.5F);
  const __m256 b = _mm256_set1_ps(1.0F);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+x"(a));  // per product: they are all the same
      sums[c] = _mm256_fmadd_ps(sums[c], a, b);
    }
  }
  for (const __m256& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 8 * 2;
}

__attribute__((target("avx2"))) uint64_t read_256(std::span<const std::byte> bytes) {
  __m256i sums[kReadBytes / 32] = {};
  for (size_t i = 0; i + kReadBytes <= bytes.size(); i += kReadBytes) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kReadBytes / 32; ++j) {
      const auto* from = reinterpret_cast<const __m256i*>(bytes.data() + i + 32 * j);
      sums[j] = _mm256_xor_si256(sums[j], _mm256_loadu_si256(from));
    }
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  uint64_t words[4];
  std::memcpy(words, &all, sizeof(words));
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}

__attribute__((target("avx2"))) int64_t int8_loop_256(int64_t rounds) {
  __m256i sums[kChains] = {};
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+x"(a));  // per product: they are all the same
      sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (const __m256i& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 32 * 2;
}

__attribute__((target("avx2,avxvnni"))) int64_t int8_loop_256_vnni(int64_t rounds) {
  __m256i sums[kChains] = {};
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+x"(a));  // per product: they are all the same
      sums[c] = _mm256_dpbusd_avx_epi32(sums[c], a, b);
    }
  }
  for (const __m256i& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 32 * 2;
}

__attribute__((target("avx512f"))) int64_t fp32_loop_512(int64_t rounds) {
  __m512 sums[kChains] = {};
  __m512 a = _mm512_set1_ps(0.5F);
  const __m512 b = _mm512_set1_ps(1.0F);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+v"(a));  // per product: they are all the same
      sums[c] = _mm512_fmadd_ps(sums[c], a, b);
    }
  }
  for (const __m512& sum : sums) asm volatile("" : : "v"(sum));
  return rounds * kChains * 16 * 2;
}

__attribute__((target("avx512f,avx512bw"))) int64_t int8_loop_512(int64_t rounds) {
  __m512i sums[kChains] = {};
  __m512i a = _mm512_set1_epi32(0x03030303);
  const __m512i b = _mm512_set1_epi32(0x05050505);
  const __m512i ones = _mm512_set1_epi32(0x00010001);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+v"(a));  // per product: they are all the same
      sums[c] = _mm512_add_epi32(sums[c], _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), ones));
    }
  }
  for (const __m512i& sum : sums) asm volatile("" : : "v"(sum));
  return rounds * kChains * 64 * 2;
}

// In registers by name: g++ 12 copies sums around the intrinsic, and keeps an array of them in memory around an asm.
// What they hold at first does not matter.
__attribute__((target("avx512f,avx512vnni"))) int64_t int8_loop_512_vnni(int64_t rounds) {
  static_assert(kChains == 12);
  const __m512i a = _mm512_set1_epi32(0x03030303);
  const __m512i b = _mm512_set1_epi32(0x05050505);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "vpdpbusd %1, %0, %%zmm4\n\t"
        "vpdpbusd %1, %0, %%zmm5\n\t"
        "vpdpbusd %1, %0, %%zmm6\n\t"
        "vpdpbusd %1, %0, %%zmm7\n\t"
        "vpdpbusd %1, %0, %%zmm8\n\t"
        "vpdpbusd %1, %0, %%zmm9\n\t"
        "vpdpbusd %1, %0, %%zmm10\n\t"
        "vpdpbusd %1, %0, %%zmm11\n\t"
        "vpdpbusd %1, %0, %%zmm12\n\t"
        "vpdpbusd %1, %0, %%zmm13\n\t"
        "vpdpbusd %1, %0, %%zmm14\n\t"
        "vpdpbusd %1, %0, %%zmm15"
        :
        : "v"(a), "v"(b)
        : "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  }
  return rounds * kChains * 64 * 2;
}

// Tiles 0 to 3 += tile 4 times tile 5, all of them 16 rows of 64 bytes: a product takes 16 cycles, its result 52.
int64_t int8_loop_amx(int64_t rounds) {
  struct alignas(64) Shapes {  // what ldtilecfg reads
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  };

  const Shapes shapes;
  asm volatile("ldtilecfg %0" : : "m"(shapes));  // and all tiles are zero
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "tdpbssd %tmm5, %tmm4, %tmm0\n\t"
        "tdpbssd %tmm5, %tmm4, %tmm1\n\t"
        "tdpbssd %tmm5, %tmm4, %tmm2\n\t"
        "tdpbssd %tmm5, %tmm4, %tmm3");
  }
  asm volatile("tilerelease");
  return rounds * 4 * (int64_t{16} * 16 * 64) * 2;
}

#elif defined(__aarch64__)

// More chains than on x86: up to four vector units, and 32 registers.
constexpr int kNeonChains = 20;

int64_t fp32_loop_neon(int64_t rounds) {
  float32x4_t sums[kNeonChains];
  for (float32x4_t& sum : sums) sum = vdupq_n_f32(0.0F);
  float32x4_t a = vdupq_n_f32(0.5F);
  const float32x4_t b = vdupq_n_f32(1.0F);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 20
    for (int c = 0; c < kNeonChains; ++c) {
      asm volatile("" : "+w"(a));  // per product: they are all the same
      sums[c] = vfmaq_f32(sums[c], a, b);
    }
  }
  for (const float32x4_t& sum : sums) asm volatile("" : : "w"(sum));
  return rounds * kNeonChains * 4 * 2;
}

__attribute__((target("arch=armv8.2-a+dotprod"))) int64_t int8_loop_neon(int64_t rounds) {
  int32x4_t sums[kNeonChains];
  for (int32x4_t& sum : sums) sum = vdupq_n_s32(0);
  int8x16_t a = vdupq_n_s8(3);
  const int8x16_t b = vdupq_n_s8(5);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 20
    for (int c = 0; c < kNeonChains; ++c) {
      asm volatile("" : "+w"(a));  // per product: they are all the same
      sums[c] = vdotq_s32(sums[c], a, b);
    }
  }
  for (const int32x4_t& sum : sums) asm volatile("" : : "w"(sum));
  return rounds * kNeonChains * 16 * 2;
}

#endif

}  // namespace

int64_t run_peak_loop(PeakKind kind, std::string_view isa, int64_t rounds) {
#if defined(__x86_64__)
  const bool fp32 = kind == PeakKind::kFp32;
  if (isa == "amx") return fp32 ? fp32_loop_512(rounds) : int8_loop_amx(rounds);
  if (isa == "avx512vnni") return fp32 ? fp32_loop_512(rounds) : int8_loop_512_vnni(rounds);
  if (isa == "avx512") return fp32 ? fp32_loop_512(rounds) : int8_loop_512(rounds);
  if (isa == "avxvnni") return fp32 ? fp32_loop_256(rounds) : int8_loop_256_vnni(rounds);
  if (isa == "avx2") return fp32 ? fp32_loop_256(rounds) : int8_loop_256(rounds);
#elif defined(__aarch64__)
  if (isa == "neon") return kind == PeakKind::kFp32 ? fp32_loop_neon(rounds) : int8_loop_neon(rounds);
#else
  static_cast<void>(kind);
  static_cast<void>(isa);
#endif
  return plain_loop(rounds);
}

uint64_t read_once(std::span<const std::byte> bytes, std::string_view isa) {
#if defined(__x86_64__)
  if (isa != "reference") return read_256(bytes);
#else
  static_cast<void>(isa);
#endif
  return read_words(bytes);
}

}  // namespace lathe
