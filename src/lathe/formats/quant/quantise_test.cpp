#include "lathe/formats/quant/quantise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/base/sha256.h"
#include "lathe/formats/quant/search.h"
#include "lathe/tensor/blocks.h"

namespace lathe {
namespace {

constexpr DType kFormats[] = {
    DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

std::vector<std::byte> encode(DType format, const std::vector<float>& x) {
  std::vector<std::byte> out(static_cast<size_t>(row_bytes(format, static_cast<int64_t>(x.size()))));
  quantise_row(format, x, out.data());
  return out;
}

std::vector<float> round_trip(DType format, const std::vector<float>& x) {
  const std::vector<std::byte> bytes = encode(format, x);
  std::vector<float> out(x.size());
  decode_row(format, bytes.data(), out);
  return out;
}

std::vector<float> normal_row(uint64_t seed, size_t n, float sigma) {
  Rng rng(seed);
  std::vector<float> out(n);
  for (float& v : out) v = static_cast<float>(rng.next_normal()) * sigma;
  return out;
}

double relative_rms(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0.0;
  double total = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    total += static_cast<double>(x[i]) * x[i];
  }
  return std::sqrt(error / total);
}

// What a plain encoder (largest value to the end of the range) reaches on normal rows, and less for the search.
double most_error(DType format) {
  switch (format) {
    case DType::kQ8_0:
      return 0.0060;
    case DType::kQ4_0:
      return 0.0850;
    case DType::kQ4_1:
      return 0.0750;
    case DType::kQ5_0:
      return 0.0430;
    case DType::kQ5_1:
      return 0.0370;
    case DType::kQ4_K:
      return 0.0750;
    case DType::kQ5_K:
      return 0.0380;
    default:
      return 0.0190;
  }
}

TEST(Quantise, ErrorOfNormalRowsIsBounded) {
  for (const DType format : kFormats) {
    for (const float sigma : {0.02F, 1.0F, 300.0F}) {
      const std::vector<float> x = normal_row(11, 4096, sigma);
      const double error = relative_rms(x, round_trip(format, x));
      RecordProperty(std::string(dtype_name(format)), std::to_string(error));
      EXPECT_LT(error, most_error(format)) << dtype_name(format) << " sigma " << sigma;
      EXPECT_GT(error, most_error(format) / 3) << dtype_name(format) << " sigma " << sigma;
    }
  }
}

TEST(Quantise, ValuesOnTheGridAreKeptExactly) {
  Rng rng(5);
  const auto integers = [&](int low, int high) {
    std::vector<float> x(512);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<float>(rng.next_int(low, high));
      if (i % 16 == 3) x[i] = static_cast<float>(low);  // the ends of the range in every sub-block
      if (i % 16 == 9) x[i] = static_cast<float>(high);
      x[i] *= 0.25F;
    }
    return x;
  };
  const auto expect_exact = [](DType format, const std::vector<float>& x) {
    EXPECT_EQ(round_trip(format, x), x) << dtype_name(format);
  };
  expect_exact(DType::kQ8_0, integers(-127, 127));
  expect_exact(DType::kQ4_0, integers(-8, 7));
  expect_exact(DType::kQ4_0, integers(-7, 8));  // by a negative scale
  expect_exact(DType::kQ5_0, integers(-16, 15));
  expect_exact(DType::kQ4_1, integers(20, 35));
  expect_exact(DType::kQ5_1, integers(-40, -9));
  expect_exact(DType::kQ6_K, integers(-32, 31));
}

TEST(Quantise, WeightsAreThoseOfTheTwoRules) {
  const std::vector<float> x{3.0F, 0.0F, -1.0F, 1.0F, 2.0F, -1.0F, 0.0F, 0.0F};  // root mean square: sqrt(2)
  std::vector<float> w(x.size());
  quant::weigh_by_magnitude(x.data(), static_cast<int>(x.size()), w.data());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_FLOAT_EQ(w[i], std::sqrt(2.0F) + std::fabs(x[i])) << i;
  quant::weigh_by_square(x.data(), static_cast<int>(x.size()), w.data());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_FLOAT_EQ(w[i], 1.0F + x[i] * x[i]) << i;
}

// The bytes of all formats of one row. When they change, so must the version of packed files (model/packed_file.cpp): a
// file packed before would give other results than a new one.
TEST(Quantise, BytesAreThoseOfThePackedVersion) {
  std::vector<float> x(512);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * i * 37 % 1009) - 504) / 512.0F;
  Hasher hash(Hasher::Kind::kSha256);
  for (const DType format : kFormats) {
    const std::vector<std::byte> bytes = encode(format, x);
    hash.update({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  EXPECT_EQ(hash.hex_digest().substr(0, 16), "14c74b9074bbff66");
}

// Both searches come close to the least weighted error that any scale on a fine grid has, which weights change.
TEST(Quantise, SearchesMinimiseTheWeightedError) {
  constexpr int kSize = 32;
  constexpr int kGrid = 4000;
  double even_differs = 0.0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<float> x = normal_row(seed, kSize, 0.6F);
    std::vector<float> w(kSize);
    quant::weigh_by_square(x.data(), kSize, w.data());
    const std::vector<float> even(kSize, 1.0F);
    const quant::Group group{x.data(), w.data(), kSize};
    quant::Integers q;
    const auto symmetric = [&](float scale) { return quant::round_group(group, scale, 0.0F, -8.0F, 7.0F, q); };
    float least = std::numeric_limits<float>::max();
    for (int i = 1; i <= kGrid; ++i) {
      const float scale = 0.6F * static_cast<float>(i) / kGrid;
      least = std::min({least, symmetric(scale), symmetric(-scale)});
    }
    const float found = symmetric(quant::search_symmetric(group, 8.0F));
    EXPECT_LE(found, 1.05F * least) << seed;
    even_differs += symmetric(quant::search_symmetric({x.data(), even.data(), kSize}, 8.0F)) / found - 1.0;

    const quant::Affine fit = quant::search_affine(group, 15.0F, true);
    const auto affine = [&](const quant::Affine& a) {
      return quant::round_group(group, a.scale, a.minimum, 0.0F, 15.0F, q);
    };
    const float at_fit = affine(fit);
    for (const float scale : {0.97F, 0.99F, 1.01F, 1.03F}) {
      for (const float minimum : {0.97F, 0.99F, 1.01F, 1.03F}) {
        EXPECT_LE(at_fit, 1.25F * affine({fit.scale * scale, fit.minimum * minimum})) << seed;
      }
    }
  }
  EXPECT_GT(even_differs / 20, 0.02);  // scales for even weights lose more by these
}

TEST(Quantise, SecondEncodingOfASmallFormatChangesNothing) {
  for (const DType format : {DType::kQ8_0, DType::kQ4_0, DType::kQ5_0}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      const std::vector<float> once = round_trip(format, normal_row(seed, 512, 0.05F));
      EXPECT_EQ(round_trip(format, once), once) << dtype_name(format) << " seed " << seed;
    }
  }
}

