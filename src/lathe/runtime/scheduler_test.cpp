// Budget, order and admission, and a random simulation to the end.
#include "lathe/runtime/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "lathe/base/rng.h"

namespace lathe {
namespace {

using ::testing::ElementsAre;

struct Bench {
  PagePool pool;
  Scheduler scheduler;

  Bench(int64_t pages, int64_t budget)
      : pool(PagePool::create({.format = CacheFormat::kF16, .row_elements = 2, .layers = 1}, pages).value()),
        scheduler(budget) {}

  void add(RequestId id, int64_t prompt_tokens, int64_t new_tokens) {
    Request request;
    for (int64_t i = 0; i < prompt_tokens; ++i)
      request.prompt.push_back(static_cast<int32_t>(100 * id) + static_cast<int32_t>(i));
    auto sequence = std::make_unique<Sequence>(Sequence{.id = id,
                                                        .request = request,
                                                        .on_finished = {},
                                                        .sampler = Sampler({}, {}, nullptr),
                                                        .text = TextStream(nullptr, {}),
                                                        .cache = SequenceCache(pool),
                                                        .tokens = request.prompt,
                                                        .computed = 0,
                                                        .length_limit = prompt_tokens + new_tokens,
                                                        .expanded_until = 0,
                                                        .completion = {},
                                                        .submitted_at = 0.0,
                                                        .first_token_at = 0.0});
    scheduler.add(std::move(sequence));
  }

