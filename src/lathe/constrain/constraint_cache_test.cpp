#include "lathe/constrain/constraint_cache.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "lathe/base/str.h"
#include "lathe/constrain/masks.h"
#include "support/grammar.h"

namespace lathe {
namespace {

using test::json;

const Tokenizer& storyteller() {
  static const Result<Tokenizer> kTokenizer = Tokenizer::open(LATHE_SOURCE_DIR "/models/storyteller");
  EXPECT_TRUE(kTokenizer) << kTokenizer.error().message;
  return *kTokenizer;
}

// Ids that a constraint allows at its beginning.
std::vector<int32_t> first_ids(TokenConstraint& constraint, const TokenTable& table) {
  std::vector<uint64_t> mask(table.mask_words());
  constraint.allowed(mask);
  std::vector<int32_t> out;
  for (int32_t id = 0; id < table.vocab_size(); ++id) {
    if ((mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0) out.push_back(id);
  }
  return out;
}

TEST(ConstraintCache, KeepsWhatWasCompiled) {
  ConstraintCache cache(storyteller(), storyteller().vocabulary_size(), {0});
  const auto first = cache.prepare(json(R"({"type":"integer"})"));
  const auto second = cache.prepare(json(R"({"type":"integer"})"));
  const auto other = cache.prepare(json(R"({"type":"number"})"));
  ASSERT_TRUE(first && second && other);
  EXPECT_EQ(*first, *second);
  EXPECT_NE(*first, *other);
  EXPECT_EQ(cache.size(), 2u);
}

TEST(ConstraintCache, ForgetsTheLeastRecentlyUsed) {
  ConstraintCache cache(storyteller(), storyteller().vocabulary_size(), {0}, {.max_grammars = 3});
  const auto schema = [](int i) { return json(str(R"({"const":)", i, "}")); };
  const auto kept = *cache.prepare(schema(0));
  for (int i = 1; i < 10; ++i) {
    ASSERT_TRUE(cache.prepare(schema(i)));
    EXPECT_EQ(*cache.prepare(schema(0)), kept);
    EXPECT_LE(cache.size(), 3u);
  }
  ASSERT_TRUE(cache.prepare(schema(1)) && cache.prepare(schema(2)) && cache.prepare(schema(3)));
  EXPECT_NE(*cache.prepare(schema(0)), kept);
}

TEST(ConstraintCache, StaysBelowItsBytes) {
  ConstraintCache cache(storyteller(), storyteller().vocabulary_size(), {0}, {.max_bytes = 1});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cache.prepare(json(str(R"({"const":)", i, "}"))));
  EXPECT_EQ(cache.size(), 1u);
}

TEST(ConstraintCache, RefusesAsTheCompilerDoes) {
  ConstraintCache cache(storyteller(), storyteller().vocabulary_size(), {0});
  const auto refused = cache.prepare(json(R"({"not":{}})"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "#/not: this keyword is not supported");
  EXPECT_EQ(cache.size(), 0u);
}

TEST(ConstraintCache, ConstraintsBeginWhereTheyShould) {
  ConstraintCache cache(storyteller(), storyteller().vocabulary_size(), {0, 1 << 20, -1});
  const auto masks = *cache.prepare(json(R"({"const":true})"));
  const std::vector<int32_t> ids = first_ids(*cache.begin(masks), masks->table());
  ASSERT_FALSE(ids.empty());
  for (const int32_t id : ids) {
    const std::string text = storyteller().token_bytes(id);
    const size_t word = text.find_first_not_of(" \n\t");
    EXPECT_TRUE(word == std::string::npos || std::string_view("true").starts_with(text.substr(word))) << text;
  }
  const std::unique_ptr<TokenConstraint> later = cache.begin(masks, ids.front());
  EXPECT_GT(first_ids(*later, masks->table()).size(), ids.size());
  EXPECT_TRUE(later->accept(ids.front()));
  EXPECT_EQ(first_ids(*later, masks->table()), ids);
}

TEST(ConstraintCache, MayBeUsedByManyThreads) {
  ConstraintCache cache(storyteller(), storyteller().vocabulary_size(), {0}, {.max_grammars = 2});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int i = 0; i < 20; ++i) {
        const auto masks = cache.prepare(json(str(R"({"type":"array","items":{"const":)", (i + t) % 3, "}}")));
        ASSERT_TRUE(masks);
        EXPECT_FALSE(first_ids(*cache.begin(*masks), (*masks)->table()).empty());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(cache.size(), 2u);
}

}  // namespace
}  // namespace lathe
