// flash_attention against plain double arithmetic, and the independence of a result from everything but its own
// context.
#include "lathe/attention/flash.h"

#include <gtest/gtest.h>

#include <array>
#include <deque>

#include "support/compare.h"
#include "support/kernels.h"
#include "support/paged_cache.h"

namespace lathe {
namespace {

using testing::CpuBench;
using testing::PagedCache;

struct Span {
  int64_t position;
  int64_t tokens;
};

struct Shape {
  int64_t kv_heads = 1;
  int64_t heads_per_group = 1;
  int64_t key_cols = 8;
  int64_t value_cols = 8;
  bool shared = false;  // values are the first columns of the keys, as in absorbed MLA
  CacheFormat format = CacheFormat::kF32;

  int64_t heads() const { return kv_heads * heads_per_group; }
};

// Sequences with random caches and queries, packed into one batch.
struct Batch {
  Shape shape;
  std::deque<PagedCache> caches;
  std::vector<AttentionSegment> segments;
  std::vector<FlashGroup> groups;
  std::vector<float> q;
  std::vector<float> out;
  int64_t tokens = 0;

  FlashProblem problem() {
    return {.segments = segments,
            .groups = groups,
            .num_heads = shape.heads(),
            .key_cols = shape.key_cols,
            .value_cols = shape.value_cols,
            .scale = 0.35F,
            .q = q.data(),
            .out = out.data()};
  }

