#include <algorithm>
#include <array>
#include <functional>

#include "lathe/base/str.h"
#include "support/kernels.h"

namespace lathe {
namespace {

using testing::FencedBytes;
using testing::GuardedFloats;
using testing::near_within;
using testing::random_floats;
using testing::same_value;
using testing::same_values;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<int64_t> awkward_lengths() {
  std::vector<int64_t> lengths;
  for (int64_t n = 0; n <= 70; ++n) lengths.push_back(n);
  for (const int64_t n : {127, 128, 129, 512, 1000, 2048}) lengths.push_back(n);
  return lengths;
}

class OpsTable : public ::testing::TestWithParam<const KernelTable*> {};

INSTANTIATE_TEST_SUITE_P(All,
                         OpsTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

// One elementwise operation on n elements: what it computes into out, given inputs a and b (b may be shorter).
struct Operation {
  const char* name;
  int64_t smallest;     // length from which it is defined
  int64_t granularity;  // lengths are multiples of it
  double relative;      // error allowed, of the magnitude
  void (*run)(const KernelTable& table, const float* a, const float* b, float* out, int64_t n);
};

const Operation kOperations[] = {
    {"rms_norm",
     1,
     1,
     1e-6,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       k.rms_norm(a, b, out, n, 1e-6f);
     }},
    {"silu_mul",
     0,
     1,
     5e-7,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) { k.silu_mul(a, b, out, n); }},
    {"silu_mul in place of gate",
     0,
     1,
     5e-7,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       std::copy_n(a, n, out);
       k.silu_mul(out, b, out, n);
     }},
    {"silu_mul in place of up",
     0,
     1,
     5e-7,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       std::copy_n(b, n, out);
       k.silu_mul(a, out, out, n);
     }},
    {"rms_norm in place",
     1,
     1,
     1e-6,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       std::copy_n(a, n, out);
       k.rms_norm(out, b, out, n, 1e-6f);
     }},
    {"scale",
     0,
     1,
     0.0,
     [](const KernelTable& k, const float* a, const float*, float* out, int64_t n) {
       std::copy_n(a, n, out);
       k.scale(out, 1.7f, n);
     }},
    {"axpy",
     0,
     1,
     0.0,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       std::copy_n(a, n, out);
       k.axpy(out, -0.3f, b, n);
     }},
    {"add",
     0,
     1,
     0.0,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       std::copy_n(a, n, out);
       k.add(out, b, n);
     }},
    {"rope_interleaved",
     0,
     2,
     3e-7,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       std::copy_n(a, n, out);
       k.rope_interleaved(out, b, b + n / 2, n / 2);
     }},
    {"rope_half_split",
     0,
     2,
     3e-7,
     [](const KernelTable& k, const float* a, const float* b, float* out, int64_t n) {
       std::copy_n(a, n, out);
       k.rope_half_split(out, b, b + n / 2, n / 2);
     }},
};

std::vector<float> run(
    const Operation& op, const KernelTable& table, const FencedBytes& a, const FencedBytes& b, int64_t n) {
  GuardedFloats out(n);
  op.run(table, a.floats(), b.floats(), out.data(), n);
  EXPECT_TRUE(out.guards_intact()) << table.isa;
  return {out.values().begin(), out.values().end()};
}

TEST_P(OpsTable, OperationsMatchTheReference) {
  Rng rng(21);
  for (const Operation& op : kOperations) {
    for (const int64_t n : awkward_lengths()) {
      if (n < op.smallest || n % op.granularity != 0) continue;
      SCOPED_TRACE(str(op.name, " of ", n));
      const FencedBytes a(random_floats(rng, n, 2.0)), b(random_floats(rng, n));
      const std::vector<float> expected = run(op, *all_kernels()[0], a, b, n);
      const std::vector<float> actual = run(op, *GetParam(), a, b, n);
      std::vector<float> bounds(expected.size());
      for (size_t i = 0; i < bounds.size(); ++i) {
        const size_t other = (i ^ 1) < bounds.size() ? (i ^ 1) : i;
        // Rotations mix two elements, up to half the vector apart; 5 bounds any of the others.
        const bool rotation = op.granularity == 2;
        bounds[i] = rotation ? 8.0f : std::fabs(expected[i]);
        if (rotation && bounds.size() == 2)
          bounds[i] = std::max(std::fabs(expected[i]), std::fabs(expected[other])) + 4;
      }
      ASSERT_TRUE(near_within(actual, expected, bounds, op.relative));
    }
  }
}

