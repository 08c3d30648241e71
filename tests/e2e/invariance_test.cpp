// The same answer always: logits of a token do not depend, bit for bit, on thread count, prompt chunks, batch
// companions, cache pages or the vector instruction set. And the three forms of MLA agree within rounding.
#include <gtest/gtest.h>

#include "lathe/base/rng.h"
#include "lathe/model/cpu_backend.h"
#include "lathe/reference/reference_backend.h"
#include "lathe/runtime/engine.h"
#include "support/compare.h"
#include "support/golden_file.h"

namespace lathe {
namespace {

using testing::golden_models;
using testing::GoldenModel;

std::unique_ptr<Engine> open_engine(const GoldenModel& model,
                                    int threads,
                                    const KernelTable* kernels = nullptr,
                                    std::optional<CacheFormat> cache = CacheFormat::kF32) {
  Result<std::unique_ptr<Engine>> engine =
      Engine::open({.model = model.folder, .threads = threads, .ctx_size = 0, .cache_type = cache, .kernels = kernels});
  EXPECT_TRUE(engine.has_value()) << model.name << ": " << (engine ? "" : engine.error().message);
  return engine ? std::move(*engine) : nullptr;
}

std::vector<int32_t> random_prompt(const ModelConfig& config, int64_t tokens, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> ids;
  const int64_t length = std::min(tokens, config.max_position_embeddings);
  for (int64_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>(rng.next_int(0, config.vocab_size - 1)));
  return ids;
}

std::vector<float> score(Engine& engine, const std::vector<int32_t>& ids, int64_t chunk_tokens) {
  std::vector<float> logits;
  const Status status = engine.score(
      ids,
      [&](int64_t, int64_t rows, const float* values) {
        logits.insert(logits.end(), values, values + rows * engine.config().vocab_size);
        return true;
      },
      nullptr,
      chunk_tokens);
  EXPECT_TRUE(status.has_value());
  return logits;
}

// 600 tokens: more than two blocks of the expanded form, a rest in the absorbed form, and more than one attention
// split.
constexpr int64_t kLong = 600;

TEST(Invariance, ThreadsAndPromptChunksChangeNoBit) {
  for (const GoldenModel& model : golden_models()) {
    SCOPED_TRACE(model.name);
    const std::unique_ptr<Engine> one = open_engine(model, 1);
    const std::vector<int32_t> ids = random_prompt(one->config(), kLong, 11);
    const std::vector<float> expected = score(*one, ids, 0);
    testing::expect_same_bits(score(*open_engine(model, 2), ids, 0), expected);
    testing::expect_same_bits(score(*open_engine(model, 3), ids, 0), expected);
    for (const int64_t chunk : {1, 7, 64, 300}) {
      SCOPED_TRACE(chunk);
      testing::expect_same_bits(score(*one, ids, chunk), expected);
    }
  }
}

TEST(Invariance, VectorTablesAgreeBitForBit) {
  std::vector<const KernelTable*> vector_tables;
  for (const KernelTable* table : all_kernels()) {
    if (table->isa != "reference") vector_tables.push_back(table);
  }
  if (vector_tables.size() < 2) GTEST_SKIP() << "this machine runs one vector table only";
  for (const GoldenModel& model : golden_models()) {
    SCOPED_TRACE(model.name);
    for (const CacheFormat cache : {CacheFormat::kF16, CacheFormat::kQ8, CacheFormat::kQ6}) {
      SCOPED_TRACE(cache_format_name(cache));
      const std::unique_ptr<Engine> first = open_engine(model, 2, vector_tables[0], cache);
      const std::vector<int32_t> ids = random_prompt(first->config(), kLong, 12);
      const std::vector<float> expected = score(*first, ids, 0);
      for (const KernelTable* table : std::span(vector_tables).subspan(1)) {
        // The tables between the first and the last differ in int8 products alone, which the q8 cache has.
        if (table != vector_tables.back() && cache != CacheFormat::kQ8) continue;
        SCOPED_TRACE(table->isa);
        testing::expect_same_bits(score(*open_engine(model, 2, table, cache), ids, 0), expected);
      }
    }
  }
}

// Quantised on load: int8 products, panels, and the rows that the absorbed form reads.
TEST(Invariance, QuantisedWeightsChangeNoBitEither) {
  const GoldenModel model = golden_models().back();
  ASSERT_EQ(model.name, "storyteller");
  for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ4_K_M}) {
    SCOPED_TRACE(quant_type_name(type));
    std::vector<float> expected;
    std::vector<int32_t> ids;
    for (const KernelTable* table : all_kernels()) {
      if (table->isa == "reference") continue;
      for (const int threads : {1, 3}) {
        SCOPED_TRACE(threads);
        Result<std::unique_ptr<Engine>> engine =
            Engine::open({.model = model.folder, .threads = threads, .weight_type = type, .kernels = table});
        ASSERT_TRUE(engine.has_value()) << engine.error().message;
        ASSERT_NE((*engine)->weights().packed(), nullptr);
        if (ids.empty()) ids = random_prompt((*engine)->config(), 400, 15);
        for (const int64_t chunk : {0, 100, 1}) {
          if (chunk == 1 && threads != 1) continue;
          const std::vector<float> logits = score(**engine, ids, chunk);
          if (expected.empty()) expected = logits;
          testing::expect_same_bits(logits, expected);
        }
      }
    }
  }
}

