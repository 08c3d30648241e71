// Single operations against the golden vectors of tests/golden/ops, which independent float64 implementations computed:
// through every kernel table and through the reference equations.
#include <gtest/gtest.h>

#include <cmath>

#include "lathe/base/scalar.h"
#include "lathe/reference/equations.h"
#include "support/compare.h"
#include "support/golden_mla.h"
#include "support/golden_router.h"

namespace lathe {
namespace {

using reference::Matrix;
using reference::Vec;
using testing::golden_dir;
using testing::golden_mla;
using testing::golden_routers;
using testing::GoldenFile;
using testing::GoldenMla;
using testing::GoldenRouter;

// Tolerances of tests/golden/README.md for operations.
constexpr testing::Tolerance kOp{"kOp", 0.0, 1e-5, 1e-9};
constexpr testing::Tolerance kNorm{"kNorm", 0.0, 2e-6, 1e-11};

Json cases_of(const char* operation) {
  return *read_json(golden_dir() / "ops" / "ops.json")->find(operation)->find("cases");
}

std::vector<float> as_floats(const std::vector<Vec>& rows) {
  std::vector<float> out;
  for (const Vec& row : rows) {
    for (const double v : row) out.push_back(static_cast<float>(v));
  }
  return out;
}

std::vector<Vec> as_rows(const std::vector<float>& values, size_t width) {
  std::vector<Vec> out;
  for (size_t i = 0; i < values.size(); i += width) {
    out.emplace_back(values.begin() + static_cast<int64_t>(i), values.begin() + static_cast<int64_t>(i + width));
  }
  return out;
}

TEST(GoldenOps, RmsNorm) {
  const GoldenFile file(golden_dir() / "ops" / "rmsnorm.safetensors");
  const Json cases = cases_of("rmsnorm");
  for (const Json& c : cases.as_array()) {
    const std::string name = c.find("case")->as_string();
    const double eps = c.find("eps")->as_double();
    const auto dim = static_cast<size_t>(c.find("dim")->as_int());
    const std::vector<float> x = file.floats(name + ".x");
    const std::vector<float> weight = file.floats(name + ".weight");
    const std::vector<float> expected = file.floats(name + ".y");
    for (const KernelTable* table : all_kernels()) {
      SCOPED_TRACE(name + " " + std::string(table->isa));
      std::vector<float> y(x.size());
      for (size_t i = 0; i < x.size(); i += dim) {
        table->rms_norm(x.data() + i, weight.data(), y.data() + i, static_cast<int64_t>(dim), static_cast<float>(eps));
      }
      testing::expect_close(y, expected, kNorm);
    }
    std::vector<Vec> y_T;
    for (const Vec& row : as_rows(x, dim)) y_T.push_back(reference::rms_norm(row, weight.data(), eps));
    testing::expect_close(as_floats(y_T), expected, kNorm);
  }
}

// Rows at the golden positions, up to 163839: RopeTable's angles and the kernels' rotation in both layouts.
TEST(GoldenOps, YarnRotation) {
  const GoldenFile file(golden_dir() / "ops" / "yarn.safetensors");
  const std::vector<int32_t> positions = file.ints("positions");
  const Json cases = cases_of("yarn");
  for (const Json& c : cases.as_array()) {
    const std::string name = c.find("case")->as_string();
    const auto number = [&](const char* key) { return c.find(key)->as_double(); };
    const RopeTable rope =
        RopeTable::make({.kind = RopeKind::kYarn,
                         .dim = c.find("dim")->as_int(),
                         .theta = number("base"),
                         .factor = number("factor"),
                         .original_max_position_embeddings = number("original_max_position_embeddings"),
                         .beta_fast = number("beta_fast"),
                         .beta_slow = number("beta_slow"),
                         .mscale = number("mscale"),
                         .mscale_all_dim = number("mscale_all_dim")});
    const auto dim = static_cast<size_t>(rope.dim());
    const auto pairs = static_cast<size_t>(rope.pairs());
    const std::vector<float> x = file.floats(name + ".rope_x");
    const std::vector<float> interleaved = file.floats(name + ".rope_y_interleaved");
    const std::vector<float> half_split = file.floats(name + ".rope_y_half_split");
    const std::vector<double> cos64 = file.doubles(name + ".cos");
    const std::vector<double> sin64 = file.doubles(name + ".sin");
    ASSERT_EQ(x.size(), positions.size() * 3 * dim);
    for (const KernelTable* table : all_kernels()) {
      SCOPED_TRACE(name + " " + std::string(table->isa));
      std::vector<float> in_place = x;
      std::vector<float> split;  // evens, then odds: how the modelling code permutes before it rotates halves
      for (size_t i = 0; i < x.size(); i += dim) {
        for (const size_t offset : {size_t{0}, size_t{1}}) {
          for (size_t pair = 0; pair < pairs; ++pair) split.push_back(x[i + 2 * pair + offset]);
        }
      }
      std::vector<float> cos(pairs), sin(pairs);
      for (size_t p = 0; p < positions.size(); ++p) {
        rope.cos_sin(positions[p], cos.data(), sin.data());
        for (size_t row = 3 * p; row < 3 * p + 3; ++row) {
          table->rope_interleaved(in_place.data() + row * dim, cos.data(), sin.data(), rope.pairs());
          table->rope_half_split(split.data() + row * dim, cos.data(), sin.data(), rope.pairs());
        }
      }
      testing::expect_close(in_place, interleaved, kNorm);
      testing::expect_close(split, half_split, kNorm);
    }
    std::vector<Vec> y_T;
    const std::vector<Vec> x_T = as_rows(x, dim);
    for (size_t row = 0; row < x_T.size(); ++row) {
      const std::span<const double> cos = std::span(cos64).subspan(row / 3 * pairs, pairs);
      const std::span<const double> sin = std::span(sin64).subspan(row / 3 * pairs, pairs);
      y_T.push_back(reference::rope(x_T[row], cos, sin, true));
    }
    testing::expect_close(as_floats(y_T), interleaved, kNorm);
  }
}

TEST(GoldenOps, RouterThroughTheGate) {
  for (const GoldenRouter& golden : golden_routers()) {
    SCOPED_TRACE(golden.name);
    const testing::Selection actual = testing::run_gate(golden.shape, golden.logits, golden.bias);
    EXPECT_EQ(actual.experts, golden.experts);
    testing::expect_close(actual.weights, golden.weights, {"router weights", 0.0, 2e-6, 1e-11});
    if (golden.scores.empty()) continue;
    std::vector<float> scores = golden.logits;
    const auto experts = static_cast<size_t>(golden.shape.n_routed_experts);
    for (size_t i = 0; i < scores.size(); i += experts) {
      gate_scores(golden.shape.scoring_func, std::span(scores).subspan(i, experts));
    }
    testing::expect_close(scores, golden.scores, {"router scores", 0.0, 2e-6, 1e-11});
  }
}

TEST(GoldenOps, RouterThroughTheEquations) {
  for (const GoldenRouter& golden : golden_routers()) {
    SCOPED_TRACE(golden.name);
    std::vector<int32_t> experts;
    std::vector<float> weights;
    for (const Vec& logits : as_rows(golden.logits, static_cast<size_t>(golden.shape.n_routed_experts))) {
      const Vec s_t = reference::eq_22_affinity(logits, golden.shape.scoring_func);
      const std::vector<int64_t> chosen = reference::eq_21_topk(s_t, golden.bias, golden.shape);
      for (const int64_t expert : chosen) experts.push_back(static_cast<int32_t>(expert));
      for (const double w : reference::eq_21_gate(s_t, chosen, golden.shape)) weights.push_back(static_cast<float>(w));
    }
    EXPECT_EQ(experts, golden.experts);
    testing::expect_close(weights, golden.weights, {"router weights", 0.0, 2e-7, 1e-12});
  }
}

TEST(GoldenOps, MlaBlockInEveryForm) {
  for (const GoldenMla& golden : golden_mla()) {
    if (!golden.has_block) continue;
    for (const KernelTable* table : all_kernels()) {
      SCOPED_TRACE(golden.name + " " + std::string(table->isa));
      const int64_t tokens = golden.past + golden.fresh;
      ASSERT_EQ(golden.problem.tokens(), tokens);
      testing::expect_close(run_mla(golden.problem, {.kernels = table}), golden.y, kOp);
      testing::expect_close(run_mla(golden.problem, {.expanded_until = tokens, .kernels = table}), golden.y, kOp);
      // The prompt in one go, then the decode step against the cache, token by token and at once.
      testing::expect_close(run_mla(golden.problem, {.chunk = golden.past, .kernels = table}), golden.y, kOp);
      testing::expect_close(
          run_mla(golden.problem, {.expanded_until = golden.past, .chunk = 1, .kernels = table}), golden.y, kOp);
    }
  }
}

TEST(GoldenOps, MlaCacheRows) {
  for (const GoldenMla& golden : golden_mla()) {
    if (!golden.has_block) continue;
    SCOPED_TRACE(golden.name);
    std::vector<float> cached;
    run_mla(golden.problem, {}, &cached);
    testing::expect_close(cached, golden.core_cache, kOp);
  }
}

// The absorbed core alone, with the published widths in real_dims. The log-sum-exp comes out through a trick: one more
// position with a key of zeros, whose score is 0, and a column that is 1 there and 0 elsewhere read as value. That
// column's result is 1 / (1 + exp(lse)).
TEST(GoldenOps, AbsorbedCoreAndItsLogSumExp) {
  for (const GoldenMla& golden : golden_mla()) {
    for (const KernelTable* table : all_kernels()) {
      SCOPED_TRACE(golden.name + " " + std::string(table->isa));
      const MlaShape& s = golden.problem.shape;
      const int64_t width = s.cache_row();
      const int64_t tokens = golden.past + golden.fresh;
      testing::PagedCache cache(CacheFormat::kF32, width, tokens, 1);
      testing::PagedCache marked(CacheFormat::kF32, width + 1, tokens + 1, 1);
      std::vector<float> row(static_cast<size_t>(width + 1), 0.0F);
      row.back() = 1.0F;
      marked.store(0, row.data());
      for (int64_t p = 0; p < tokens; ++p) {
        cache.store(p, golden.core_cache.data() + p * width);
        std::copy_n(golden.core_cache.begin() + p * width, width, row.begin());
        row.back() = 0.0F;
        marked.store(p + 1, row.data());
      }
      const FlashGroup group{.first_head = 0, .heads = s.num_heads, .key_first = 0, .value_first = 0};
      const AttentionSegment segment{
          .first_row = 0, .tokens = golden.fresh, .position = golden.past, .expanded_until = 0, .cache = cache.view()};
      std::vector<float> out(golden.core_out.size());
      FlashProblem problem{.segments = {&segment, 1},
                           .groups = {&group, 1},
                           .num_heads = s.num_heads,
                           .key_cols = width,
                           .value_cols = s.kv_lora_rank,
                           .scale = s.softmax_scale,
                           .q = golden.core_q.data(),
                           .out = out.data()};
      testing::CpuBench bench(2, flash_scratch_floats(width, s.kv_lora_rank, 2), *table);
      flash_attention(bench.context(), problem);
      testing::expect_close(out, golden.core_out, kOp);

      const FlashGroup marker{.first_head = 0, .heads = s.num_heads, .key_first = 0, .value_first = width};
      AttentionSegment shifted = segment;
      shifted.position += 1;
      shifted.cache = marked.view();
      std::vector<float> share(golden.core_lse.size());
      problem.segments = {&shifted, 1};
      problem.groups = {&marker, 1};
      problem.value_cols = 1;
      problem.out = share.data();
      flash_attention(bench.context(), problem);
      for (size_t i = 0; i < share.size(); ++i) {
        EXPECT_NEAR(
            std::log(1.0 / share[i] - 1.0), golden.core_lse[i], 1e-5 * std::max(1.0F, std::fabs(golden.core_lse[i])));
      }
    }
  }
}

TEST(GoldenOps, E4m3CodesAndRounding) {
  const GoldenFile file(golden_dir() / "ops" / "fp8.safetensors");
  const std::vector<float> values = file.floats("e4m3_codes_values");
  for (size_t code = 0; code < 256; ++code) {
    const float value = e4m3_to_float(static_cast<uint8_t>(code));
    if ((code & 0x7fU) == 0x7fU) {
      EXPECT_TRUE(std::isnan(value)) << code;  // stored as 0 in the file
    } else {
      EXPECT_EQ(value, values[code]) << code;
      EXPECT_EQ(float_to_e4m3(value), code);
    }
  }
  const Result<SafetensorsFile> raw = SafetensorsFile::open(golden_dir() / "ops" / "fp8.safetensors");
  const std::vector<float> x = file.floats("round.x");
  const std::span<const std::byte> codes = raw->find("round.code_saturating")->bytes;
  ASSERT_EQ(codes.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(float_to_e4m3(x[i]), std::to_integer<uint8_t>(codes[i])) << x[i];
}

TEST(GoldenOps, Fp8BlockScales) {
  const GoldenFile file(golden_dir() / "ops" / "fp8.safetensors");
  const Result<SafetensorsFile> raw = SafetensorsFile::open(golden_dir() / "ops" / "fp8.safetensors");
  for (const std::string name : {"a", "b", "c"}) {
    SCOPED_TRACE(name);
    const StoredTensor& stored = *raw->find(name + ".weight");
    const std::vector<float> scales = file.floats(name + ".weight_scale_inv");
    const WeightMatrix w{.dtype = DType::kF8E4M3,
                         .rows = stored.shape[0],
                         .cols = stored.shape[1],
                         .data = stored.bytes.data(),
                         .stride = 0,
                         .scales = scales.data()};
    std::vector<Vec> rows;
    for (int64_t i = 0; i < w.rows; ++i) rows.push_back(Matrix(w).row(i));
    testing::expect_same_bits(as_floats(rows), file.floats(name + ".weight_dequant"));

    const std::vector<float> x = file.floats(name + ".x");
    const std::vector<float> expected = file.floats(name + ".y_weight_only");
    const auto tokens = static_cast<int64_t>(x.size()) / w.cols;
    for (const KernelTable* table : all_kernels()) {
      SCOPED_TRACE(std::string(table->isa));
      testing::CpuBench bench(2, 16, *table);
      std::vector<float> y(expected.size());
      linear(bench.context(), w, nullptr, x.data(), tokens, y.data());
      testing::expect_close(y, expected, kOp);
    }
    testing::expect_close(as_floats(Matrix(w) * as_rows(x, static_cast<size_t>(w.cols))), expected, kOp);
  }
}

}  // namespace
}  // namespace lathe