// Scales of the other formats come from a search that need not find the first ones again, but loses far less.
TEST(Quantise, SecondEncodingLosesLittle) {
  for (const DType format : {DType::kQ4_1, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const std::vector<float> x = normal_row(3, 4096, 0.05F);
    const std::vector<float> once = round_trip(format, x);
    EXPECT_LT(relative_rms(once, round_trip(format, once)), 0.5 * relative_rms(x, once)) << dtype_name(format);
  }
}

TEST(Quantise, KnownBytes) {
  std::vector<float> x(32, 0.0F);
  x[0] = -8.0F;
  x[1] = 7.0F;
  x[16] = 1.0F;
  x[31] = -3.0F;
  const std::vector<std::byte> q4 = encode(DType::kQ4_0, x);
  ASSERT_EQ(q4.size(), 18U);
  uint16_t d = 0;
  std::memcpy(&d, q4.data(), 2);
  EXPECT_EQ(f16_to_float(d), 1.0F);
  EXPECT_EQ(q4[2], std::byte{0x90});   // 0 -> -8, 16 -> +1
  EXPECT_EQ(q4[3], std::byte{0x8F});   // 1 -> +7
  EXPECT_EQ(q4[17], std::byte{0x58});  // 31 -> -3

  for (float& v : x) v = 0.0F;
  x[5] = -127.0F;
  x[6] = 63.4F;
  const std::vector<std::byte> q8 = encode(DType::kQ8_0, x);
  ASSERT_EQ(q8.size(), 34U);
  std::memcpy(&d, q8.data(), 2);
  EXPECT_EQ(f16_to_float(d), 1.0F);
  EXPECT_EQ(q8[2 + 5], std::byte{0x81});
  EXPECT_EQ(q8[2 + 6], std::byte{63});
}

TEST(Quantise, ZerosStayZero) {
  const std::vector<float> x(512, 0.0F);
  for (const DType format : kFormats) {
    for (const float v : round_trip(format, x)) EXPECT_EQ(v, 0.0F) << dtype_name(format);
  }
}

TEST(Quantise, ConstantRowsKeepTheirValue) {
  for (const float value : {1.0F, -1.0F, 0.37F, -250.0F}) {
    const std::vector<float> x(256, value);
    for (const DType format : kFormats) {
      for (const float v : round_trip(format, x)) {
        EXPECT_NEAR(v, value, std::fabs(value) * 0.005F) << dtype_name(format);
      }
    }
  }
}

TEST(Quantise, ExtremeMagnitudesStayFinite) {
  const float largest = std::numeric_limits<float>::max();
  const float smallest = std::numeric_limits<float>::denorm_min();
  for (const DType format : kFormats) {
    std::vector<float> x = normal_row(9, 512, 1.0F);
    x[0] = largest;
    x[300] = -largest;
    for (const float v : round_trip(format, x)) EXPECT_TRUE(std::isfinite(v)) << dtype_name(format);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 3) * smallest;
    for (const float v : round_trip(format, x)) EXPECT_EQ(v, 0.0F) << dtype_name(format);
    // Far above what fp16 scales reach: clamped to the largest scale, with the right signs.
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 2 == 0 ? 1e12F : -1e12F;
    const std::vector<float> y = round_trip(format, x);
    for (size_t i = 0; i < y.size(); ++i) EXPECT_TRUE(std::isfinite(y[i])) << dtype_name(format);
  }
}

