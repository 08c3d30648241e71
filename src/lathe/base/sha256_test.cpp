#include "lathe/base/sha256.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

std::string hash(Hasher::Kind kind, std::string_view bytes) {
  Hasher hasher(kind);
  hasher.update(bytes);
  return hasher.hex_digest();
}

// FIPS 180-4 examples.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(hash(Hasher::Kind::kSha256, ""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash(Hasher::Kind::kSha256, "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash(Hasher::Kind::kSha256, std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesGiveTheDigestOfTheWhole) {
  const std::string text(1000, 'x');
  Hasher hasher(Hasher::Kind::kSha256);
  for (size_t i = 0; i < text.size(); i += 7) hasher.update(std::string_view(text).substr(i, 7));
  EXPECT_EQ(hasher.hex_digest(), hash(Hasher::Kind::kSha256, text));
}

TEST(Sha1, GitBlobOfASmallFile) {
  // `printf 'hello\n' | git hash-object --stdin`
  EXPECT_EQ(hash(Hasher::Kind::kSha1, std::string_view("blob 6\0hello\n", 13)),
            "ce013625030ba8dba906f756967f9e9ca394464a");
}

TEST(Sha256, AMovedHasherGoesOn) {
  Hasher first(Hasher::Kind::kSha256);
  first.update("a");
  Hasher second = std::move(first);
  second.update("bc");
  EXPECT_EQ(second.hex_digest(), hash(Hasher::Kind::kSha256, "abc"));
}

TEST(Sha256DeathTest, ADigestIsTakenOnce) {
  Hasher hasher(Hasher::Kind::kSha256);
  (void)hasher.hex_digest();
  EXPECT_DEATH((void)hasher.hex_digest(), "called twice");
}

}  // namespace
}  // namespace lathe
