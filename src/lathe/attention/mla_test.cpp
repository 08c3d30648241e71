// Identities of MLA on random shapes: the forms agree, chunks and threads change no bit, the cache holds what it
// should. Values against independent implementations: tests/e2e/golden_ops_test.cpp and reference/equations_test.cpp.
#include "lathe/attention/mla.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>

#include "support/compare.h"
#include "support/mla_problem.h"

namespace lathe {
namespace {

using testing::MlaProblem;
using testing::random_mla;
using testing::run_mla;

MlaShape random_shape(Rng& rng) {
  MlaShape shape{.hidden_size = rng.next_int(1, 40),
                 .num_heads = rng.next_int(0, 1) == 1 ? rng.next_int(1, 6) : rng.next_int(8, 18),
                 .qk_nope_head_dim = rng.next_int(1, 20),
                 .qk_rope_head_dim = 2 * rng.next_int(1, 8),
                 .v_head_dim = rng.next_int(1, 20),
                 .kv_lora_rank = rng.next_int(1, 33),
                 .q_lora_rank = rng.next_int(0, 1) * rng.next_int(1, 24),
                 .softmax_scale = 0.0F,
                 .rope_interleaved = rng.next_int(0, 1) == 1};
  shape.softmax_scale = static_cast<float>(1.3 / std::sqrt(static_cast<double>(shape.qk_head_dim())));
  return shape;
}

std::string describe(const MlaShape& s, uint64_t seed) {
  return str("seed ",
             seed,
             ": d ",
             s.hidden_size,
             ", heads ",
             s.num_heads,
             ", nope ",
             s.qk_nope_head_dim,
             ", rope ",
             s.qk_rope_head_dim,
             ", v ",
             s.v_head_dim,
             ", r ",
             s.kv_lora_rank,
             ", r_q ",
             s.q_lora_rank);
}

MlaProblem random_problem(uint64_t seed) {
  Rng rng(seed);
  const MlaShape shape = random_shape(rng);
  constexpr int64_t kTokens[] = {1, 2, 63, 64, 65, 100, 129};
  const int64_t tokens = kTokens[rng.next_int(0, 6)];
  return random_mla(shape, tokens, seed, {.norms = rng.next_int(0, 3) != 0, .biases = rng.next_int(0, 1) == 1});
}

class MlaOnEveryTable : public ::testing::TestWithParam<const KernelTable*> {};

TEST_P(MlaOnEveryTable, AbsorbedEqualsExpanded) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const MlaProblem p = random_problem(seed);
    SCOPED_TRACE(describe(p.shape, seed));
    const std::vector<float> absorbed = run_mla(p, {.threads = 2, .kernels = GetParam()});
    const std::vector<float> expanded = run_mla(p, {.expanded_until = p.tokens(), .threads = 2, .kernels = GetParam()});
    testing::expect_close(expanded, absorbed, testing::tol::kF32Reduction);
    // A border in the middle: tokens before it take one form, the others the other, each with the same bits as before.
    const int64_t border = p.tokens() / 2;
    const std::vector<float> mixed = run_mla(p, {.expanded_until = border, .threads = 2, .kernels = GetParam()});
    const auto head = static_cast<size_t>(border * p.shape.hidden_size);
    testing::expect_same_bits(std::span(mixed).first(head), std::span(expanded).first(head));
    testing::expect_same_bits(std::span(mixed).subspan(head), std::span(absorbed).subspan(head));
  }
}

INSTANTIATE_TEST_SUITE_P(Tables,
                         MlaOnEveryTable,
                         ::testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         testing::table_name);

TEST(Mla, PrefillEqualsDecodeBitForBit) {
  for (uint64_t seed = 30; seed <= 42; ++seed) {
    const MlaProblem p = random_problem(seed);
    SCOPED_TRACE(describe(p.shape, seed));
    for (const int64_t expanded_until : {int64_t{0}, p.tokens()}) {
      const std::vector<float> once = run_mla(p, {.expanded_until = expanded_until, .cache_type = CacheFormat::kF16});
      for (const int64_t chunk : {1, 7, 64}) {
        SCOPED_TRACE(chunk);
        testing::expect_same_bits(run_mla(p,
                                          {.expanded_until = expanded_until,
                                           .chunk = chunk,
                                           .threads = 3,
                                           .cache_type = CacheFormat::kF16,
                                           .page_order = seed}),
                                  once);
      }
    }
  }
}

