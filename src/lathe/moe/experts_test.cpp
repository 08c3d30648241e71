// The MoE layer against plain double arithmetic on random shapes, and the invariances of its dispatch.
#include "lathe/moe/experts.h"

#include <gtest/gtest.h>

#include <deque>
#include <numeric>

#include "support/compare.h"
#include "support/cpu.h"
#include "support/kernels.h"

namespace lathe {
namespace {

using testing::CpuBench;
using testing::matrix_of;

struct ExpertValues {
  std::vector<float> gate, up, down;
  int64_t width = 0;
};

// One MoE layer with its own weights.
struct Layer {
  MoeShape shape;
  std::vector<float> router;
  std::vector<float> bias;
  std::deque<ExpertValues> values;  // routed, then shared where there are shared experts
  std::vector<SwigluWeights> experts;
  MoeWeights weights;
};

ExpertValues random_expert(Rng& rng, int64_t d, int64_t width) {
  const double in = 1.0 / std::sqrt(static_cast<double>(d));
  return {.gate = testing::random_floats(rng, width * d, 2.0 * in),
          .up = testing::random_floats(rng, width * d, in),
          .down = testing::random_floats(rng, d * width, 1.0 / std::sqrt(static_cast<double>(width))),
          .width = width};
}

SwigluWeights weights_of(const ExpertValues& e, int64_t d) {
  return {.gate_proj = matrix_of(e.gate, e.width, d),
          .up_proj = matrix_of(e.up, e.width, d),
          .down_proj = matrix_of(e.down, d, e.width)};
}

void make_layer(Layer& layer, const MoeShape& shape, uint64_t seed) {
  Rng rng(seed);
  layer.shape = shape;
  const int64_t d = shape.hidden_size;
  layer.router = testing::random_floats(rng, shape.gate.n_routed_experts * d, 1.0 / std::sqrt(static_cast<double>(d)));
  for (int64_t e = 0; e < shape.gate.n_routed_experts; ++e) {
    layer.values.push_back(random_expert(rng, d, shape.moe_intermediate_size));
    layer.experts.push_back(weights_of(layer.values.back(), d));
  }
  layer.weights.gate = matrix_of(layer.router, shape.gate.n_routed_experts, d);
  layer.weights.experts = layer.experts;
  if (shape.gate.topk_method == TopkMethod::kNoauxTc) {
    layer.bias = testing::random_floats(rng, shape.gate.n_routed_experts, 0.1);
    layer.weights.e_score_correction_bias = layer.bias;
  }
  if (shape.shared_intermediate_size > 0) {
    layer.values.push_back(random_expert(rng, d, shape.shared_intermediate_size));
    layer.weights.shared = weights_of(layer.values.back(), d);
  }
}

struct Output {
  std::vector<float> y;
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Output run(const Layer& layer,
           const std::vector<float>& x,
           int threads = 2,
           const KernelTable& kernels = lathe::kernels()) {
  const auto tokens = static_cast<int64_t>(x.size()) / layer.shape.hidden_size;
  const auto chosen = static_cast<size_t>(tokens * layer.shape.gate.num_experts_per_tok);
  Output out{std::vector<float>(x.size(), std::nanf("")), std::vector<int32_t>(chosen), std::vector<float>(chosen)};
  CpuBench bench(threads, moe_scratch_floats(layer.shape, tokens), kernels);
  moe_forward(bench.context(),
              layer.weights,
              layer.shape,
              x.data(),
              tokens,
              out.y.data(),
              {.experts_TK = out.experts.data(), .weights_TK = out.weights.data()});
  return out;
}

// y += weight * W_down (silu(W_gate x) * W_up x), in double.
void add_expert(const ExpertValues& e, const float* x, int64_t d, double weight, std::vector<double>& y) {
  const auto dot = [&](const std::vector<float>& w, int64_t row) {
    double sum = 0.0;
    for (int64_t j = 0; j < d; ++j) sum += static_cast<double>(w[static_cast<size_t>(row * d + j)]) * x[j];
    return sum;
  };
  for (int64_t i = 0; i < e.width; ++i) {
    const double z = dot(e.gate, i);
    const double h = z / (1.0 + std::exp(-z)) * dot(e.up, i);
    for (int64_t j = 0; j < d; ++j) {
      y[static_cast<size_t>(j)] += weight * h * static_cast<double>(e.down[static_cast<size_t>(j * e.width + i)]);
    }
  }
}

// Eq. 20-22 with the router in double; selection by the gate's own function, which gate_test.cpp checks.
Output plain(const Layer& layer, const std::vector<float>& x) {
  const MoeShape& s = layer.shape;
  const auto k = static_cast<size_t>(s.gate.num_experts_per_tok);
  const auto experts = static_cast<size_t>(s.gate.n_routed_experts);
  const auto d = static_cast<size_t>(s.hidden_size);
  Output out;
  std::vector<float> scores(experts), scratch(experts);
  for (const float* row = x.data(); row < x.data() + x.size(); row += d) {
    for (size_t e = 0; e < experts; ++e) {
      double z = 0.0;
      for (size_t j = 0; j < d; ++j) z += static_cast<double>(layer.router[e * d + j]) * row[j];
      scores[e] = static_cast<float>(z);
    }
    gate_scores(s.gate.scoring_func, scores);
    std::vector<int32_t> chosen(k);
    std::vector<float> weights(k);
    select_experts(s.gate, scores, layer.bias, scratch, chosen, weights);
    std::vector<double> y(d, 0.0);
    if (s.shared_intermediate_size > 0) add_expert(layer.values.back(), row, s.hidden_size, 1.0, y);
    for (size_t i = 0; i < k; ++i) {
      add_expert(layer.values[static_cast<size_t>(chosen[i])], row, s.hidden_size, weights[i], y);
    }
    out.y.insert(out.y.end(), y.begin(), y.end());
    out.experts.insert(out.experts.end(), chosen.begin(), chosen.end());
    out.weights.insert(out.weights.end(), weights.begin(), weights.end());
  }
  return out;
}

MoeShape random_shape(Rng& rng) {
  const int64_t groups = rng.next_int(1, 4);
  const int64_t width = rng.next_int(1, 5);
  const int64_t kept = rng.next_int(1, groups);
  const int64_t method = rng.next_int(0, 2);
  const int64_t f = rng.next_int(1, 20);
  return {.hidden_size = rng.next_int(1, 40),
          .moe_intermediate_size = f,
          .shared_intermediate_size = rng.next_int(0, 2) * f,
          .gate = {.n_routed_experts = groups * width,
                   .num_experts_per_tok = rng.next_int(1, kept * width),
                   .n_group = groups,
                   .topk_group = kept,
                   .topk_method = method == 0   ? TopkMethod::kGreedy
                                  : method == 1 ? TopkMethod::kGroupLimitedGreedy
                                                : TopkMethod::kNoauxTc,
                   .scoring_func = method == 2 ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax,
                   .norm_topk_prob = rng.next_int(0, 1) == 1,
                   .scale_normalised = method == 2,
                   .routed_scaling_factor = static_cast<float>(rng.next_int(1, 4))}};
}

class MoeOnEveryTable : public ::testing::TestWithParam<const KernelTable*> {};

TEST_P(MoeOnEveryTable, RandomShapesMatchPlainArithmetic) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    Layer layer;
    make_layer(layer, random_shape(rng), seed);
    const int64_t tokens = seed % 5 == 0 ? 1 : rng.next_int(1, 40);
    const std::vector<float> x = testing::random_floats(rng, tokens * layer.shape.hidden_size);
    const Output actual = run(layer, x, 2, *GetParam());
    const Output expected = plain(layer, x);
    ASSERT_EQ(actual.experts, expected.experts);
    testing::expect_close(actual.weights, expected.weights, testing::tol::kF32Reduction);
    testing::expect_close(actual.y, expected.y, testing::tol::kF32Reduction);
    const size_t k = static_cast<size_t>(layer.shape.gate.num_experts_per_tok);
    for (size_t i = 0; i < actual.experts.size(); ++i) {
      if (i % k == 0) continue;
      EXPECT_LT(actual.experts[i - 1], actual.experts[i]) << "ids ascend within a token";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables,
                         MoeOnEveryTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

MoeShape plain_shape(int64_t experts, int64_t k) {
  return {.hidden_size = 16,
          .moe_intermediate_size = 12,
          .shared_intermediate_size = 24,
          .gate = {.n_routed_experts = experts, .num_experts_per_tok = k}};
}

TEST(Moe, OneExpertMayGetEveryToken) {
  Layer layer;
  make_layer(layer, plain_shape(6, 1), 3);
  Rng rng(3);
  std::vector<float> x = testing::random_floats(rng, 37 * 16);
  for (float& v : x) v = std::fabs(v);
  std::ranges::fill(layer.router, -1.0F);
  std::fill_n(layer.router.begin() + 4 * 16, 16, 1.0F);
  const Output actual = run(layer, x);
  EXPECT_EQ(actual.experts, std::vector<int32_t>(37, 4));
  testing::expect_close(actual.y, plain(layer, x).y, testing::tol::kF32Reduction);
}

TEST(Moe, EveryExpertMayBeChosen) {
  Layer layer;
  make_layer(layer, plain_shape(5, 5), 4);
  Rng rng(4);
  const std::vector<float> x = testing::random_floats(rng, 3 * 16);
  const Output actual = run(layer, x);
  EXPECT_EQ(actual.experts, (std::vector<int32_t>{0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4}));
  for (size_t t = 0; t < 3; ++t) {
    EXPECT_NEAR(std::accumulate(actual.weights.begin() + static_cast<int64_t>(t * 5),
                                actual.weights.begin() + static_cast<int64_t>(t * 5 + 5),
                                0.0),
                1.0,
                1e-6);
  }
  testing::expect_close(actual.y, plain(layer, x).y, testing::tol::kF32Reduction);
}

TEST(Moe, BatchAndThreadsChangeNoBit) {
  for (uint64_t seed = 50; seed < 56; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    Layer layer;
    make_layer(layer, random_shape(rng), seed);
    const auto d = static_cast<size_t>(layer.shape.hidden_size);
    const std::vector<float> x = testing::random_floats(rng, 67 * layer.shape.hidden_size);
    const Output together = run(layer, x, 1);
    testing::expect_same_bits(run(layer, x, 3).y, together.y);
    for (size_t t = 0; t < 67; t += 11) {
      const auto row = x.begin() + static_cast<int64_t>(t * d);
      const Output alone = run(layer, {row, row + static_cast<int64_t>(d)}, 2);
      testing::expect_same_bits(alone.y, std::span(together.y).subspan(t * d, d));
    }
  }
}

TEST(Moe, ATokenOfNaNHarmsNobodyElse) {
  Layer layer;
  make_layer(layer, plain_shape(8, 3), 6);
  Rng rng(6);
  std::vector<float> x = testing::random_floats(rng, 5 * 16);
  const Output clean = run(layer, x);
  x[2 * 16 + 7] = std::numeric_limits<float>::quiet_NaN();
  const Output broken = run(layer, x);
  for (size_t t = 0; t < 5; ++t) {
    if (t == 2) continue;
    testing::expect_same_bits(std::span(broken.y).subspan(t * 16, 16), std::span(clean.y).subspan(t * 16, 16));
  }
  for (size_t i = 0; i < 16; ++i) EXPECT_TRUE(std::isnan(broken.y[2 * 16 + i]));
  for (const int32_t expert : broken.experts) EXPECT_TRUE(expert >= 0 && expert < 8);
}

TEST(Moe, ATraceIsOptional) {
  Layer layer;
  make_layer(layer, plain_shape(4, 2), 7);
  Rng rng(7);
  const std::vector<float> x = testing::random_floats(rng, 2 * 16);
  std::vector<float> y(x.size());
  CpuBench bench(1, moe_scratch_floats(layer.shape, 2));
  moe_forward(bench.context(), layer.weights, layer.shape, x.data(), 2, y.data(), {});
  testing::expect_same_bits(y, run(layer, x, 1).y);
}

TEST(Swiglu, MatchesPlainArithmetic) {
  Rng rng(9);
  for (const int64_t width : {1, 7, 50}) {
    const ExpertValues values = random_expert(rng, 19, width);
    const std::vector<float> x = testing::random_floats(rng, 4 * 19);
    std::vector<float> y(x.size());
    CpuBench bench(2, swiglu_scratch_floats(19, width, 4));
    swiglu_forward(bench.context(), weights_of(values, 19), x.data(), 4, y.data());
    std::vector<float> expected;
    for (size_t t = 0; t < 4; ++t) {
      std::vector<double> row(19, 0.0);
      add_expert(values, x.data() + t * 19, 19, 1.0, row);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    testing::expect_close(y, expected, testing::tol::kF32Reduction);
  }
}

}  // namespace
}  // namespace lathe