TEST(VectorOps, AgreeBitForBit) {
  const auto tables = all_kernels();
  if (tables.size() < 3) GTEST_SKIP() << "this machine runs " << tables.size() - 1 << " vector tables";
  Rng rng(22);
  for (const Operation& op : kOperations) {
    for (const int64_t n : awkward_lengths()) {
      if (n < op.smallest || n % op.granularity != 0) continue;
      SCOPED_TRACE(str(op.name, " of ", n));
      const FencedBytes a(random_floats(rng, n, 2.0)), b(random_floats(rng, n));
      ASSERT_TRUE(same_values(run(op, *tables[2], a, b, n), run(op, *tables[1], a, b, n)));
    }
  }
}

TEST_P(OpsTable, TheComparisonSeesAWrongElement) {
  Rng rng(23);
  const FencedBytes a(random_floats(rng, 37)), b(random_floats(rng, 37));
  std::vector<float> values = run(kOperations[0], *GetParam(), a, b, 37);
  const std::vector<float> actual = values;
  values[36] *= 1.00001f;
  EXPECT_FALSE(near_within(actual, values, values, kOperations[0].relative));
  EXPECT_FALSE(same_values(actual, values));
  GuardedFloats out(4);
  out.data()[4] = 0.0f;
  EXPECT_FALSE(out.guards_intact());
}

TEST_P(OpsTable, RotationsKeepTheirLayouts) {
  // A quarter turn of pair i maps (a, b) to (-b, a).
  const std::array<float, 3> cos = {0, 1, 0}, sin = {1, 0, 1};
  std::array<float, 6> interleaved = {1, 2, 3, 4, 5, 6}, half = interleaved;
  GetParam()->rope_interleaved(interleaved.data(), cos.data(), sin.data(), 3);
  GetParam()->rope_half_split(half.data(), cos.data(), sin.data(), 3);
  EXPECT_EQ(interleaved, (std::array<float, 6>{-2, 1, 3, 4, -6, 5}));
  EXPECT_EQ(half, (std::array<float, 6>{-4, 2, -6, 1, 5, 3}));
}

TEST_P(OpsTable, SiluAtTheEnds) {
  const std::array<float, 6> gate = {0.0f, 30.0f, -30.0f, -200.0f, kNan, kInf};
  const std::array<float, 6> up = {3.0f, 2.0f, 2.0f, 1.0f, 1.0f, 1.0f};
  std::array<float, 6> out;
  GetParam()->silu_mul(gate.data(), up.data(), out.data(), 6);
  EXPECT_EQ(out[0], 0.0f);
  EXPECT_EQ(out[1], 60.0f);
  EXPECT_NEAR(out[2], -60.0f * 9.357623e-14f, 1e-17f);
  EXPECT_NEAR(out[3], 0.0f, 1e-37f);
  EXPECT_TRUE(std::isnan(out[4]));
  EXPECT_EQ(out[5], kInf);
}

// ---- softmax -------------------------------------------------------------------------------------------------------

struct SoftmaxRun {
  std::vector<float> scores;
  SoftmaxState state;
  float rescale;
};

SoftmaxRun softmax(
    const KernelTable& table, std::vector<float> scores, int64_t padding, float scale, SoftmaxState state) {
  const auto count = static_cast<int64_t>(scores.size());
  scores.resize(scores.size() + static_cast<size_t>(padding), 77.0f);
  GuardedFloats buffer(scores);
  const float rescale = table.softmax_step(buffer.data(), count, count + padding, scale, state);
  EXPECT_TRUE(buffer.guards_intact());
  return {{buffer.values().begin(), buffer.values().end()}, state, rescale};
}

TEST_P(OpsTable, SoftmaxStepsMatchTheReference) {
  Rng rng(24);
  for (const int64_t n : awkward_lengths()) {
    if (n == 0) continue;
    SoftmaxState expected_state{-kInf, 0.0f}, state = expected_state;
    for (int step = 0; step < 3; ++step) {  // the maximum rises in some steps only
      SCOPED_TRACE(str(n, " scores, step ", step));
      const std::vector<float> scores = random_floats(rng, n, 10.0);
      const SoftmaxRun expected = softmax(*all_kernels()[0], scores, (16 - n % 16) % 16, 0.7f, expected_state);
      const SoftmaxRun actual = softmax(*GetParam(), scores, (16 - n % 16) % 16, 0.7f, state);
      // The argument, up to 80 or so here, is rounded to fp32: 80 * 2^-24 relative.
      ASSERT_TRUE(near_within(actual.scores, expected.scores, expected.scores, 1e-5));
      ASSERT_EQ(actual.state.maximum, expected.state.maximum);
      ASSERT_NEAR(actual.state.sum, expected.state.sum, 1e-5 * expected.state.sum);
      ASSERT_NEAR(actual.rescale, expected.rescale, 1e-5 * expected.rescale);
      if (step == 0) {
        ASSERT_EQ(actual.rescale, 0.0f);
      }
      expected_state = expected.state;
      state = actual.state;
    }
  }
}