// Long enough for several query blocks of the expanded form and several splits of the absorbed one.
TEST(Mla, LongSequencesAgreeInBothForms) {
  const MlaShape shape{.hidden_size = 12,
                       .num_heads = 2,
                       .qk_nope_head_dim = 6,
                       .qk_rope_head_dim = 4,
                       .v_head_dim = 5,
                       .kv_lora_rank = 9,
                       .q_lora_rank = 0,
                       .softmax_scale = 0.4F};
  const MlaProblem p = random_mla(shape, 700, 77);
  const std::vector<float> absorbed = run_mla(p, {.threads = 2});
  const std::vector<float> expanded = run_mla(p, {.expanded_until = 700, .threads = 2});
  testing::expect_close(expanded, absorbed, testing::tol::kF32Reduction);
  testing::expect_same_bits(run_mla(p, {.expanded_until = 700, .chunk = 256, .threads = 3}), expanded);
}

// A 16-bit cache changes the result only by the rounding of what is stored.
TEST(Mla, CacheTypesRoundWhatIsStored) {
  const MlaProblem p = random_problem(30);
  std::vector<float> exact;
  const std::vector<float> full = run_mla(p, {}, &exact);
  for (const CacheFormat type : {CacheFormat::kF16, CacheFormat::kBF16}) {
    SCOPED_TRACE(cache_format_name(type));
    std::vector<float> rounded;
    const std::vector<float> out = run_mla(p, {.cache_type = type}, &rounded);
    testing::expect_close(out, full, {"cache rounding", 1e-6, type == CacheFormat::kF16 ? 2e-3 : 1.6e-2, 1e-3});
    for (size_t i = 0; i < exact.size(); ++i) {
      const float wanted =
          type == CacheFormat::kF16 ? f16_to_float(float_to_f16(exact[i])) : bf16_to_float(float_to_bf16(exact[i]));
      ASSERT_EQ(rounded[i], wanted) << i;
    }
  }
}

// Quantised caches give what attention over the stored values gives, in both forms, and differ from exact ones by their
// levels. From eight heads on the absorbed form multiplies with a q8 cache in integers, the expanded form with any
// quantised cache where values are whole groups: 8 bits for queries and, rebuilt, for keys and values.
TEST(Mla, QuantisedCachesAgreeInBothForms) {
  for (const int64_t heads : {4, 16}) {
    for (const bool whole_groups : {false, true}) {
      const MlaShape shape{.hidden_size = 48,
                           .num_heads = heads,
                           .qk_nope_head_dim = 24,
                           .qk_rope_head_dim = 16,
                           .v_head_dim = whole_groups ? 64 : 20,
                           .kv_lora_rank = 64,
                           .q_lora_rank = 0,
                           .softmax_scale = 0.2F};
      const MlaProblem p = random_mla(shape, 130, 5);
      const std::vector<float> exact = run_mla(p);
      for (const auto& [type, error] : {std::pair{CacheFormat::kQ8, 0.02}, {CacheFormat::kQ6, 0.1}}) {
        SCOPED_TRACE(
            str(heads, whole_groups ? " heads with values of whole groups, " : " heads, ", cache_format_name(type)));
        const std::vector<float> absorbed = run_mla(p, {.threads = 2, .cache_type = type});
        const std::vector<float> expanded = run_mla(p, {.expanded_until = 130, .threads = 2, .cache_type = type});
        const bool integers = whole_groups || (heads >= 8 && type == CacheFormat::kQ8);
        testing::expect_close(
            expanded,
            absorbed,
            integers ? testing::Tolerance{"products of 8 bits", 1e-6, 1e-2, 1e-3} : testing::tol::kF32Reduction);
        testing::expect_close(absorbed, exact, {"cache levels", 1e-6, error, 1e-2});
        testing::expect_close(expanded, exact, {"cache levels", 1e-6, error, 1e-2});
        testing::expect_same_bits(run_mla(p, {.chunk = 7, .threads = 3, .cache_type = type, .page_order = 9}),
                                  absorbed);
        testing::expect_same_bits(
            run_mla(p, {.expanded_until = 130, .chunk = 7, .threads = 3, .cache_type = type, .page_order = 9}),
            expanded);
      }
    }
  }
}

