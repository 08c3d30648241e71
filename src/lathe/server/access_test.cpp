#include "lathe/server/access.h"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temp_dir.h"

namespace lathe::server {
namespace {

using testing::TempDir;

Access with_keys(const std::vector<std::string>& keys) {
  return {keys, {}, {}, /*check_host=*/false};
}

TEST(Access, FindsEachKeyInBothHeaders) {
  const Access access = with_keys({"first-key", "second-key"});
  EXPECT_TRUE(access.has_keys());
  EXPECT_EQ(access.find_key("Bearer first-key", ""), 1U);
  EXPECT_EQ(access.find_key("bearer   second-key", ""), 2U);
  EXPECT_EQ(access.find_key("", "second-key"), 2U);
  EXPECT_EQ(access.find_key("Bearer first-key", "wrong"), 1U);  // Authorization counts
}

TEST(Access, RefusesWhateverIsNoKey) {
  const Access access = with_keys({"first-key", "second-key"});
  for (const char* wrong : {"",
                            "Bearer",
                            "Bearer ",
                            "first-key",
                            "Basic first-key",
                            "Bearer first-ke",
                            "Bearer first-keyy",
                            "Bearer First-key",
                            "Bearer first-key ",
                            "Bearer first-key second-key"}) {
    EXPECT_EQ(access.find_key(wrong, ""), std::nullopt) << wrong;
  }
  EXPECT_EQ(access.find_key("Bearer wrong", "first-key"), std::nullopt);
  EXPECT_EQ(access.find_key("", "second-key\n"), std::nullopt);
}

TEST(Access, WithoutKeysEverybodyMay) {
  const Access access = with_keys({});
  EXPECT_FALSE(access.has_keys());
  EXPECT_EQ(access.find_key("Bearer anything", ""), 0U);
}

TEST(Access, OnLoopbackOnlyItsOwnNamesAreHosts) {
  const Access access({}, {}, {"lathe.lan", "other:81"}, /*check_host=*/true);
  for (const char* host : {"localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]", "[::1]:8080", "", "lathe.lan:9"}) {
    EXPECT_TRUE(access.allows_host(host)) << host;
  }
  EXPECT_TRUE(access.allows_host("other:81"));
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.2", "other:82", "[::2]:80"}) {
    EXPECT_FALSE(access.allows_host(host)) << host;
  }
  EXPECT_TRUE(with_keys({"first-key"}).allows_host("evil.example"));
}

TEST(Access, PagesOfNamedOriginsMayCall) {
  const Access access({}, {"https://app.example"}, {}, false);
  EXPECT_EQ(access.allowed_origin("https://APP.example"), "https://APP.example");
  EXPECT_EQ(access.allowed_origin("https://evil.example"), "");
  EXPECT_EQ(access.allowed_origin(""), "");
  EXPECT_TRUE(access.allows_origin("", "localhost:1"));
  EXPECT_TRUE(access.allows_origin("http://localhost:1", "localhost:1"));
  EXPECT_FALSE(access.allows_origin("http://localhost:2", "localhost:1"));
  EXPECT_FALSE(access.allows_origin("null", "localhost:1"));
  EXPECT_EQ(Access({}, {"*"}, {}, false).allowed_origin("https://any.example"), "*");
}

TEST(Access, PagesMaySendTheHeadersOfTheirClients) {
  EXPECT_EQ(Access::allowed_headers("authorization,content-type, x-stainless-lang"),
            "authorization,content-type, x-stainless-lang");
  for (const char* other : {"", "*", "a\r\nSet-Cookie: x", "a;b", "\"a\""}) {
    EXPECT_EQ(Access::allowed_headers(other), "Authorization, Content-Type, X-Api-Key") << other;
  }
}

Result<std::vector<std::string>> keys_of(const std::string& text) {
  const TempDir folder;
  const std::filesystem::path file = folder.path() / "keys";
  std::ofstream(file, std::ios::binary) << text;
  return Access::read_keys(file);
}

TEST(Access, ReadsKeysFromALineEach) {
  const auto keys = keys_of("# comment\nfirst-key\r\n\n  \nsecond-key  \nthird-key");
  ASSERT_TRUE(keys.has_value()) << keys.error().message;
  EXPECT_EQ(*keys, (std::vector<std::string>{"first-key", "second-key", "third-key"}));
}

TEST(Access, RefusesFilesWithoutGoodKeys) {
  for (const char* text : {"short\n", "first key\n", "first-key\n\x01keys-keys\n", "schl\xc3\xbcssel\n"}) {
    const auto keys = keys_of(text);
    ASSERT_FALSE(keys.has_value()) << text;
    EXPECT_TRUE(keys.error().message.ends_with(
        ": expected keys of at least 8 visible ASCII characters, one a line, found another"))
        << keys.error().message;
    EXPECT_EQ(keys.error().message.find("key\n"), std::string::npos) << "the message tells the key";
  }
  EXPECT_TRUE(keys_of("# nothing\n").error().message.ends_with(": expected at least one key, found none"));
  EXPECT_EQ(Access::read_keys("/nonexistent/keys").error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace lathe::server
