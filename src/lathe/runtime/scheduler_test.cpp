// Budget, order, admission and preemption, and random simulations to the end in which every cache row is a fingerprint
// of what it must have been computed from.
#include "lathe/runtime/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "lathe/base/rng.h"
#include "lathe/runtime/drafter.h"

namespace lathe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A row of 4 bytes per position: room for one fingerprint.
constexpr CacheLayout kLayout{.format = CacheFormat::kF16, .row_elements = 2, .layers = 1};

uint32_t fingerprint(uint32_t before, int32_t token, bool expanded) {
  uint32_t x = (before ^ (static_cast<uint32_t>(token) * 2 + (expanded ? 1 : 0))) * 0x9E3779B1U;
  x ^= x >> 15U;
  return x * 0x85EBCA77U + 1;
}

struct Bench {
  PagePool pool;
  PrefixCache prefixes;
  TextDrafter drafter;
  Scheduler scheduler;

  explicit Bench(int64_t pages, SchedulerLimits limits, bool prefix_cache = false)
      : pool(PagePool::create(kLayout, pages).value()),
        prefixes(pool, 1),
        scheduler(limits, pool, prefix_cache ? &prefixes : nullptr, drafter) {}

  Sequence* add(RequestId id, std::vector<int32_t> prompt, int64_t new_tokens, Request request = {}) {
    request.prompt = std::move(prompt);
    request.draft_tokens = std::max<int64_t>(request.draft_tokens, 0);
    const auto length = static_cast<int64_t>(request.prompt.size());
    auto sequence = std::make_unique<Sequence>(Sequence{.id = id,
                                                        .request = request,
                                                        .on_finished = {},
                                                        .sampler = Sampler({}, {}, nullptr),
                                                        .text = TextStream(nullptr, {}),
                                                        .cache = SequenceCache(pool),
                                                        .tokens = request.prompt,
                                                        .length_limit = length + new_tokens,
                                                        .expanded_until = length / 256 * 256,
                                                        .draft_window = request.draft_tokens});
    if (request.prompt_logprobs >= 0) sequence->completion.prompt_logprobs.resize(1);
    Sequence* added = sequence.get();
    scheduler.add(std::move(sequence));
    return added;
  }

  Sequence* add(RequestId id, int64_t prompt_tokens, int64_t new_tokens, Request request = {}) {
    std::vector<int32_t> prompt;
    for (int64_t i = 0; i < prompt_tokens; ++i) prompt.push_back(static_cast<int32_t>(100 * id + i));
    return add(id, std::move(prompt), new_tokens, std::move(request));
  }

  Batch next() {
    Batch batch;
    scheduler.next_batch(batch);
    return batch;
  }

  // Counts the rows and gives every sequence whose last token was computed one more.
  void sample(const Batch& batch) {
    for (const BatchEntry& entry : batch.entries) {
      scheduler.commit(entry);
      if (entry.sequence->uncomputed() == 0) entry.sequence->tokens.push_back(7);
    }
  }

  // Chunks of the next batch as "id:position+tokens"; its answers are taken.
  std::vector<std::string> step() {
    const Batch batch = next();
    std::vector<std::string> out;
    for (const SequenceChunk& c : batch.chunks) out.push_back(str(c.sequence, ":", c.position, "+", c.tokens));
    sample(batch);
    return out;
  }
};

TEST(Scheduler, PromptsAreCutToTheBudget) {
  Bench bench(10, {.batch_tokens = 8});
  bench.add(1, 5, 3);
  bench.add(2, 10, 3);
  Batch batch = bench.next();
  EXPECT_THAT(batch.token_ids, ElementsAre(100, 101, 102, 103, 104, 200, 201, 202));
  EXPECT_THAT(batch.logit_rows, ElementsAre(4)) << "the second prompt is not complete";
  ASSERT_EQ(batch.entries.size(), 2u);
  EXPECT_EQ(batch.entries[0].logits, 1);
  EXPECT_EQ(batch.entries[1].logits, 0);
  bench.sample(batch);
  batch = bench.next();
  EXPECT_THAT(batch.token_ids, ElementsAre(7, 203, 204, 205, 206, 207, 208, 209)) << "answers first";
  EXPECT_THAT(batch.logit_rows, ElementsAre(0, 7));
  bench.sample(batch);
  EXPECT_THAT(bench.step(), ElementsAre("1:6+1", "2:10+1"));
}