  size_t row_floats() const { return static_cast<size_t>(shape.heads() * shape.value_cols); }
};

int64_t row_elements(const Shape& shape) {
  return shape.kv_heads * (shape.shared ? shape.key_cols : shape.key_cols + shape.value_cols);
}

Batch make_batch(const Shape& shape, const std::vector<Span>& spans, uint64_t seed, uint64_t shuffle_seed = 0) {
  Batch batch{.shape = shape, .caches = {}, .segments = {}, .groups = {}, .q = {}, .out = {}, .tokens = 0};
  Rng rng(seed);
  for (const Span& span : spans) {
    const int64_t end = span.position + span.tokens;
    PagedCache& cache = batch.caches.emplace_back(shape.format, row_elements(shape), end, seed + shuffle_seed);
    for (int64_t p = 0; p < end; ++p) cache.store(p, testing::random_floats(rng, row_elements(shape)).data());
    batch.segments.push_back({.first_row = batch.tokens,
                              .tokens = span.tokens,
                              .position = span.position,
                              .expanded_until = 0,
                              .cache = cache.view()});
    batch.tokens += span.tokens;
  }
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    batch.groups.push_back(
        {.first_head = g * shape.heads_per_group,
         .heads = shape.heads_per_group,
         .key_first = g * shape.key_cols,
         .value_first = shape.shared ? g * shape.key_cols : shape.kv_heads * shape.key_cols + g * shape.value_cols});
  }
  batch.q = testing::random_floats(rng, batch.tokens * shape.heads() * shape.key_cols);
  batch.out.assign(static_cast<size_t>(batch.tokens) * batch.row_floats(), std::nanf(""));
  return batch;
}

void run(Batch& batch, int threads, const KernelTable& kernels = lathe::kernels()) {
  CpuBench bench(threads, flash_scratch_floats(batch.shape.key_cols, batch.shape.value_cols, threads), kernels);
  flash_attention(bench.context(), batch.problem());
}

// Lengths at the edges of a page and of splits.
constexpr int64_t kLengths[] = {1, 2, 63, 64, 65, 128, 129, 511, 512, 513, 1023, 1024, 1025};

int64_t pick_length(Rng& rng) {
  return kLengths[rng.next_int(0, static_cast<int64_t>(std::size(kLengths)) - 1)];
}

Shape random_shape(Rng& rng) {
  constexpr CacheFormat kTypes[] = {
      CacheFormat::kF32, CacheFormat::kBF16, CacheFormat::kF16, CacheFormat::kQ8, CacheFormat::kQ6};
  // Few heads of a group go through dot products, from eight on they lie in lanes.
  constexpr int64_t kManyHeads[] = {8, 11, 16, 17, 40};
  Shape shape{.kv_heads = rng.next_int(1, 3),
              .heads_per_group = rng.next_int(0, 1) == 1 ? rng.next_int(1, 7) : kManyHeads[rng.next_int(0, 4)],
              .key_cols = rng.next_int(1, 140),
              .value_cols = rng.next_int(1, 140),
              .shared = rng.next_int(0, 1) == 1,
              .format = kTypes[rng.next_int(0, 4)]};
  if (shape.shared) shape.value_cols = std::min(shape.value_cols, shape.key_cols);
  return shape;
}

// In lanes a q8 cache is multiplied in integers, with queries of 8 bits.
testing::Tolerance tolerance_of(const Shape& shape) {
  if (shape.format != CacheFormat::kQ8 || shape.heads_per_group < 8) return testing::tol::kF32Reduction;
  return {"queries of 8 bits", 1e-2, 2e-2, 1e-3};
}

class FlashOnEveryTable : public ::testing::TestWithParam<const KernelTable*> {};

// A cache without row 0: what lies there would outweigh all others.
TEST_P(FlashOnEveryTable, KeysBeforeTheFirstAreNotRead) {
  for (const int64_t heads : {3, 8}) {
    for (const CacheFormat format : {CacheFormat::kF16, CacheFormat::kQ8, CacheFormat::kQ6}) {
      const Shape shape{.heads_per_group = heads, .key_cols = 40, .value_cols = 24, .shared = true, .format = format};
      Batch batch = make_batch(shape, {{1, 1}, {1, 70}, {63, 1}, {64, 2}, {600, 3}}, 4);
      const std::vector<float> nothing(static_cast<size_t>(row_elements(shape)), 1e3F);
      for (size_t i = 0; i < batch.segments.size(); ++i) {
        batch.caches[i].store(0, nothing.data());
        batch.segments[i].first_key = 1;
      }
      run(batch, 2, *GetParam());
      testing::expect_close(
          batch.out, testing::naive_attention(batch.problem(), batch.tokens).out, tolerance_of(shape));
    }
  }
}

TEST_P(FlashOnEveryTable, RandomShapesMatchPlainAttention) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    Rng rng(seed);
    const Shape shape = random_shape(rng);
    std::vector<Span> spans;
    for (int64_t i = rng.next_int(1, 3); i > 0; --i) {
      const int64_t end = pick_length(rng);
      const int64_t tokens = std::min(end, rng.next_int(1, 9));
      spans.push_back({end - tokens, tokens});
    }
    SCOPED_TRACE(str("seed ",
                     seed,
                     ", ",
                     shape.kv_heads,
                     " x ",
                     shape.heads_per_group,
                     " heads, ",
                     shape.key_cols,
                     "/",
                     shape.value_cols,
                     " columns, ",
                     cache_format_name(shape.format),
                     ", first at ",
                     spans.front().position));
    Batch batch = make_batch(shape, spans, seed);
    run(batch, 2, *GetParam());
    testing::expect_close(batch.out, testing::naive_attention(batch.problem(), batch.tokens).out, tolerance_of(shape));
  }
}

// More (token, head, split) results than one round of tasks holds, so that queries are carried from round to round.
TEST_P(FlashOnEveryTable, LongPromptsNeedSeveralRounds) {
  for (const int64_t heads : {7, 9}) {
    SCOPED_TRACE(heads);
    const Shape shape{.kv_heads = 1, .heads_per_group = heads, .key_cols = 12, .value_cols = 5, .shared = true};
    Batch batch = make_batch(shape, {{1000, 220}, {0, 40}, {1500, 130}}, 5);
    run(batch, 3, *GetParam());
    testing::expect_close(
        batch.out, testing::naive_attention(batch.problem(), batch.tokens).out, testing::tol::kF32Reduction);
  }
}

