#include "lathe/runtime/model_bench.h"

#include <gtest/gtest.h>

#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

struct Problem {
  testing::TempDir dir;
  std::unique_ptr<const ModelWeights> weights;
  std::unique_ptr<ThreadPool> pool;

  explicit Problem(const Json& config, int threads = 1) : pool(ThreadPool::create(threads).value()) {
    testing::TinyModel(config).write(dir.path());
    weights = testing::open_weights(dir.path()).value();
  }

  Result<std::unique_ptr<ModelBench>> bench(BenchSettings settings, const KernelTable& table = kernels()) const {
    return ModelBench::create(*weights, *pool, table, std::move(settings));
  }
};

TEST(ModelBench, MeasuresEveryCaseAsOftenAsAsked) {
  const Problem problem(testing::tiny_v2_config());
  const std::vector<BenchCase> cases{{BenchKind::kPrompt, 40, 0},
                                     {BenchKind::kPrompt, 40, 100},
                                     {BenchKind::kGeneration, 3, 0},
                                     {BenchKind::kGeneration, 3, 509}};
  auto bench = problem.bench({.cases = cases, .repeats = 3, .batch_tokens = 16});
  ASSERT_TRUE(bench) << bench.error().message;
  std::vector<std::string> order;
  const std::vector<BenchRow> rows = (*bench)->run([&](int64_t done, int64_t total, const BenchCase& one) {
    EXPECT_EQ(total, 12);
    EXPECT_EQ(done, static_cast<int64_t>(order.size()) + 1);
    order.push_back(str(name_of(one.kind), one.depth));
  });
  ASSERT_EQ(rows.size(), cases.size());
  EXPECT_EQ(order[0], "prompt0");
  EXPECT_EQ(order[4], "prompt0");  // in turns, not one case after the other
  EXPECT_EQ(order[11], "gen509");
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].measured.depth, cases[i].depth);
    EXPECT_EQ(rows[i].seconds.size(), 3u);
    const BenchRow::Rate rate = rows[i].tokens_per_second();
    EXPECT_GT(rate.min, 0.0);
    EXPECT_LE(rate.min, rate.median);
    EXPECT_LE(rate.median, rate.max);
    EXPECT_GT(rows[i].cost.bytes, 0.0);
    EXPECT_GT(rows[i].cost.operations, 0.0);
  }
  EXPECT_GT(rows[3].cost.bytes, rows[2].cost.bytes);  // the cache that is read
  EXPECT_GT(rows[3].cost.operations, rows[2].cost.operations);
}

TEST(ModelBench, RatesAreOrderStatistics) {
  BenchRow row{.measured = {BenchKind::kGeneration, 8, 0}, .seconds = {4.0, 1.0, 2.0}, .cost = {}};
  EXPECT_DOUBLE_EQ(row.tokens_per_second().median, 4.0);
  EXPECT_DOUBLE_EQ(row.tokens_per_second().min, 2.0);
  EXPECT_DOUBLE_EQ(row.tokens_per_second().max, 8.0);
  row.seconds = {1.0, 3.0};
  EXPECT_DOUBLE_EQ(row.tokens_per_second().median, 4.0);
}

TEST(ModelBench, TheSignatureTellsWhatIsComputedAndNotHow) {
  const Problem one(testing::tiny_v2_config(), 1);
  const Problem two(testing::tiny_v2_config(), 2);
  const auto signature = [](const Problem& problem, BenchSettings settings, const KernelTable& table = kernels()) {
    return problem.bench(std::move(settings), table).value()->signature();
  };
  const std::string expected = signature(one, {});
  EXPECT_EQ(expected.size(), 16u);
  EXPECT_EQ(expected.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(signature(two, {}), expected);
  EXPECT_EQ(signature(one, {.batch_tokens = 37}), expected);
  EXPECT_EQ(signature(one, {.cases = {{BenchKind::kGeneration, 2, 400}}, .seed = 9}), expected);
  for (const KernelTable* table : all_kernels()) {
    if (table->isa == "reference") continue;  // sums in double
    EXPECT_EQ(signature(one, {}, *table), expected) << table->isa;
  }
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kQ8, CacheFormat::kQ6}) {
    EXPECT_NE(signature(one, {.cache_type = format}), expected) << cache_format_name(format);
  }
  const auto after_run = one.bench({.cases = {{BenchKind::kPrompt, 20, 3}}, .repeats = 1}).value();
  EXPECT_EQ(after_run->signature(), expected);
  (void)after_run->run({});
  EXPECT_EQ(after_run->signature(), expected);
  EXPECT_NE(signature(Problem(testing::tiny_v3_config()), {}), expected);
}