// The row that is cached: RMSNorm(W^DKV x) and then RoPE(W^KR x), computed here in double.
TEST(Mla, CachedRowsHoldTheNormedLatentAndTheRotatedKey) {
  for (const bool interleaved : {true, false}) {
    MlaShape shape{.hidden_size = 10,
                   .num_heads = 2,
                   .qk_nope_head_dim = 4,
                   .qk_rope_head_dim = 6,
                   .v_head_dim = 3,
                   .kv_lora_rank = 7,
                   .q_lora_rank = 5,
                   .softmax_scale = 0.3F,
                   .rope_interleaved = interleaved};
    MlaProblem p = random_mla(shape, 9, 3, {.norms = true, .biases = true});
    std::vector<float> cached;
    run_mla(p, {}, &cached);
    const std::vector<double> inv_freq = rope_inv_freq(p.rope);
    std::vector<float> expected;
    for (int64_t t = 0; t < 9; ++t) {
      std::vector<double> a(13);
      for (size_t i = 0; i < 13; ++i) {
        a[i] = p.tensors.kv_a_proj_bias[i];
        for (size_t j = 0; j < 10; ++j) {
          a[i] += static_cast<double>(p.tensors.kv_a_proj_with_mqa[i * 10 + j]) * p.x[static_cast<size_t>(t) * 10 + j];
        }
      }
      double mean_square = 0.0;
      for (size_t i = 0; i < 7; ++i) mean_square += a[i] * a[i] / 7.0;
      for (size_t i = 0; i < 7; ++i) {
        expected.push_back(static_cast<float>(p.tensors.kv_a_layernorm[i] * a[i] / std::sqrt(mean_square + 1e-6)));
      }
      std::vector<double> rotated(6);
      for (size_t i = 0; i < 3; ++i) {
        const double angle = static_cast<double>(t) * inv_freq[i];
        const size_t first = interleaved ? 2 * i : i;
        const size_t second = interleaved ? 2 * i + 1 : i + 3;
        rotated[first] = a[7 + first] * std::cos(angle) - a[7 + second] * std::sin(angle);
        rotated[second] = a[7 + first] * std::sin(angle) + a[7 + second] * std::cos(angle);
      }
      for (const double value : rotated) expected.push_back(static_cast<float>(value));
    }
    testing::expect_close(cached, expected, testing::tol::kF32Reduction);
  }
}

// More sequences in one step than the absorbed form handles at once.
TEST(Mla, HundredSequencesInOneStep) {
  Rng rng(8);
  const MlaShape shape = random_shape(rng);
  constexpr int64_t kSequences = 100;
  const MlaProblem p = random_mla(shape, kSequences, 8);
  const MlaWeights weights = p.tensors.weights(shape);
  const RopeTable table = RopeTable::make(p.rope);
  std::vector<float> cos(static_cast<size_t>(kSequences * table.pairs()));
  std::vector<float> sin(cos.size());
  std::vector<testing::PagedCache> caches;
  std::vector<AttentionSegment> segments;
  for (int64_t i = 0; i < kSequences; ++i) caches.emplace_back(CacheFormat::kF32, shape.cache_row(), 1, 0);
  for (int64_t i = 0; i < kSequences; ++i) {
    table.cos_sin(0, cos.data() + i * table.pairs(), sin.data() + i * table.pairs());
    segments.push_back({.first_row = i,
                        .tokens = 1,
                        .position = 0,
                        .expanded_until = i % 3 == 0 ? 1 : 0,
                        .cache = caches[static_cast<size_t>(i)].view()});
  }
  testing::CpuBench bench(2, mla_scratch_floats(shape, kSequences, 2));
  std::vector<float> out(p.x.size());
  mla_attention(bench.context(),
                {.weights = weights,
                 .shape = shape,
                 .segments = segments,
                 .tokens = kSequences,
                 .x = p.x.data(),
                 .rope_cos = cos.data(),
                 .rope_sin = sin.data(),
                 .out = out.data()});
  const auto d = static_cast<size_t>(shape.hidden_size);
  for (size_t i = 0; i < kSequences; ++i) {
    SCOPED_TRACE(i);
    MlaProblem alone = p;
    alone.x.assign(p.x.begin() + static_cast<int64_t>(i * d), p.x.begin() + static_cast<int64_t>((i + 1) * d));
    testing::expect_same_bits(std::span(out).subspan(i * d, d), run_mla(alone, {.expanded_until = i % 3 == 0 ? 1 : 0}));
  }
}