TEST_P(OpsTable, SoftmaxOfMaskedAndBrokenScores) {
  const SoftmaxState start{-kInf, 0.0f};
  // All masked: nothing counted, and the next step is a first step.
  const SoftmaxRun masked = softmax(*GetParam(), {-kInf, -kInf, -kInf}, 13, 0.5f, start);
  EXPECT_EQ(masked.scores, std::vector<float>(16, 0.0f));
  EXPECT_EQ(masked.state.maximum, -kInf);
  EXPECT_EQ(masked.state.sum, 0.0f);
  EXPECT_EQ(masked.rescale, 0.0f);
  // Some masked.
  const SoftmaxRun some = softmax(*GetParam(), {-kInf, 4.0f, -1e30f, 4.0f}, 0, 0.5f, start);
  EXPECT_EQ(some.scores, (std::vector<float>{0.0f, 1.0f, 0.0f, 1.0f}));
  EXPECT_EQ(some.state.maximum, 2.0f);
  EXPECT_EQ(some.state.sum, 2.0f);
  // All masked later on: what was there stays.
  const SoftmaxRun later = softmax(*GetParam(), {-kInf}, 0, 1.0f, some.state);
  EXPECT_EQ(later.rescale, 1.0f);
  EXPECT_EQ(later.state.sum, 2.0f);
  EXPECT_EQ(later.state.maximum, 2.0f);
  // NaN and +infinity make the sum NaN rather than disappear.
  EXPECT_TRUE(std::isnan(softmax(*GetParam(), {1.0f, kNan, 2.0f}, 0, 1.0f, start).state.sum));
  EXPECT_TRUE(std::isnan(softmax(*GetParam(), {kNan}, 0, 1.0f, start).state.sum));
  EXPECT_TRUE(std::isnan(softmax(*GetParam(), {1.0f, kInf}, 0, 1.0f, start).state.sum));
}

TEST(VectorOps, SoftmaxAgreesBitForBit) {
  const auto tables = all_kernels();
  if (tables.size() < 3) GTEST_SKIP() << "this machine runs " << tables.size() - 1 << " vector tables";
  Rng rng(25);
  for (const int64_t n : awkward_lengths()) {
    if (n == 0) continue;
    SoftmaxState state{-kInf, 0.0f};
    for (int step = 0; step < 3; ++step) {
      const std::vector<float> scores = random_floats(rng, n, 20.0);
      const SoftmaxRun one = softmax(*tables[1], scores, n % 3, 1.3f, state);
      const SoftmaxRun two = softmax(*tables[2], scores, n % 3, 1.3f, state);
      ASSERT_TRUE(same_values(two.scores, one.scores));
      ASSERT_TRUE(same_value(two.state.sum, one.state.sum));
      ASSERT_TRUE(same_value(two.state.maximum, one.state.maximum));
      ASSERT_TRUE(same_value(two.rescale, one.rescale));
      state = one.state;
    }
  }
}

// e^x through softmax_step: with a previous maximum of 0 and no positive score, the scores become their exponentials.
TEST_P(OpsTable, ExponentialsAreAccurate) {
  std::vector<float> x;
  for (float v = 0.0f; v > -110.0f; v -= 0.000917f) x.push_back(v);
  for (const float v : {-1e-30f, -87.3f, -87.34f, -88.0f, -100.0f, -103.2f, -103.97f, -103.98f, -104.1f, -1e10f})
    x.push_back(v);
  x.push_back(-kInf);
  const SoftmaxRun result = softmax(*GetParam(), x, 0, 1.0f, {0.0f, 0.0f});
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i]));
    // Two units in the last place, also among subnormals.
    const double unit =
        std::max(std::ldexp(1.0, std::ilogb(expected == 0.0 ? 1e-300 : expected) - 23), std::ldexp(1.0, -149));
    ASSERT_LE(std::fabs(result.scores[i] - expected), 1.5 * unit) << "exp(" << x[i] << ") = " << result.scores[i];
  }
  EXPECT_EQ(result.scores[0], 1.0f);
  EXPECT_EQ(result.scores.back(), 0.0f);
}

// ---- conversions ---------------------------------------------------------------------------------------------------