// Scores in the hundreds, which exp cannot take, and one that outweighs all others in a late tile.
TEST_P(FlashOnEveryTable, LargeScoresNeitherOverflowNorVanish) {
  const Shape shape{.kv_heads = 1, .heads_per_group = 2, .key_cols = 4, .value_cols = 3};
  Batch batch = make_batch(shape, {{699, 1}}, 9);
  for (float& q : batch.q) q *= 400.0F;
  run(batch, 1, *GetParam());
  testing::expect_close(
      batch.out, testing::naive_attention(batch.problem(), batch.tokens).out, testing::tol::kF32Reduction);

  std::vector<float> row(7, 0.0F);
  row[0] = 1.0F, row[4] = 3.0F, row[5] = -4.0F, row[6] = 5.0F;
  batch.caches.front().store(690, row.data());
  std::ranges::fill(batch.q, 0.0F);
  batch.q[0] = batch.q[4] = 1e6F;
  for (int64_t p = 0; p < 700; ++p) {
    if (p == 690) continue;
    const std::vector<float> zero(7, -1.0F);
    batch.caches.front().store(p, zero.data());
  }
  run(batch, 1, *GetParam());
  testing::expect_same_bits(batch.out, std::vector<float>{3.0F, -4.0F, 5.0F, 3.0F, -4.0F, 5.0F});
}

INSTANTIATE_TEST_SUITE_P(Tables,
                         FlashOnEveryTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

// Output rows of segment `i`.
std::vector<float> rows_of(const Batch& batch, size_t i) {
  const AttentionSegment& segment = batch.segments[i];
  const auto begin = batch.out.begin() + segment.first_row * static_cast<int64_t>(batch.row_floats());
  return {begin, begin + segment.tokens * static_cast<int64_t>(batch.row_floats())};
}

// Every segment of a batch gives what it gives alone.
void expect_equal_alone(Batch& together) {
  const Shape& shape = together.shape;
  run(together, 2);
  for (size_t i = 0; i < together.segments.size(); ++i) {
    SCOPED_TRACE(i);
    AttentionSegment segment = together.segments[i];
    Batch alone{.shape = shape,
                .caches = {},
                .segments = {},
                .groups = together.groups,
                .q = {},
                .out = {},
                .tokens = segment.tokens};
    const int64_t q_row = shape.heads() * shape.key_cols;
    const auto q = together.q.begin() + segment.first_row * q_row;
    alone.q.assign(q, q + segment.tokens * q_row);
    alone.out.resize(static_cast<size_t>(segment.tokens) * alone.row_floats());
    segment.first_row = 0;
    alone.segments = {segment};
    run(alone, 1);
    testing::expect_same_bits(alone.out, rows_of(together, i));
  }
}

TEST(Flash, CompanionsInTheBatchChangeNoBit) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    Batch together = make_batch(random_shape(rng), {{0, 1}, {510, 5}, {64, 7}, {1024, 1}, {0, 70}}, seed);
    expect_equal_alone(together);
  }
}

// Sequences that begin on the same pages, some for a split, some for several, one not at all.
TEST(Flash, CompanionsOnTheSamePagesChangeNoBit) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    std::vector<Span> spans;
    for (int64_t i = 0; i < 14; ++i) spans.push_back({rng.next_int(1100, 1200), rng.next_int(0, 3) == 0 ? 9 : 1});
    Batch together = make_batch(random_shape(rng), spans, seed);
    std::deque<std::vector<std::byte*>> pages;
    for (AttentionSegment& segment : together.segments) {
      const std::span<std::byte* const> own = segment.cache.pages;
      std::vector<std::byte*>& mine = pages.emplace_back(own.begin(), own.end());
      const std::span<std::byte* const> first = pages.front();
      std::copy_n(
          first.begin(), std::array<int64_t, 4>{0, 3, 6, 16}[static_cast<size_t>(rng.next_int(0, 3))], mine.begin());
      segment.cache.pages = mine;
    }
    expect_equal_alone(together);
  }
}

TEST(Flash, SplitsCoverEveryPositionOnce) {
  for (int64_t position = 0; position < 5000; ++position) {
    const int64_t split = split_of(position);
    EXPECT_LE(split_begin(split), position);
    EXPECT_GT(split_begin(split + 1), position);
  }
  EXPECT_EQ(split_of(511), 3);
  EXPECT_EQ(split_begin(5), 1024);
}