// Prompts that go on from the same pages share their expansion, those beside them do not: each is what it is alone.
TEST(Mla, PromptsWithACommonBeginningInOneStep) {
  constexpr int64_t kShared = 2 * kPageTokens;
  constexpr std::array<int64_t, 6> kTokens{5, 33, 1, 70, 17, 64};  // of each sequence after the beginning
  for (const CacheFormat format : {CacheFormat::kF16, CacheFormat::kQ8}) {
    Rng rng(19);
    MlaShape shape = random_shape(rng);
    shape.num_heads = 3;
    const auto total = std::accumulate(kTokens.begin(), kTokens.end(), int64_t{0});
    const MlaProblem p = random_mla(shape, kShared + total, 19);
    const MlaWeights weights = p.tensors.weights(shape);
    const RopeTable table = RopeTable::make(p.rope);
    const auto d = static_cast<size_t>(shape.hidden_size);
    const auto sequence_of = [&](int64_t first) {  // the beginning, then rows from `first` on
      MlaProblem one = p;
      one.x.assign(p.x.begin(), p.x.begin() + kShared * shape.hidden_size);
      one.x.insert(one.x.end(), p.x.begin() + first * shape.hidden_size, p.x.end());
      return one;
    };
    testing::PagedCache common(format, shape.cache_row(), kShared, 3);
    std::vector<testing::PagedCache> own;
    std::vector<std::vector<std::byte*>> pages;
    std::vector<AttentionSegment> segments;
    std::vector<float> cos(static_cast<size_t>(total * table.pairs()));
    std::vector<float> sin(cos.size());
    testing::CpuBench bench(2, mla_scratch_floats(shape, std::max(kShared, total), 2));
    std::vector<float> out(static_cast<size_t>(total) * d);
    const auto run = [&](std::span<const AttentionSegment> parts, int64_t tokens, const float* x) {
      mla_attention(bench.context(),
                    {.weights = weights,
                     .shape = shape,
                     .segments = parts,
                     .tokens = tokens,
                     .x = x,
                     .rope_cos = cos.data(),
                     .rope_sin = sin.data(),
                     .out = out.data()});
    };
    table.cos_sin_range(0,
                        kShared,
                        std::span(cos).first(static_cast<size_t>(kShared * table.pairs())),
                        std::span(sin).first(static_cast<size_t>(kShared * table.pairs())));
    const AttentionSegment beginning{.tokens = kShared, .expanded_until = kShared, .cache = common.view()};
    run({&beginning, 1}, kShared, p.x.data());
    int64_t row = 0;
    for (size_t i = 0; i < kTokens.size(); ++i) {
      const int64_t tokens = kTokens[i];
      const auto at = static_cast<size_t>(row * table.pairs());
      const auto size = static_cast<size_t>(tokens * table.pairs());
      table.cos_sin_range(kShared, tokens, std::span(cos).subspan(at, size), std::span(sin).subspan(at, size));
      own.emplace_back(format, shape.cache_row(), kShared + tokens, i);
      // The third one has pages of its own with the same content, the fifth shares a page only.
      std::vector<std::byte*> mine(own.back().view().pages.begin(), own.back().view().pages.end());
      const size_t shared = i == 2 ? 0 : i == 4 ? 1 : 2;
      for (size_t page = 0; page < shared; ++page) mine[page] = common.view().pages[page];
      pages.push_back(std::move(mine));
      CacheView cache = own.back().view();
      cache.pages = pages.back();
      for (int64_t position = static_cast<int64_t>(shared) * kPageTokens; position < kShared; ++position) {
        std::memcpy(cache.row(position), common.view().row(position), static_cast<size_t>(cache.row_bytes()));
      }
      segments.push_back({.first_row = row,
                          .tokens = tokens,
                          .position = kShared,
                          .expanded_until = kShared + (i == 3 ? 40 : tokens),
                          .cache = cache});
      row += tokens;
    }
    for (size_t i = 0; i < segments.size(); ++i) segments[i].cache.pages = pages[i];
    run(segments, total, p.x.data() + kShared * shape.hidden_size);
    for (const AttentionSegment& segment : segments) {
      SCOPED_TRACE(segment.first_row);
      MlaProblem alone = sequence_of(kShared + segment.first_row);
      alone.x.resize(static_cast<size_t>(kShared + segment.tokens) * d);
      const std::vector<float> expected =
          run_mla(alone, {.expanded_until = segment.expanded_until, .chunk = kShared, .cache_type = format});
      testing::expect_same_bits(
          std::span(out).subspan(static_cast<size_t>(segment.first_row) * d, static_cast<size_t>(segment.tokens) * d),
          std::span(expected).subspan(static_cast<size_t>(kShared) * d));
    }
  }
}

}  // namespace
}  // namespace lathe
