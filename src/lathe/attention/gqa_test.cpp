// Attention with shared key and value heads against plain double arithmetic: MHA, GQA and MQA, both RoPE layouts,
// biases.
#include "lathe/attention/gqa.h"

#include <gtest/gtest.h>

#include "lathe/attention/rope.h"
#include "support/compare.h"
#include "support/kernels.h"
#include "support/paged_cache.h"

namespace lathe {
namespace {

using testing::CpuBench;
using testing::matrix_of;
using testing::PagedCache;

struct Problem {
  GqaShape shape;
  std::vector<float> q, k, v, o;
  std::vector<float> q_bias, k_bias, v_bias, o_bias;  // empty: none
  std::vector<float> x;
  RopeParameters rope;

  int64_t tokens() const { return static_cast<int64_t>(x.size()) / shape.hidden_size; }
};

Problem make_problem(const GqaShape& shape, int64_t tokens, bool biases, uint64_t seed) {
  Rng rng(seed);
  const int64_t d = shape.hidden_size;
  const int64_t q_rows = shape.num_heads * shape.head_dim;
  const int64_t kv_rows = shape.num_key_value_heads * shape.head_dim;
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  Problem p{.shape = shape,
            .q = testing::random_floats(rng, q_rows * d, scale),
            .k = testing::random_floats(rng, kv_rows * d, scale),
            .v = testing::random_floats(rng, kv_rows * d, scale),
            .o = testing::random_floats(rng, d * q_rows, scale),
            .q_bias = testing::random_floats(rng, biases ? q_rows : 0),
            .k_bias = testing::random_floats(rng, biases ? kv_rows : 0),
            .v_bias = testing::random_floats(rng, biases ? kv_rows : 0),
            .o_bias = testing::random_floats(rng, biases ? d : 0),
            .x = testing::random_floats(rng, tokens * d),
            .rope = {.dim = shape.head_dim, .theta = 50.0}};
  return p;
}

std::vector<float> run(const Problem& p, int64_t chunk, int threads, const KernelTable& kernels) {
  const GqaShape& s = p.shape;
  const auto bias = [](const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); };
  const GqaWeights weights{.q_proj = matrix_of(p.q, s.num_heads * s.head_dim, s.hidden_size),
                           .k_proj = matrix_of(p.k, s.num_key_value_heads * s.head_dim, s.hidden_size),
                           .v_proj = matrix_of(p.v, s.num_key_value_heads * s.head_dim, s.hidden_size),
                           .o_proj = matrix_of(p.o, s.hidden_size, s.num_heads * s.head_dim),
                           .q_proj_bias = bias(p.q_bias),
                           .k_proj_bias = bias(p.k_bias),
                           .v_proj_bias = bias(p.v_bias),
                           .o_proj_bias = bias(p.o_bias)};
  PagedCache cache(CacheFormat::kF32, s.cache_row(), p.tokens(), 3);
  CpuBench bench(threads, gqa_scratch_floats(s, std::min(chunk, p.tokens()), threads), kernels);
  const RopeTable table = RopeTable::make(p.rope);
  std::vector<float> out(p.x.size(), std::nanf(""));
  for (int64_t begin = 0; begin < p.tokens(); begin += chunk) {
    const int64_t tokens = std::min(chunk, p.tokens() - begin);
    std::vector<float> cos(static_cast<size_t>(tokens * table.pairs()));
    std::vector<float> sin(cos.size());
    table.cos_sin_range(begin, tokens, cos, sin);
    const AttentionSegment segment{
        .first_row = 0, .tokens = tokens, .position = begin, .expanded_until = 0, .cache = cache.view()};
    gqa_attention(bench.context(),
                  {.weights = weights,
                   .shape = s,
                   .segments = {&segment, 1},
                   .tokens = tokens,
                   .x = p.x.data() + begin * s.hidden_size,
                   .rope_cos = cos.data(),
                   .rope_sin = sin.data(),
                   .out = out.data() + begin * s.hidden_size});
  }
  return out;
}

using Row = std::vector<double>;

Row multiply(const std::vector<float>& w, const std::vector<float>& bias, const Row& x) {
  Row y(w.size() / x.size());
  for (size_t i = 0; i < y.size(); ++i) {
    y[i] = bias.empty() ? 0.0 : static_cast<double>(bias[i]);
    for (size_t j = 0; j < x.size(); ++j) y[i] += static_cast<double>(w[i * x.size() + j]) * x[j];
  }
  return y;
}

// Rotates every head of `heads`.
void rotate(const Problem& p, int64_t position, Row& heads) {
  const std::vector<double> inv_freq = rope_inv_freq(p.rope);
  const size_t n = 2 * inv_freq.size();
  for (size_t h = 0; h < heads.size(); h += n) {
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      double& a = heads[h + (p.shape.rope_interleaved ? 2 * i : i)];
      double& b = heads[h + (p.shape.rope_interleaved ? 2 * i + 1 : i + inv_freq.size())];
      const double angle = static_cast<double>(position) * inv_freq[i];
      const double turned = a * std::cos(angle) - b * std::sin(angle);
      b = a * std::sin(angle) + b * std::cos(angle);
      a = turned;
    }
  }
}