TEST_P(OpsTable, EverySixteenBitCodeConvertsBothWays) {
  std::vector<uint16_t> codes(65536);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint16_t>(i);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    std::vector<float> floats(codes.size());
    GetParam()->to_float(dtype, codes.data(), floats.data(), 65536);
    std::vector<uint16_t> back(codes.size());
    GetParam()->from_float(dtype, floats.data(), back.data(), 65536);
    for (size_t i = 0; i < codes.size(); ++i) {
      const float expected = dtype == DType::kBF16 ? bf16_to_float(codes[i]) : f16_to_float(codes[i]);
      ASSERT_TRUE(same_value(floats[i], expected)) << dtype_name(dtype) << " code " << i;
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(dtype == DType::kBF16 ? bf16_to_float(back[i]) : f16_to_float(back[i]))) << i;
      } else {
        ASSERT_EQ(back[i], codes[i]) << dtype_name(dtype);
      }
    }
  }
}

TEST_P(OpsTable, RoundingMatchesTheScalars) {
  Rng rng(26);
  std::vector<float> values;
  for (int i = 0; i < 40000; ++i)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(rng.next_int(0, 0xffffffff))));
  for (uint32_t code = 0; code < 0x7c00;
       ++code) {  // exact halves between neighbouring f16 and bf16 values, and beside them
    const float low = f16_to_float(static_cast<uint16_t>(code));
    const float high = f16_to_float(static_cast<uint16_t>(code + 1));
    const float half = std::isinf(high) ? 65520.0f : low + (high - low) / 2;
    for (const float v : {half, std::nextafter(half, 0.0f), std::nextafter(half, kInf), -half}) values.push_back(v);
    const uint32_t bits = (code << 16) | 0x8000u;
    for (const uint32_t v : {bits, bits - 1, bits + 1, bits | 0x80000000u}) values.push_back(std::bit_cast<float>(v));
  }
  for (const float v : {kNan, -kNan, kInf, -kInf, 3.4028235e38f, -3.4028235e38f}) values.push_back(v);
  std::vector<uint16_t> out(values.size());
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    GetParam()->from_float(dtype, values.data(), out.data(), static_cast<int64_t>(values.size()));
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t expected = dtype == DType::kBF16 ? float_to_bf16(values[i]) : float_to_f16(values[i]);
      if (std::isnan(values[i])) {
        ASSERT_TRUE(std::isnan(dtype == DType::kBF16 ? bf16_to_float(out[i]) : f16_to_float(out[i]))) << i;
      } else {
        ASSERT_EQ(out[i], expected) << dtype_name(dtype) << " of " << values[i];
      }
    }
  }
}

TEST_P(OpsTable, ConversionsOfEveryLengthStayInside) {
  Rng rng(27);
  for (int64_t n = 0; n <= 70; ++n) {
    const std::vector<float> values = random_floats(rng, n);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      SCOPED_TRACE(str(dtype_name(dtype), " x ", n));
      const auto size = static_cast<size_t>(n * dtype_size(dtype));
      std::vector<std::byte> expected(size), actual(size + 64, std::byte{0x5a});
      const FencedBytes source(values);
      all_kernels()[0]->from_float(dtype, source.floats(), expected.data(), n);
      GetParam()->from_float(dtype, source.floats(), actual.data(), n);
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), actual.begin()));
      for (size_t i = size; i < actual.size(); ++i) ASSERT_EQ(actual[i], std::byte{0x5a});
    }
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}) {
      SCOPED_TRACE(str(dtype_name(dtype), " x ", n));
      std::vector<std::byte> codes(static_cast<size_t>(n * dtype_size(dtype)));
      for (std::byte& code : codes) code = static_cast<std::byte>(rng.next_int(0, 255));
      const FencedBytes source(codes);
      GuardedFloats expected(n), actual(n);
      all_kernels()[0]->to_float(dtype, source.data(), expected.data(), n);
      GetParam()->to_float(dtype, source.data(), actual.data(), n);
      ASSERT_TRUE(same_values(actual.values(), expected.values()));
      ASSERT_TRUE(actual.guards_intact());
    }
  }
}

TEST_P(OpsTable, Fp8CodesConvert) {
  std::array<uint8_t, 256> codes;
  for (size_t i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(i);
  std::array<float, 256> values;
  GetParam()->to_float(DType::kF8E4M3, codes.data(), values.data(), 256);
  for (size_t i = 0; i < 256; ++i) EXPECT_TRUE(same_value(values[i], e4m3_to_float(codes[i]))) << i;
  EXPECT_EQ(values[0x7e], 448.0f);
  EXPECT_EQ(values[0x81], -0.001953125f);
  EXPECT_TRUE(std::isnan(values[0xff]));
}

}  // namespace
}  // namespace lathe