TEST(Scheduler, ShortPromptsPassALongOneThatStillMovesOn) {
  Bench bench(100, {.batch_tokens = 8});
  bench.add(1, 1000, 1);
  EXPECT_THAT(bench.step(), ElementsAre("1:0+8"));
  bench.add(2, 20, 5);
  bench.add(3, 3, 5);
  EXPECT_THAT(bench.step(), ElementsAre("1:8+4", "2:0+1", "3:0+3")) << "half for the oldest, then the shortest";
  EXPECT_THAT(bench.step(), ElementsAre("3:3+1", "1:12+4", "2:1+3"));
  for (int i = 0; i < 5; ++i) bench.step();
  EXPECT_THAT(bench.step(), ElementsAre("2:19+1", "3:9+1", "1:36+6")) << "a last prompt token is like an answer's";
}

TEST(Scheduler, AnOldestPromptNeedsAtMostTwiceItsShare) {
  // A flood of short prompts, each shorter than what is left of the long one.
  Bench bench(64, {.batch_tokens = 16, .running = 16});
  Sequence* long_one = bench.add(1, 640, 1);
  RequestId next = 2;
  int steps = 0;
  for (; long_one->uncomputed() > 1; ++steps) {
    ASSERT_LT(steps, 640 / 8 + 1);
    while (bench.scheduler.waiting() < 4) bench.add(next++, 30, 1);
    const Batch batch = bench.next();
    ASSERT_EQ(batch.token_ids.size(), 16u) << "no row is left unused";
    for (const BatchEntry& entry : batch.entries) {
      bench.scheduler.commit(entry);
      if (entry.sequence->uncomputed() == 0 && entry.sequence != long_one) bench.scheduler.remove(entry.sequence->id);
    }
  }
}

TEST(Scheduler, AdmissionIsInOrderByWhatIsNeededNow) {
  Bench bench(4, {.batch_tokens = 200});
  bench.add(1, 100, 100);  // 2 pages now, 4 in the end
  bench.add(2, 70, 10);    // 2 pages: leaves none for the first one to grow
  bench.add(3, 10, 10);    // would fit, but is not allowed to pass
  EXPECT_THAT(bench.step(), ElementsAre("1:0+100"));
  EXPECT_EQ(bench.pool.free_pages(), 2);
  EXPECT_EQ(bench.scheduler.waiting(), 2);
  EXPECT_NE(bench.scheduler.remove(1), nullptr);
  EXPECT_THAT(bench.step(), ElementsAre("2:0+70", "3:0+10"));
  EXPECT_EQ(bench.pool.free_pages(), 1);
}

TEST(Scheduler, TheYoungestGivesUpItsPagesAndComesBackFirst) {
  Bench bench(4, {.batch_tokens = 200});
  Sequence* old = bench.add(1, 64, 150);
  Sequence* young = bench.add(2, 10, 100);
  bench.add(3, 10, 10);
  EXPECT_THAT(bench.step(), ElementsAre("1:0+64", "2:0+10"));
  EXPECT_EQ(bench.scheduler.running(), 2) << "a page for each of the two that may grow is kept back";
  for (int i = 0; i < 54; ++i) bench.step();
  EXPECT_EQ(old->cache.pages().size(), 2u);
  EXPECT_EQ(young->cache.pages().size(), 1u);
  bench.step();
  EXPECT_EQ(young->cache.pages().size(), 2u) << "the last free page";
  for (int i = 0; i < 8; ++i) bench.step();
  EXPECT_EQ(old->tokens.size(), 128u);
  EXPECT_THAT(bench.step(), ElementsAre("1:127+1", "2:73+1"));
  EXPECT_THAT(bench.step(), ElementsAre("1:128+1")) << "two pages of the youngest for one of the oldest";
  EXPECT_EQ(young->completion.preemptions, 1);
  EXPECT_EQ(young->computed, 0);
  EXPECT_EQ(bench.scheduler.preemptions(), 1);
  EXPECT_EQ(bench.scheduler.waiting(), 2);
  EXPECT_NE(bench.scheduler.remove(1), nullptr);
  EXPECT_THAT(bench.step(), ElementsAre("2:0+75", "3:0+10")) << "prompt and output, in one go";
}