TEST(Flash, ChunksOfAPromptChangeNoBit) {
  for (const int64_t heads : {3, 9}) {
    const Shape shape{
        .kv_heads = 2, .heads_per_group = heads, .key_cols = 10, .value_cols = 6, .format = CacheFormat::kF16};
    Batch whole = make_batch(shape, {{450, 130}}, 3);
    run(whole, 2);
    for (const int64_t chunk : {1, 9, 62, 64, 100}) {
      SCOPED_TRACE(str(heads, " heads, chunks of ", chunk));
      Batch parts = make_batch(shape, {{450, 130}}, 3);
      const AttentionSegment all = parts.segments.front();
      for (int64_t begin = 0; begin < all.tokens; begin += chunk) {
        AttentionSegment part = all;
        part.first_row += begin;
        part.position += begin;
        part.tokens = std::min(chunk, all.tokens - begin);
        parts.segments = {part};
        run(parts, 1);
      }
      testing::expect_same_bits(parts.out, whole.out);
    }
  }
}

TEST(Flash, PageOrderAndThreadsChangeNoBit) {
  const Shape shape{.kv_heads = 1, .heads_per_group = 16, .key_cols = 24, .value_cols = 16, .shared = true};
  Batch first = make_batch(shape, {{700, 3}, {70, 1}}, 4, 0);
  run(first, 1);
  for (uint64_t order = 1; order <= 4; ++order) {
    Batch other = make_batch(shape, {{700, 3}, {70, 1}}, 4, order);
    run(other, static_cast<int>(order));
    testing::expect_same_bits(other.out, first.out);
  }
}

TEST(Flash, VectorTablesAgreeBitForBit) {
  for (const auto& [heads, format] : {std::pair{2, CacheFormat::kBF16},
                                      {16, CacheFormat::kBF16},
                                      {2, CacheFormat::kQ6},
                                      {16, CacheFormat::kQ6},
                                      {16, CacheFormat::kQ8}}) {
    SCOPED_TRACE(str(heads, " heads, ", cache_format_name(format)));
    const Shape shape{.kv_heads = 2, .heads_per_group = heads, .key_cols = 96, .value_cols = 65, .format = format};
    Batch first = make_batch(shape, {{600, 3}, {10, 20}}, 6);
    run(first, 2, *all_kernels().back());
    for (const KernelTable* table : all_kernels().subspan(1)) {
      SCOPED_TRACE(table->isa);
      Batch other = make_batch(shape, {{600, 3}, {10, 20}}, 6);
      run(other, 1, *table);
      testing::expect_same_bits(other.out, first.out);
    }
  }
}

// Scores in integers are those of fp32 but for the queries' 8 bits: widths where whole blocks allow them against widths
// that do not.
TEST(Flash, Q8ScoresInIntegersAreClose) {
  for (const bool shared : {true, false}) {
    const Shape shape{.kv_heads = shared ? 1 : 2,
                      .heads_per_group = 16,
                      .key_cols = 96,
                      .value_cols = 64,
                      .shared = shared,
                      .format = CacheFormat::kQ8};
    Batch batch = make_batch(shape, {{600, 3}, {10, 20}}, 6);
    run(batch, 2);
    const std::vector<float> exact = testing::naive_attention(batch.problem(), batch.tokens).out;
    testing::expect_close(batch.out, exact, tolerance_of(shape));
    double off = 0.0;
    for (size_t i = 0; i < exact.size(); ++i)
      off = std::max(off, std::fabs(static_cast<double>(batch.out[i]) - exact[i]));
    EXPECT_GT(off, 1e-4) << "not taken in integers";
  }
}

TEST(Flash, NothingToDoIsDone) {
  Batch empty = make_batch({}, {}, 1);
  run(empty, 2);
  Batch no_tokens = make_batch({}, {{5, 0}}, 1);
  run(no_tokens, 2);
  EXPECT_TRUE(no_tokens.out.empty());
}

}  // namespace
}  // namespace lathe
