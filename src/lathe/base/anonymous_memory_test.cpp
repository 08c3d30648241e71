#include "lathe/base/anonymous_memory.h"

#include <gtest/gtest.h>

#include <utility>

namespace lathe {
namespace {

using Commit = AnonymousMemory::Commit;

TEST(AnonymousMemory, IsZeroedAndWritable) {
  for (const Commit commit : {Commit::kNow, Commit::kOnUse}) {
    const AnonymousMemory memory(5000, commit);
    ASSERT_NE(memory.data(), nullptr);
    EXPECT_EQ(memory.size(), 5000u);
    for (uint64_t i = 0; i < memory.size(); ++i) ASSERT_EQ(memory.data()[i], std::byte{0});
    memory.data()[4999] = std::byte{7};
    EXPECT_EQ(memory.data()[4999], std::byte{7});
  }
}

TEST(AnonymousMemory, WhatCannotBeHadIsNull) {
  EXPECT_EQ(AnonymousMemory(0, Commit::kNow).data(), nullptr);
  EXPECT_EQ(AnonymousMemory(uint64_t{1} << 62, Commit::kOnUse).data(), nullptr);
  EXPECT_EQ(AnonymousMemory().size(), 0u);
}

TEST(AnonymousMemory, MovesWithItsContent) {
  AnonymousMemory first(100, Commit::kNow);
  std::byte* const data = first.data();
  AnonymousMemory second(std::move(first));
  EXPECT_EQ(second.data(), data);
  AnonymousMemory third(200, Commit::kNow);
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 100u);
}

}  // namespace
}  // namespace lathe