TEST(Scheduler, AtMostSoManyRun) {
  Bench bench(10, {.batch_tokens = 100, .running = 2});
  for (RequestId id = 1; id <= 3; ++id) bench.add(id, 5, 5);
  EXPECT_THAT(bench.step(), ElementsAre("1:0+5", "2:0+5"));
  EXPECT_NE(bench.scheduler.remove(2), nullptr);
  EXPECT_THAT(bench.step(), ElementsAre("1:5+1", "3:0+5"));
}

TEST(Scheduler, RowsForLogprobsOfThePromptAreLimited) {
  Bench bench(10, {.batch_tokens = 100, .running = 4, .extra_logits = 5});
  Sequence* sequence = bench.add(1, 20, 5, {.prompt_logprobs = 0});
  bench.add(2, 20, 5);
  const std::vector<std::pair<int64_t, int64_t>> expected{{0, 6}, {6, 6}, {12, 6}, {18, 2}, {20, 1}};
  for (const auto& [position, rows] : expected) {
    const Batch batch = bench.next();
    const auto at = std::ranges::find(batch.entries, sequence, &BatchEntry::sequence);
    ASSERT_NE(at, batch.entries.end());
    EXPECT_EQ(at->logits_position, position);
    EXPECT_EQ(at->logits, rows);
    for (int64_t i = 0; i < at->logits && sequence->wants_prompt_logprobs(); ++i) {
      sequence->completion.prompt_logprobs.emplace_back();
    }
    bench.sample(batch);
  }
}