TEST(ModelBench, RefusesWhatTheModelCannotHold) {
  const Problem problem(testing::tiny_v2_config());  // 512 positions
  const auto message = [&](BenchSettings settings) {
    const auto bench = problem.bench(std::move(settings));
    EXPECT_FALSE(bench.has_value());
    if (bench) return std::string();
    EXPECT_EQ(bench.error().code, Errc::kInvalidArgument);
    return bench.error().message;
  };
  EXPECT_EQ(message({.cases = {{BenchKind::kPrompt, 13, 500}}}),
            "bench: expected at most max_position_embeddings 512 positions, found 13 tokens at depth 500");
  EXPECT_EQ(message({.cases = {{BenchKind::kPrompt, 1, INT64_MAX}}}),
            str("bench: expected at most max_position_embeddings 512 positions, found 1 tokens at depth ", INT64_MAX));
  EXPECT_EQ(message({.cases = {{BenchKind::kPrompt, 0, 0}}}),
            "bench: expected at least 1 token and depth 0, found 0 at depth 0");
  EXPECT_EQ(message({.repeats = 0}), "bench: expected at least 1 repeat, found 0");
  EXPECT_EQ(message({.batch_tokens = 0}), "bench: expected a batch of at least 1, found 0");
}

// Against the counts that follow from the configuration alone.
TEST(PassCost, OneTokenReadsTheActiveParameters) {
  for (const Json& json : {testing::tiny_v2_config(), testing::tiny_v3_config(), testing::tiny_llama_config()}) {
    const Problem problem(json);
    const ModelConfig& config = problem.weights->config();
    const CacheLayout layout{
        .format = CacheFormat::kF16, .row_elements = config.cache_row_elements(), .layers = config.num_hidden_layers};
    const PassCost cost = pass_cost(*problem.weights, layout, {.tokens = 1, .position = 99, .logit_rows = 1});
    const ParameterCounts counts = count_parameters(config);
    const int64_t bias = config.topk_method == TopkMethod::kNoauxTc ? 2 * config.n_routed_experts : 0;  // not counted
    const double weights = 4.0 * static_cast<double>(counts.active - bias + config.hidden_size);
    const double cache = 2.0 * 100.0 * static_cast<double>(config.cache_row_elements() * config.num_hidden_layers);
    EXPECT_NEAR(cost.bytes, weights + cache, 1.0) << config.architecture;
    // Products: the matrices (norms are not), and attention over 100 positions.
    const bool mla = config.attention == AttentionKind::kMla;
    const auto heads = static_cast<double>(config.num_attention_heads);
    const double per_position = mla ? heads * static_cast<double>(2 * config.kv_lora_rank + config.qk_rope_head_dim)
                                    : heads * 2.0 * static_cast<double>(config.head_dim);
    const int64_t norms =
        config.num_hidden_layers * (2 * config.hidden_size + (mla ? config.q_lora_rank + config.kv_lora_rank : 0)) +
        config.hidden_size;
    const double products = static_cast<double>(counts.active - bias - norms) +
                            100.0 * per_position * static_cast<double>(config.num_hidden_layers);
    EXPECT_NEAR(cost.operations, 2.0 * products, 1.0) << config.architecture;
  }
}

TEST(PassCost, ManyTokensTouchMoreExpertsAndShareTheRest) {
  const Problem problem(testing::tiny_v2_config());
  const CacheLayout layout{.format = CacheFormat::kF16, .row_elements = 18, .layers = 3};
  const PassCost one = pass_cost(*problem.weights, layout, {.tokens = 1, .logit_rows = 1});
  const PassCost many = pass_cost(*problem.weights, layout, {.tokens = 64, .logit_rows = 1});
  EXPECT_GT(many.bytes, one.bytes);
  EXPECT_LT(many.bytes, static_cast<double>(problem.weights->stored_bytes()) + 64 * 18 * 3 * 2 + 1);
  EXPECT_GT(many.operations, 40 * one.operations);  // the head is for one row
  const PassCost expanded = pass_cost(*problem.weights, layout, {.tokens = 64, .expanded_until = 64, .logit_rows = 1});
  EXPECT_EQ(expanded.bytes, many.bytes);
  // 64 tokens x 3 heads: (14 + 14 + 4) per absorbed position, (9 + 7 + 4) per expanded one; both go through kv_b once
  // per token.
  constexpr int kPositions = 64 * 65 / 2;
  EXPECT_NEAR(many.operations - expanded.operations, 2.0 * 3 * 3 * kPositions * (32 - 20), 1.0);
}

TEST(PassCost, StoredBytesOfEveryKind) {
  const std::byte data{};
  const float scale = 1.0F;
  EXPECT_EQ(stored_bytes({}), 0.0);
  EXPECT_EQ(stored_bytes({.dtype = DType::kBF16, .rows = 3, .cols = 5, .data = &data}), 30.0);
  EXPECT_EQ(stored_bytes({.dtype = DType::kF8E4M3, .rows = 129, .cols = 128, .data = &data, .scales = &scale}),
            129 * 128 + 8);
  EXPECT_EQ(stored_bytes({.dtype = DType::kQ8_0, .rows = 16, .cols = 64, .data = &data}), 16 * 68);
  EXPECT_EQ(stored_bytes({.dtype = DType::kQ8_0, .rows = 17, .cols = 64, .data = &data, .packed = true}), 2 * 16 * 68);
}

}  // namespace
}  // namespace lathe