// Eq. 1-8, position by position.
std::vector<float> plain(const Problem& p) {
  const GqaShape& s = p.shape;
  const auto n = static_cast<size_t>(s.head_dim);
  std::vector<Row> keys, values;
  std::vector<float> out;
  for (int64_t t = 0; t < p.tokens(); ++t) {
    const Row x(p.x.begin() + t * s.hidden_size, p.x.begin() + (t + 1) * s.hidden_size);
    Row q = multiply(p.q, p.q_bias, x);
    Row k = multiply(p.k, p.k_bias, x);
    rotate(p, t, q);
    rotate(p, t, k);
    keys.push_back(k);
    values.push_back(multiply(p.v, p.v_bias, x));
    Row heads(q.size(), 0.0);
    for (size_t h = 0; h < static_cast<size_t>(s.num_heads); ++h) {
      const size_t group = h / static_cast<size_t>(s.num_heads / s.num_key_value_heads);
      Row weights;
      double sum = 0.0;
      for (const Row& key : keys) {
        double score = 0.0;
        for (size_t i = 0; i < n; ++i) score += q[h * n + i] * key[group * n + i];
        weights.push_back(std::exp(score * s.softmax_scale));
        sum += weights.back();
      }
      for (size_t j = 0; j < keys.size(); ++j) {
        for (size_t i = 0; i < n; ++i) heads[h * n + i] += weights[j] / sum * values[j][group * n + i];
      }
    }
    for (const double value : multiply(p.o, p.o_bias, heads)) out.push_back(static_cast<float>(value));
  }
  return out;
}

class GqaOnEveryTable : public ::testing::TestWithParam<const KernelTable*> {};

TEST_P(GqaOnEveryTable, MatchesPlainAttention) {
  struct Case {
    int64_t heads, kv_heads, head_dim, tokens;
    bool interleaved, biases;
  };

  const Case cases[] = {{4, 4, 6, 70, false, false},   // MHA
                        {8, 2, 8, 66, false, true},    // GQA
                        {6, 3, 2, 20, true, true},     // GQA, pairs (2i, 2i+1)
                        {5, 1, 10, 65, false, false},  // MQA
                        {1, 1, 4, 1, true, false}};
  for (const Case& c : cases) {
    SCOPED_TRACE(str(c.heads, " heads on ", c.kv_heads));
    const GqaShape shape{.hidden_size = 15,
                         .num_heads = c.heads,
                         .num_key_value_heads = c.kv_heads,
                         .head_dim = c.head_dim,
                         .softmax_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim))),
                         .rope_interleaved = c.interleaved};
    const Problem p = make_problem(shape, c.tokens, c.biases, 21);
    const std::vector<float> whole = run(p, 1000, 2, *GetParam());
    testing::expect_close(whole, plain(p), testing::tol::kF32Reduction);
    testing::expect_same_bits(run(p, 1, 1, *GetParam()), whole);
    testing::expect_same_bits(run(p, 33, 3, *GetParam()), whole);
  }
}

INSTANTIATE_TEST_SUITE_P(Tables,
                         GqaOnEveryTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

}  // namespace
}  // namespace lathe