// Scales among the subnormal numbers of fp16 have few bits; the largest value must not be cut for it.
TEST(Quantise, TinyRowsOfQ8AreNotCut) {
  for (int step = 0; step < 113; ++step) {  // up to 0.01
    const float most = 5e-6F * std::pow(1.07F, static_cast<float>(step));
    std::vector<float> x(32, 0.0F);
    x[7] = most;
    EXPECT_NEAR(round_trip(DType::kQ8_0, x)[7], most, most * 0.02F + 3e-8F) << most;
  }
}

TEST(Quantise, FindsWhatIsNotFinite) {
  std::vector<float> x(64, 1.0F);
  EXPECT_TRUE(all_finite(x));
  EXPECT_TRUE(all_finite({}));
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    x[63] = bad;
    EXPECT_FALSE(all_finite(x));
  }
}

TEST(Quantise, PlainTypesRoundToNearest) {
  const std::vector<float> x{1.0F, -0.1F, 3.14159F, 65504.0F};
  for (const DType format : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<std::byte> bytes(x.size() * static_cast<size_t>(dtype_size(format)));
    std::vector<float> y(x.size());
    encode_row(format, x, bytes.data());
    decode_row(format, bytes.data(), y);
    for (size_t i = 0; i < x.size(); ++i) {
      const float expected = format == DType::kF32   ? x[i]
                             : format == DType::kF16 ? f16_to_float(float_to_f16(x[i]))
                                                     : bf16_to_float(float_to_bf16(x[i]));
      EXPECT_EQ(y[i], expected) << dtype_name(format);
    }
  }
}

TEST(Quantise, ThreadsDoNotChangeTheBytes) {
  const int64_t rows = 33;
  const int64_t cols = 256;
  const std::vector<float> x = normal_row(17, static_cast<size_t>(rows * cols), 0.1F);
  auto pool = ThreadPool::create(3);
  ASSERT_TRUE(pool.has_value());
  for (const DType format : kFormats) {
    std::vector<std::byte> alone(static_cast<size_t>(rows * row_bytes(format, cols)));
    std::vector<std::byte> together(alone.size());
    quantise_rows(format, x.data(), rows, cols, alone.data(), nullptr);
    quantise_rows(format, x.data(), rows, cols, together.data(), pool->get());
    EXPECT_EQ(alone, together) << dtype_name(format);
  }
}

}  // namespace
}  // namespace lathe