TEST(Scheduler, RemoveFindsRunningAndWaitingOnes) {
  Bench bench(1, {.batch_tokens = 100});
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

TEST(Scheduler, PrefixesAreSharedWithWhoeverRunsAtTheSameTime) {
  Bench bench(8, {.batch_tokens = 100}, true);
  std::vector<int32_t> prompt(150, 5);
  Sequence* first = bench.add(1, prompt, 5);
  Sequence* second = bench.add(2, prompt, 5);
  EXPECT_THAT(bench.step(), ElementsAre("1:0+100"));
  EXPECT_EQ(second->cache.pages().size(), 3u);
  EXPECT_THAT(bench.step(), ElementsAre("1:100+50", "2:64+50")) << "the page that the first has finished meanwhile";
  EXPECT_EQ(second->completion.cached_prompt_tokens, 64);
  EXPECT_EQ(second->cache.pages()[0], first->cache.pages()[0]);
  EXPECT_NE(second->cache.pages()[1], first->cache.pages()[1]) << "half computed by itself";
  EXPECT_THAT(bench.step(), ElementsAre("1:150+1", "2:128+22"));
  EXPECT_EQ(second->completion.cached_prompt_tokens, 64 + 14);
  EXPECT_EQ(second->cache.pages()[1], first->cache.pages()[1]);
  EXPECT_EQ(bench.pool.free_pages(), 8 - 4);

  Sequence* other_scope = bench.add(3, prompt, 5, {.cache_scope = 1});
  Sequence* whole = bench.add(4, std::vector<int32_t>(128, 5), 5);
  bench.step();
  EXPECT_EQ(other_scope->completion.cached_prompt_tokens, 0);
  EXPECT_EQ(whole->completion.cached_prompt_tokens, 127) << "the last token's row is always computed";
}

// Two rows that are computed side by side before either page is full end up in one page.
TEST(Scheduler, EqualPagesBecomeOne) {
  Bench bench(8, {.batch_tokens = 100}, true);
  Sequence* first = bench.add(1, std::vector<int32_t>(40, 5), 100);
  Sequence* second = bench.add(2, std::vector<int32_t>(40, 5), 100);
  bench.step();
  EXPECT_EQ(bench.pool.free_pages(), 6);
  for (int i = 0; i < 25; ++i) bench.step();
  EXPECT_EQ(first->cache.pages()[0], second->cache.pages()[0]);
  EXPECT_NE(first->cache.pages()[1], second->cache.pages()[1]);
  EXPECT_EQ(bench.pool.free_pages(), 5);
}

TEST(Drafter, ContinuesTheLatestLongestMatch) {
  const auto draft = [](std::vector<int32_t> tokens, int64_t count) {
    std::vector<int32_t> out;
    draft_from_text(tokens, count, out);
    return out;
  };
  EXPECT_THAT(draft({1, 2, 3, 9, 8, 1, 2}, 3), ElementsAre(3, 9, 8));
  EXPECT_THAT(draft({1, 2, 3, 1, 2, 4, 1, 2}, 1), ElementsAre(4)) << "the latest of equals";
  EXPECT_THAT(draft({5, 1, 2, 3, 1, 2, 4, 5, 1, 2}, 1), ElementsAre(3)) << "the longer one";
  EXPECT_THAT(draft({1, 2, 1, 2}, 5), ElementsAre(1, 2, 1, 2, 1)) << "a period goes on";
  EXPECT_THAT(draft({7, 7, 7}, 2), ElementsAre(7, 7));
  EXPECT_THAT(draft({1, 2, 3, 4}, 5), IsEmpty());
  EXPECT_THAT(draft({3, 1, 3}, 5), IsEmpty()) << "one equal token is too little";
  EXPECT_THAT(draft({1, 2, 1, 2}, 0), IsEmpty());
  EXPECT_THAT(draft({}, 5), IsEmpty());
}

// The model of the simulation: the next token follows from the fingerprint of all before it. Few different ones, so
// that texts repeat themselves.
int32_t next_token(uint32_t row) {
  return static_cast<int32_t>(row >> 16U) % 3;
}

std::vector<int32_t> solo(std::vector<int32_t> tokens, int64_t new_tokens) {
  const size_t expanded_until = tokens.size() / 256 * 256;
  uint32_t row = 0;
  for (size_t i = 0, end = tokens.size() + static_cast<size_t>(new_tokens); i < end; ++i) {
    if (i == tokens.size()) tokens.push_back(next_token(row));
    row = fingerprint(row, tokens[i], i < expanded_until);
  }
  return tokens;
}

struct Simulation {
  Bench bench;
  int64_t budget;
  std::map<RequestId, std::vector<int32_t>> expected = {};  // of those that run
  int64_t accepted = 0;

  static uint32_t* row_of(const SequenceChunk& chunk, int64_t position) {
    std::byte* page = chunk.pages[static_cast<size_t>(position / kPageTokens)];
    return reinterpret_cast<uint32_t*>(page) + position % kPageTokens;
  }

  // What the decoder does: rows in the pages of the chunk, from the row before.
  void forward(const Batch& batch) {
    int64_t row = 0;
    for (const SequenceChunk& chunk : batch.chunks) {
      ASSERT_EQ(chunk.first_row, row);
      ASSERT_GE(static_cast<int64_t>(chunk.pages.size()), pages_for(chunk.position + chunk.tokens));
      for (int64_t position = chunk.position; position < chunk.position + chunk.tokens; ++position, ++row) {
        const uint32_t before = position == 0 ? 0 : *row_of(chunk, position - 1);
        *row_of(chunk, position) =
            fingerprint(before, batch.token_ids[static_cast<size_t>(row)], position < chunk.expanded_until);
      }
    }
    ASSERT_EQ(row, static_cast<int64_t>(batch.token_ids.size()));
  }

  // What the engine does with the rows: a token after each as long as the drafts are right.
  void answer(const BatchEntry& entry, const SequenceChunk& chunk) {
    Sequence& sequence = *entry.sequence;
    bench.scheduler.commit(entry);
    sequence.completion.preemptions = 0;
    size_t right = 0;
    for (int64_t position = entry.logits_position; position < entry.logits_position + entry.logits; ++position) {
      sequence.first_token_at = 1.0;
      const int32_t token = next_token(*row_of(chunk, position));
      sequence.tokens.push_back(token);
      if (static_cast<int64_t>(sequence.tokens.size()) == sequence.length_limit) {
        ASSERT_EQ(sequence.tokens, expected.at(sequence.id));
        expected.erase(sequence.id);
        bench.scheduler.remove(sequence.id);
        return;
      }
      if (right == sequence.drafts.size() || sequence.drafts[right] != token) break;
      ++right;
      ++accepted;
      ++sequence.computed;
    }
    if (!sequence.drafts.empty()) sequence.learn_from_drafts(right);
  }

  void step() {
    const Batch batch = bench.next();
    ASSERT_LE(static_cast<int64_t>(batch.token_ids.size()), budget);
    ASSERT_EQ(batch.token_ids.empty(), bench.scheduler.idle());
    if (!batch.entries.empty()) {
      const auto oldest = std::ranges::min(batch.entries, {}, [](const BatchEntry& e) { return e.sequence->id; });
      ASSERT_EQ(oldest.sequence->id, expected.begin()->first) << "the oldest request always moves on";
    }
    forward(batch);
    for (size_t i = 0; i < batch.entries.size(); ++i) answer(batch.entries[i], batch.chunks[i]);
  }
};

std::vector<int32_t> random_prompt(Rng& rng, int64_t tokens) {
  // Beginnings of two kinds, cut anywhere: many are shared, and pages of one recur at other positions.
  const auto kind = static_cast<int32_t>(rng.next_int(0, 1));
  const int64_t common = rng.next_int(0, tokens);
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < tokens; ++i) {
    prompt.push_back(i < common ? kind * 10 + static_cast<int32_t>(i % 4) : static_cast<int32_t>(rng.next_int(0, 2)));
  }
  return prompt;
}

