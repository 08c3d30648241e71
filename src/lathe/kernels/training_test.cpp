#include "lathe/kernels/training.h"

#include <cmath>
#include <numeric>

#include "lathe/tensor/tensor.h"
#include "support/kernels.h"

namespace lathe {
namespace {

using testing::GuardedFloats;
using testing::near_within;
using testing::random_floats;
using testing::same_values;

class TrainingTable : public ::testing::TestWithParam<const KernelTable*> {};

INSTANTIATE_TEST_SUITE_P(All,
                         TrainingTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

// The first vector table, whose bits the others share; the reference where there is none.
const KernelTable& first_vector_table() {
  return *all_kernels()[all_kernels().size() > 1 ? 1 : 0];
}

struct Orientation {
  const char* name;
  bool a_transposed;
  bool b_transposed;
};

constexpr Orientation kOrientations[] = {{"NN", false, false}, {"NT", false, true}, {"TN", true, false}};

struct Problem {
  int64_t m, n, k;
  Orientation orientation;
  std::vector<float> a, b, c;

  SgemmArgs args(float* out, float* scratch) const {
    return {.m = m,
            .n = n,
            .k = k,
            .a = a.data(),
            .a_row = orientation.a_transposed ? 1 : k,
            .a_col = orientation.a_transposed ? m : 1,
            .b = b.data(),
            .b_row = orientation.b_transposed ? 1 : n,
            .b_col = orientation.b_transposed ? k : 1,
            .c = out,
            .c_row = n,
            .scratch = scratch};
  }
};

Problem make_problem(Rng& rng, int64_t m, int64_t n, int64_t k, const Orientation& orientation) {
  return {m, n, k, orientation, random_floats(rng, m * k), random_floats(rng, k * n), random_floats(rng, m * n)};
}

std::vector<float> run_sgemm(const KernelTable& table, const Problem& p, bool accumulate, bool packed) {
  Tensor<float> scratch({kSgemmScratchFloats});
  GuardedFloats out(p.c);
  SgemmArgs args = p.args(out.data(), scratch.data());
  args.accumulate = accumulate;
  std::vector<float> storage(static_cast<size_t>(sgemm_packed_floats(p.k, p.n)));
  if (packed) {
    table.sgemm_pack(
        {.k = p.k, .n = p.n, .b = args.b, .b_row = args.b_row, .b_col = args.b_col, .out = storage.data()});
    args.b = nullptr;
    args.b_packed = storage.data();
    args.packed_k = p.k;
    args.packed_n = p.n;
  }
  table.sgemm(args);
  EXPECT_TRUE(out.guards_intact());
  return {out.values().begin(), out.values().end()};
}

TEST_P(TrainingTable, SgemmMatchesTheReferenceInEveryOrientation) {
  Rng rng(41);
  const int64_t sizes[][3] = {{1, 1, 1},
                              {2, 16, 3},
                              {13, 17, 5},
                              {14, 32, 64},
                              {15, 33, 300},
                              {42, 80, 257},
                              {31, 300, 40},
                              {100, 20, 66},
                              {203, 40, 257},
                              {97, 80, 512},  // rows of A that share sets of the first cache
                              {15, 300, 1040},
                              {29, 65, 1024},
                              {5, 1, 600},
                              {3, 7, 0},
                              {0, 4, 4}};
  for (const auto& size : sizes) {
    for (const Orientation& orientation : kOrientations) {
      const Problem p = make_problem(rng, size[0], size[1], size[2], orientation);
      SCOPED_TRACE(::testing::Message() << orientation.name << " " << p.m << " x " << p.n << " x " << p.k);
      const std::vector<float> bounds(p.c.size(), static_cast<float>(3.0 + 3.0 * static_cast<double>(p.k)));
      for (const bool accumulate : {false, true}) {
        const std::vector<float> expected = run_sgemm(*all_kernels()[0], p, accumulate, false);
        const std::vector<float> actual = run_sgemm(*GetParam(), p, accumulate, false);
        EXPECT_TRUE(near_within(actual, expected, bounds, 1e-7));
        EXPECT_TRUE(same_values(run_sgemm(*GetParam(), p, accumulate, true), actual)) << "packed";
        if (GetParam() != all_kernels()[0]) {
          EXPECT_TRUE(same_values(actual, run_sgemm(first_vector_table(), p, accumulate, false)));
        }
      }
    }
  }
}

TEST_P(TrainingTable, SgemmDoesNotDependOnHowItIsCut) {
  Rng rng(43);
  Tensor<float> scratch({kSgemmScratchFloats});
  for (const Orientation& orientation : kOrientations) {
    const Problem p = make_problem(rng, 29, 70, 290, orientation);
    const std::vector<float> whole = run_sgemm(*GetParam(), p, false, false);
    std::vector<float> pieces(whole.size());
    for (int64_t i = 0; i < p.m; i += 10) {
      for (int64_t j = 0; j < p.n; j += 33) {
        SgemmArgs args = p.args(pieces.data() + i * p.n + j, scratch.data());
        args.m = std::min<int64_t>(10, p.m - i);
        args.n = std::min<int64_t>(33, p.n - j);
        args.a += i * args.a_row;
        args.b += j * args.b_col;
        GetParam()->sgemm(args);
      }
    }
    EXPECT_TRUE(same_values(pieces, whole)) << orientation.name;
  }
}

// A prefix of packed rows and a range of packed columns give what they give alone: keys up to a position, packed once
// for all queries.
TEST_P(TrainingTable, SgemmTakesPartsOfPackedMatrices) {
  Rng rng(47);
  Tensor<float> scratch({kSgemmScratchFloats});
  Problem p = make_problem(rng, 9, 40, 600, kOrientations[0]);
  std::vector<float> storage(static_cast<size_t>(sgemm_packed_floats(p.k, p.n)));
  GetParam()->sgemm_pack({.k = p.k, .n = p.n, .b = p.b.data(), .b_row = p.n, .b_col = 1, .out = storage.data()});
  for (const int64_t k : {1, 255, 256, 257, 512, 599}) {
    std::vector<float> expected(p.c.size());
    std::vector<float> actual(p.c.size());
    SgemmArgs args = p.args(expected.data(), scratch.data());
    args.k = k;
    GetParam()->sgemm(args);
    args.c = actual.data();
    args.b = nullptr;
    args.b_packed = storage.data();
    args.packed_k = p.k;
    args.packed_n = p.n;
    GetParam()->sgemm(args);
    EXPECT_TRUE(same_values(actual, expected)) << k;
    args.packed_column = 16;
    args.n = 20;
    GetParam()->sgemm(args);
    for (int64_t i = 0; i < p.m; ++i) {
      EXPECT_TRUE(same_values(std::span(actual).subspan(static_cast<size_t>(i * p.n), 20),
                              std::span(expected).subspan(static_cast<size_t>(i * p.n + 16), 20)))
          << k;
    }
  }
}

// Runs a kernel with several outputs on every table and compares them with the reference, and vector tables bit by bit.
template <class Run>
void compare_with_reference(const KernelTable& table, double relative, const Run& run) {
  const std::vector<float> expected = run(*all_kernels()[0]);
  const std::vector<float> actual = run(table);
  std::vector<float> bounds(expected.size());
  for (size_t i = 0; i < bounds.size(); ++i) bounds[i] = std::fabs(expected[i]) + 1e-2F;
  EXPECT_TRUE(near_within(actual, expected, bounds, relative));
  if (&table != all_kernels()[0]) {
    EXPECT_TRUE(same_values(actual, run(first_vector_table())));
  }
}

TEST_P(TrainingTable, ElementwiseBackwardsMatchTheReference) {
  Rng rng(53);
  for (const int64_t n : {1, 2, 15, 16, 17, 31, 64, 100, 257}) {
    SCOPED_TRACE(n);
    const std::vector<float> a = random_floats(rng, n), b = random_floats(rng, n), c = random_floats(rng, n);
    const std::vector<float> d = random_floats(rng, n);
    for (const bool accumulate : {false, true}) {
      compare_with_reference(*GetParam(), 2e-5, [&](const KernelTable& table) {
        std::vector<float> dx = d, dw = d;
        table.rms_norm_backward({.x = a.data(),
                                 .weight = b.data(),
                                 .dy = c.data(),
                                 .dx = dx.data(),
                                 .dweight = dw.data(),
                                 .n = n,
                                 .eps = 1e-6F,
                                 .accumulate = accumulate});
        dx.insert(dx.end(), dw.begin(), dw.end());
        return dx;
      });
    }
    compare_with_reference(*GetParam(), 2e-5, [&](const KernelTable& table) {
      std::vector<float> dgate = a, dup = b;  // in place
      table.silu_mul_backward(
          {.gate = dgate.data(), .up = dup.data(), .dh = c.data(), .dgate = dgate.data(), .dup = dup.data(), .n = n});
      dgate.insert(dgate.end(), dup.begin(), dup.end());
      return dgate;
    });
    compare_with_reference(*GetParam(), 2e-5, [&](const KernelTable& table) {
      std::vector<float> scores = a, dp = b;
      scores.resize(static_cast<size_t>(n + 3), 1.0F);
      dp.resize(static_cast<size_t>(n + 3), 1.0F);
      table.softmax_backward({.scores = scores.data(),
                              .dp = dp.data(),
                              .count = n,
                              .padded = n + 3,
                              .scale = 0.3F,
                              .lse = 2.0F,
                              .delta = 0.1F});
      scores.insert(scores.end(), dp.begin(), dp.end());
      return scores;
    });
    compare_with_reference(*GetParam(), 2e-5, [&](const KernelTable& table) {
      std::vector<float> value = a, first = b, second(c.size());
      for (size_t i = 0; i < c.size(); ++i) second[i] = c[i] * c[i];
      table.adamw({.value = value.data(),
                   .gradient = d.data(),
                   .first = first.data(),
                   .second = second.data(),
                   .n = n,
                   .gradient_factor = 0.7F,
                   .beta1 = 0.9F,
                   .beta2 = 0.95F,
                   .rest1 = 0.1F,
                   .rest2 = 0.05F,
                   .correction1 = 5.0F,
                   .correction2 = 10.0F,
                   .learning_rate = 1e-2F,
                   .epsilon = 1e-8F,
                   .decay = 0.1F});
      value.insert(value.end(), first.begin(), first.end());
      value.insert(value.end(), second.begin(), second.end());
      return value;
    });
  }
}

}  // namespace
}  // namespace lathe