Request request_for(const Engine& engine, int64_t prompt_tokens, uint64_t seed) {
  Request request;
  request.prompt = random_prompt(engine.config(), prompt_tokens, seed);
  request.max_tokens = 12;
  request.ignore_eos = true;
  request.sampling.temperature = 0.9;
  request.sampling.seed = seed;
  request.sampling.logprobs = 3;
  return request;
}

void expect_same(const Completion& a, const Completion& b) {
  ASSERT_EQ(a.tokens.size(), b.tokens.size());
  for (size_t i = 0; i < a.tokens.size(); ++i) {
    EXPECT_EQ(a.tokens[i].id, b.tokens[i].id) << i;
    EXPECT_EQ(a.tokens[i].logprob, b.tokens[i].logprob) << i;
    ASSERT_EQ(a.tokens[i].top.size(), b.tokens[i].top.size());
    for (size_t k = 0; k < a.tokens[i].top.size(); ++k)
      EXPECT_EQ(a.tokens[i].top[k].logprob, b.tokens[i].top[k].logprob);
  }
}

// Eight requests of different lengths share every step; each must get what it gets alone. Their pages interleave in the
// pool, and the second round finds the pool's free list in another order.
TEST(Invariance, AloneEqualsInABatchOfEight) {
  for (const GoldenModel& model : golden_models()) {
    SCOPED_TRACE(model.name);
    const std::unique_ptr<Engine> engine = open_engine(model, 2);
    const std::vector<int64_t> lengths{1, 5, 64, 65, 130, 257, 300, 33};
    std::vector<Completion> alone;
    for (size_t i = 0; i < lengths.size(); ++i) {
      Result<Completion> completion = engine->generate(request_for(*engine, lengths[i], i));
      ASSERT_TRUE(completion.has_value());
      alone.push_back(std::move(*completion));
    }
    for (int round = 0; round < 2; ++round) {
      std::vector<std::optional<Completion>> batched(lengths.size());
      for (size_t i = 0; i < lengths.size(); ++i) {
        const size_t which = round == 0 ? i : lengths.size() - 1 - i;
        Result<RequestId> id = engine->submit(request_for(*engine, lengths[which], which),
                                              [&batched, which](RequestId, Result<Completion> result) {
                                                ASSERT_TRUE(result.has_value());
                                                batched[which] = std::move(*result);
                                              });
        ASSERT_TRUE(id.has_value());
      }
      while (engine->step()) {
      }
      for (size_t i = 0; i < lengths.size(); ++i) {
        SCOPED_TRACE(i);
        ASSERT_TRUE(batched[i].has_value());
        expect_same(*batched[i], alone[i]);
      }
    }
  }
}