// Random arrivals, cancellations, budgets and drafts in a pool that is too small: everybody gets what he would get
// alone, the oldest request moves on in every step, and no page is lost.
TEST(Scheduler, RandomRequestsGetWhatTheyGetAlone) {
  int64_t preemptions = 0;
  int64_t accepted = 0;
  int64_t cached = 0;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    const int64_t budget = rng.next_int(1, 90);
    const int64_t pages = rng.next_int(8, 16);
    const bool prefix_cache = seed % 3 != 0;
    Simulation run{.bench = Bench(pages,
                                  {.batch_tokens = budget,
                                   .running = std::min(budget, rng.next_int(1, 8)),
                                   .extra_logits = rng.next_int(0, 20)},
                                  prefix_cache),
                   .budget = budget};
    RequestId next_id = 1;
    for (int step = 0; step < 100000 && (next_id <= 25 || !run.bench.scheduler.idle()); ++step) {
      if (next_id <= 25 && rng.next_int(0, 3) == 0) {
        const std::vector<int32_t> prompt = random_prompt(rng, rng.next_int(1, seed % 2 == 0 ? 150 : 310));
        const int64_t new_tokens = rng.next_int(1, std::min<int64_t>(200, 512 - static_cast<int64_t>(prompt.size())));
        run.expected[next_id] = solo(prompt, new_tokens);
        const int64_t drafts = rng.next_int(0, 6);
        run.bench.add(next_id++, prompt, new_tokens, {.draft_tokens = drafts});
      }
      if (!run.expected.empty() && rng.next_int(0, 60) == 0) {
        auto at = run.expected.begin();
        std::advance(at, rng.next_int(0, static_cast<int64_t>(run.expected.size()) - 1));
        const std::unique_ptr<Sequence> removed = run.bench.scheduler.remove(at->first);
        ASSERT_NE(removed, nullptr);
        cached += removed->completion.cached_prompt_tokens;
        run.expected.erase(at);
      }
      run.step();
      if (HasFatalFailure()) return;
    }
    EXPECT_TRUE(run.expected.empty());
    EXPECT_EQ(run.bench.pool.free_pages() + run.bench.pool.kept_pages(), pages);
    EXPECT_EQ(run.bench.pool.kept_pages() > 0, prefix_cache);
    preemptions += run.bench.scheduler.preemptions();
    accepted += run.accepted;
  }
  EXPECT_GT(preemptions, 100);
  EXPECT_GT(accepted, 1000);
  EXPECT_GT(cached, 1000);
}

}  // namespace
}  // namespace lathe