  Batch next() {
    Batch batch;
    scheduler.next_batch(batch);
    return batch;
  }
};

// "id:position+tokens" per chunk.
std::vector<std::string> chunks_of(const Batch& batch) {
  std::vector<std::string> out;
  for (const SequenceChunk& c : batch.chunks) out.push_back(str(c.sequence, ":", c.position, "+", c.tokens));
  return out;
}

// Gives every sampled sequence of the batch one more token.
void sample_all(const Batch& batch) {
  for (Sequence* sequence : batch.sampled) sequence->tokens.push_back(7);
}

TEST(Scheduler, PromptsAreCutToTheBudgetOldestFirst) {
  Bench bench(10, 8);
  bench.add(1, 5, 3);
  bench.add(2, 10, 3);
  Batch batch = bench.next();
  EXPECT_THAT(chunks_of(batch), ElementsAre("1:0+5", "2:0+3"));
  EXPECT_THAT(batch.token_ids, ElementsAre(100, 101, 102, 103, 104, 200, 201, 202));
  EXPECT_THAT(batch.logit_rows, ElementsAre(4)) << "the second prompt is not complete";
  ASSERT_EQ(batch.sampled.size(), 1u);
  EXPECT_EQ(batch.sampled[0]->id, 1u);
  sample_all(batch);

  batch = bench.next();
  EXPECT_THAT(chunks_of(batch), ElementsAre("1:5+1", "2:3+7")) << "decoding first, prompts get the rest";
  EXPECT_THAT(batch.logit_rows, ElementsAre(0, 7));
  sample_all(batch);
  EXPECT_THAT(chunks_of(bench.next()), ElementsAre("1:6+1", "2:10+1"));
}

TEST(Scheduler, DecodingGoesBeforeAnOlderPrompt) {
  Bench bench(10, 4);
  bench.add(1, 10, 2);
  bench.add(2, 1, 2);
  EXPECT_THAT(chunks_of(bench.next()), ElementsAre("1:0+4"));
  EXPECT_THAT(chunks_of(bench.next()), ElementsAre("1:4+4"));
  Batch batch = bench.next();
  EXPECT_THAT(chunks_of(batch), ElementsAre("1:8+2", "2:0+1"));
  sample_all(batch);
  bench.add(3, 9, 2);
  EXPECT_THAT(chunks_of(bench.next()), ElementsAre("1:10+1", "2:1+1", "3:0+2"));
}

TEST(Scheduler, AdmissionIsInOrderAndWaitingHoldsNothing) {
  Bench bench(4, 100);
  bench.add(1, 100, 28);   // 2 pages
  bench.add(2, 150, 100);  // 4 pages: must wait
  bench.add(3, 10, 10);    // would fit, but is not allowed to pass
  const Batch batch = bench.next();
  EXPECT_THAT(chunks_of(batch), ElementsAre("1:0+100"));
  EXPECT_EQ(bench.pool.free_pages(), 2) << "pages of the longest possible length of the running one only";
  EXPECT_NE(bench.scheduler.remove(1), nullptr);
  EXPECT_EQ(bench.pool.free_pages(), 4);
  EXPECT_THAT(chunks_of(bench.next()), ElementsAre("2:0+100"));
  EXPECT_EQ(bench.pool.free_pages(), 0);
  EXPECT_NE(bench.scheduler.remove(2), nullptr);
  EXPECT_THAT(chunks_of(bench.next()), ElementsAre("3:0+10"));
}

TEST(Scheduler, RemoveFindsRunningAndWaitingOnes) {
  Bench bench(1, 100);
  EXPECT_TRUE(bench.scheduler.idle());
  bench.add(1, 5, 5);
  bench.add(2, 5, 5);
  EXPECT_FALSE(bench.scheduler.idle());
  bench.next();
  EXPECT_EQ(bench.scheduler.remove(9), nullptr);
  EXPECT_EQ(bench.scheduler.remove(2)->id, 2u);
  EXPECT_EQ(bench.scheduler.remove(1)->id, 1u);
  EXPECT_TRUE(bench.scheduler.idle());
  EXPECT_TRUE(bench.next().token_ids.empty());
  EXPECT_EQ(bench.pool.free_pages(), 1);
}

// What random requests look like from the side of the decoder: chunks of a sequence join without gap or overlap, the
// budget holds, pages cover every chunk, and everybody ends.
TEST(Scheduler, RandomRequestsAllRunToTheirEnd) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    const int64_t budget = rng.next_int(1, 90);
    Bench bench(8, budget);
    std::map<RequestId, int64_t> computed;
    RequestId next_id = 1;
    int64_t to_come = 20;
    size_t ended = 0;
    for (int step = 0; step < 20000 && (to_come > 0 || !bench.scheduler.idle()); ++step) {
      if (to_come > 0 && rng.next_int(0, 2) == 0) {
        const int64_t prompt = rng.next_int(1, 300);
        bench.add(next_id, prompt, rng.next_int(1, std::min<int64_t>(40, 512 - prompt)));
        computed[next_id++] = 0;
        --to_come;
      }
      const Batch batch = bench.next();
      ASSERT_LE(static_cast<int64_t>(batch.token_ids.size()), budget);
      ASSERT_EQ(batch.token_ids.empty(), bench.scheduler.idle());
      int64_t row = 0;
      for (const SequenceChunk& chunk : batch.chunks) {
        ASSERT_EQ(chunk.first_row, row);
        ASSERT_EQ(chunk.position, computed[chunk.sequence]);
        ASSERT_GT(chunk.tokens, 0);
        ASSERT_GE(static_cast<int64_t>(chunk.pages.size()), pages_for(chunk.position + chunk.tokens));
        row += chunk.tokens;
        computed[chunk.sequence] += chunk.tokens;
      }
      ASSERT_EQ(row, static_cast<int64_t>(batch.token_ids.size()));
      ASSERT_EQ(batch.sampled.size(), batch.logit_rows.size());
      for (Sequence* sequence : batch.sampled) {
        ASSERT_EQ(sequence->computed, static_cast<int64_t>(sequence->tokens.size()));
        sequence->tokens.push_back(1);
        if (static_cast<int64_t>(sequence->tokens.size()) < sequence->length_limit) continue;
        ASSERT_NE(bench.scheduler.remove(sequence->id), nullptr);
        ++ended;
      }
    }
    EXPECT_EQ(ended, 20u);
    EXPECT_EQ(bench.pool.free_pages(), 8);
  }
}

}  // namespace
}  // namespace lathe