// Logits of all positions with the whole prompt in one form.
std::vector<float> forward_in_form(const ModelWeights& weights, const std::vector<int32_t>& ids, bool expanded) {
  const ModelConfig& config = weights.config();
  Result<std::unique_ptr<ThreadPool>> pool = ThreadPool::create(2);
  const CacheLayout layout{
      .format = CacheFormat::kF32, .row_elements = config.cache_row_elements(), .layers = config.num_hidden_layers};
  const auto tokens = static_cast<int64_t>(ids.size());
  Result<PagePool> pages = PagePool::create(layout, pages_for(tokens));
  SequenceCache cache(*pages);
  EXPECT_TRUE(cache.reserve(tokens));
  Result<std::unique_ptr<CpuBackend>> backend = CpuBackend::create(weights, layout, **pool, kernels(), tokens);
  Result<Decoder> decoder = Decoder::create(config, **backend);
  std::vector<int64_t> rows(ids.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
  const SequenceChunk chunk{.sequence = 1,
                            .first_row = 0,
                            .tokens = tokens,
                            .position = 0,
                            .expanded_until = expanded ? tokens : 0,
                            .pages = cache.pages()};
  std::vector<float> logits(ids.size() * static_cast<size_t>(config.vocab_size));
  decoder->forward({.token_ids = ids, .chunks = {&chunk, 1}, .logit_rows = rows}, logits.data(), nullptr);
  return logits;
}

// Logit differences between the forms of MLA: fp32 sums in another order through a few layers, as in
// tests/golden/README.md.
constexpr testing::Tolerance kForms{"kForms", 2e-4, 1e-5, 1e-8};

TEST(Invariance, AbsorbedEqualsExpandedEqualsReference) {
  for (const GoldenModel& model : golden_models()) {
    SCOPED_TRACE(model.name);
    const std::unique_ptr<Engine> engine = open_engine(model, 1);
    if (engine->config().attention != AttentionKind::kMla) continue;
    const testing::GoldenFile golden(model.expected / "expected.safetensors");
    const std::string prompt = model.name == "storyteller" ? "forest" : "mid";
    const std::vector<int32_t> ids = golden.ints(prompt + ".input_ids");
    const std::vector<float> absorbed = forward_in_form(engine->weights(), ids, false);
    testing::expect_close(forward_in_form(engine->weights(), ids, true), absorbed, kForms);

    reference::ReferenceBackend backend(engine->weights());
    Result<Decoder> decoder = Decoder::create(engine->config(), backend);
    std::vector<int64_t> rows(ids.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
    // In two steps, so that the reference's own history is exercised too.
    std::vector<float> expected(absorbed.size());
    const auto half = static_cast<int64_t>(ids.size() / 2);
    const auto vocab = static_cast<size_t>(engine->config().vocab_size);
    const SequenceChunk first{
        .sequence = 1, .first_row = 0, .tokens = half, .position = 0, .expanded_until = 0, .pages = {}};
    const SequenceChunk second{.sequence = 1,
                               .first_row = 0,
                               .tokens = static_cast<int64_t>(ids.size()) - half,
                               .position = half,
                               .expanded_until = 0,
                               .pages = {}};
    const std::span<const int32_t> all(ids);
    const std::span<const int64_t> all_rows(rows);
    decoder->forward({.token_ids = all.first(static_cast<size_t>(half)),
                      .chunks = {&first, 1},
                      .logit_rows = all_rows.first(static_cast<size_t>(half))},
                     expected.data(),
                     nullptr);
    decoder->forward({.token_ids = all.subspan(static_cast<size_t>(half)),
                      .chunks = {&second, 1},
                      .logit_rows = all_rows.first(ids.size() - static_cast<size_t>(half))},
                     expected.data() + static_cast<size_t>(half) * vocab,
                     nullptr);
    testing::expect_close(absorbed, expected, kForms);
  }
}

}  // namespace
}  // namespace lathe
