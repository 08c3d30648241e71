// Names, settings, addresses: everything of the hub client that needs neither a network nor a cache.
#include "lathe/formats/hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>
#include <optional>
#include <string>

#include "hub/stand_in_hub.h"
#include "lathe/formats/hub_download.h"
#include "lathe/formats/hub_http.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::kCommit;
using ::testing::Not;
using testing::spit;
using testing::TempDir;

TEST(HubName, TakesOrganisationNameAndRevision) {
  const Result<HubModelName> plain = parse_hub_name("deepseek-ai/DeepSeek-V2-Lite");
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(plain->organisation, "deepseek-ai");
  EXPECT_EQ(plain->name, "DeepSeek-V2-Lite");
  EXPECT_EQ(plain->revision, "main");
  const Result<HubModelName> named = parse_hub_name("a/b_c.d@v1.0-rc");
  ASSERT_TRUE(named) << named.error().message;
  EXPECT_EQ(named->name, "b_c.d");
  EXPECT_EQ(named->revision, "v1.0-rc");
}

TEST(HubName, RefusesWhatIsNoSinglePathComponent) {
  const std::map<std::string, std::string> wrong = {
      {"gpt2", "expected ORG/NAME"},
      {"", "expected ORG/NAME"},
      {"/name", "organisation: expected 1 to 96 characters"},
      {"org/", "name: expected 1 to 96 characters"},
      {"a/b/c", "name: expected 1 to 96 characters of [A-Za-z0-9._-]"},
      {"../name", "organisation: expected"},
      {"org/..", "name: expected"},
      {"org/a..b", "name: expected"},
      {"org/a--b", "without \"--\""},
      {"-org/name", "organisation: expected"},
      {"org/name.", "name: expected"},
      {"org/na me", "name: expected"},
      {"org/n\xc3\xa4me", "name: expected"},
      {std::string("org/na\0me", 9), "name: expected"},
      {"org/" + std::string(97, 'a'), "name: expected"},
      {"org/name@", "revision: expected a branch, tag or commit"},
      {"org/name@..", "revision: expected"},
      {"org/name@-x", "revision: expected"},
      {"org/name@a/b", "revision: expected"},
      {"org/name@a@b", "revision: expected"},
  };
  for (const auto& [text, message] : wrong) {
    const Result<HubModelName> name = parse_hub_name(text);
    ASSERT_FALSE(name) << text;
    EXPECT_EQ(name.error().code, Errc::kInvalidArgument) << text;
    EXPECT_THAT(name.error().message, HasSubstr(message)) << text;
  }
}

TEST(HubName, PullRefusesNamesPutTogetherElsewhere) {
  HubSettings settings;
  settings.endpoint = "http://127.0.0.1:9";
  const Result<fs::path> path = hub_pull({"..", "etc", "main"}, settings, nullptr);
  ASSERT_FALSE(path);
  EXPECT_THAT(path.error().message, HasSubstr("organisation: expected"));
  EXPECT_FALSE(hub_remove({"a", "../../b", "main"}, true, settings));
}

// The variables of the hub client, set as a test says and put back afterwards.
class Environment : public ::testing::Test {
 protected:
  static constexpr const char* kNames[] = {"HOME",
                                           "XDG_CACHE_HOME",
                                           "HF_HOME",
                                           "HF_HUB_CACHE",
                                           "HUGGINGFACE_HUB_CACHE",
                                           "HF_TOKEN",
                                           "HUGGING_FACE_HUB_TOKEN",
                                           "HF_TOKEN_PATH",
                                           "HF_ENDPOINT",
                                           "HF_HUB_OFFLINE",
                                           "TRANSFORMERS_OFFLINE",
                                           "HF_HUB_DISABLE_IMPLICIT_TOKEN",
                                           "HF_HUB_DISABLE_SYMLINKS",
                                           "HF_HUB_ETAG_TIMEOUT",
                                           "HF_HUB_DOWNLOAD_TIMEOUT",
                                           "REQUESTS_CA_BUNDLE",
                                           "CURL_CA_BUNDLE",
                                           "SSL_CERT_FILE"};

  void SetUp() override {
    for (const char* name : kNames) {
      const char* value = ::getenv(name);
      before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
    set("HOME", home_.path().string());
  }

  void TearDown() override {
    for (const auto& [name, value] : before_) {
      value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
    }
  }

  static void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }

  static HubSettings settings() {
    Result<HubSettings> settings = hub_settings_from_environment();
    EXPECT_TRUE(settings) << settings.error().message;
    return settings ? *settings : HubSettings{};
  }

  TempDir home_;
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(Environment, Defaults) {
  const HubSettings s = settings();
  EXPECT_EQ(s.cache, home_ / ".cache/huggingface/hub");
  EXPECT_EQ(s.endpoint, "https://huggingface.co");
  EXPECT_EQ(s.token, "");
  EXPECT_FALSE(s.offline);
  EXPECT_TRUE(s.symlinks);
  EXPECT_TRUE(s.ca_file.empty());
}

TEST_F(Environment, CacheFolderPrecedence) {
  set("XDG_CACHE_HOME", "/x");
  EXPECT_EQ(settings().cache, "/x/huggingface/hub");
  set("HF_HOME", "~/hf");
  EXPECT_EQ(settings().cache, home_ / "hf/hub");
  set("HF_HUB_CACHE", "/models");
  EXPECT_EQ(settings().cache, "/models");
}

TEST_F(Environment, TokenPrecedence) {
  spit(home_ / ".cache/huggingface/token", "hf_file\n");
  EXPECT_EQ(settings().token, "hf_file");
  spit(home_ / "other", "  hf_other ");
  set("HF_TOKEN_PATH", "~/other");
  EXPECT_EQ(settings().token, "hf_other");
  set("HF_TOKEN", "hf_variable\n");
  EXPECT_EQ(settings().token, "hf_variable");
  set("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes");
  EXPECT_EQ(settings().token, "");
}

TEST_F(Environment, EndpointFlagsAndTimes) {
  set("HF_ENDPOINT", "https://mirror.example/hf//");
  set("TRANSFORMERS_OFFLINE", "True");
  set("HF_HUB_DISABLE_SYMLINKS", "1");
  set("HF_HUB_ETAG_TIMEOUT", "2.5");
  set("HF_HUB_DOWNLOAD_TIMEOUT", "60");
  set("SSL_CERT_FILE", "/ca.pem");
  const HubSettings s = settings();
  EXPECT_EQ(s.endpoint, "https://mirror.example/hf");
  EXPECT_TRUE(s.offline);
  EXPECT_FALSE(s.symlinks);
  EXPECT_EQ(s.connect_timeout_s, 2.5);
  EXPECT_EQ(s.stall_timeout_s, 60.0);
  EXPECT_EQ(s.ca_file, "/ca.pem");
}

TEST_F(Environment, WrongValuesAreErrorsThatNameTheVariable) {
  const auto message = [] {
    const Result<HubSettings> result = hub_settings_from_environment();
    return result ? std::string("accepted") : result.error().message;
  };
  set("HF_TOKEN", "hf_secret\r\nX-Evil: 1");
  EXPECT_THAT(message(), HasSubstr("HF_TOKEN: expected one token of printable ASCII"));
  EXPECT_THAT(message(), Not(HasSubstr("hf_secret")));
  ::unsetenv("HF_TOKEN");
  set("HF_ENDPOINT", "ftp://mirror");
  EXPECT_THAT(message(), HasSubstr("HF_ENDPOINT: expected http(s)://HOST[:PORT][/PATH], found"));
  set("HF_ENDPOINT", "https://user:password@mirror");
  EXPECT_THAT(message(), HasSubstr("HF_ENDPOINT: expected"));
  EXPECT_THAT(message(), Not(HasSubstr("password")));
  set("HF_ENDPOINT", "https://mirror/?a=b");
  EXPECT_THAT(message(), HasSubstr("HF_ENDPOINT: expected"));
  ::unsetenv("HF_ENDPOINT");
  set("HF_HUB_DOWNLOAD_TIMEOUT", "soon");
  EXPECT_THAT(message(), HasSubstr("HF_HUB_DOWNLOAD_TIMEOUT: expected seconds from 0.001 to 86400, found"));
}

TEST(HubAddress, OriginIsSchemeHostAndPort) {
  const Result<HubOrigin> plain = hub_origin("HTTPS://Hub.Example/a?b");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->text(), "https://hub.example");
  EXPECT_EQ(plain->port, "443");
  EXPECT_EQ(*plain, *hub_origin("https://hub.example:443/"));
  EXPECT_NE(*plain, *hub_origin("https://hub.example:444/"));
  EXPECT_NE(*plain, *hub_origin("http://hub.example:443/"));
  EXPECT_NE(*plain, *hub_origin("https://hub.example.org/"));
  for (const char* wrong : {"", "file:///etc/passwd", "ftp://hub.example/", "https://", "https://u:p@hub.example/"}) {
    EXPECT_FALSE(hub_origin(wrong)) << wrong;
  }
}

TEST(HubAddress, ThisMachine) {
  for (const char* here : {"http://localhost:8/", "http://127.0.0.1/", "http://127.1.2.3/", "http://[::1]:80/"}) {
    EXPECT_TRUE(hub_origin(here)->is_this_machine()) << here;
  }
  for (const char* away : {"http://127.example.com/", "http://localhost.example/", "http://10.0.0.1/"}) {
    EXPECT_FALSE(hub_origin(away)->is_this_machine()) << away;
  }
}

TEST(HubAddress, RedirectTargets) {
  EXPECT_EQ(*hub_redirect_target("https://hub/a/b?x", "/c"), "https://hub/c");
  EXPECT_EQ(*hub_redirect_target("https://hub/a/b?x", "c"), "https://hub/a/c");
  EXPECT_EQ(*hub_redirect_target("http://hub/a", "https://cdn/c?Sig=1"), "https://cdn/c?Sig=1");
  EXPECT_EQ(*hub_redirect_target("https://hub/a", "//cdn/c"), "https://cdn/c");
  const Result<std::string> down = hub_redirect_target("https://hub/a", "http://cdn/c?Signature=secret");
  ASSERT_FALSE(down);
  EXPECT_EQ(down.error().message, "https://hub: redirect from https to http://cdn refused");
  for (const char* wrong : {"file:///etc/passwd", "gopher://x/", "ftp://x/", "https://user@cdn/"}) {
    const Result<std::string> target = hub_redirect_target("https://hub/a", wrong);
    ASSERT_FALSE(target) << wrong;
    EXPECT_THAT(target.error().message, HasSubstr("http")) << wrong;
  }
}

TEST(HubAddress, PercentEncoding) {
  EXPECT_EQ(percent_encode("refs/pr/1", false), "refs%2Fpr%2F1");
  EXPECT_EQ(percent_encode("a b/c+d\xff~", true), "a%20b/c%2Bd%FF~");
}

TEST(HubReplyHeaders, WaitThatTheHubWants) {
  const auto wait = [](const char* name, const char* value) {
    HubReply reply;
    reply.headers.emplace_back(name, value);
    return reply.wanted_wait();
  };
  EXPECT_EQ(wait("retry-after", "7"), 7.0);
  EXPECT_EQ(wait("retry-after", "-7"), 0.0);
  EXPECT_EQ(wait("retry-after", "Thu, 01 Jan 2015 00:00:00 GMT"), 0.0);
  EXPECT_GT(wait("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT").value_or(0.0), 1e6);
  EXPECT_EQ(wait("retry-after", "soon"), std::nullopt);
  EXPECT_EQ(wait("ratelimit", "\"api\";r=0;t=55"), 55.0);
  EXPECT_EQ(wait("ratelimit", "\"api\";r=12;t=55"), std::nullopt);
  EXPECT_EQ(wait("ratelimit", "\"api\";r=0;t="), std::nullopt);
  EXPECT_EQ(wait("x-other", "1"), std::nullopt);
}

TEST(HubListingText, RefusesWhatItCannotTrust) {
  const std::string hash64(64, 'a');
  const auto message = [](const std::string& siblings, const std::string& sha = str("\"", kCommit, "\"")) {
    const Result<Json> json = parse_json(str("{\"sha\": ", sha, ", \"siblings\": ", siblings, "}"));
    EXPECT_TRUE(json) << json.error().message;
    const Result<HubListing> listing = parse_hub_listing(*json, {"acme", "tiny", "main"});
    return listing ? std::string("accepted") : listing.error().message;
  };
  EXPECT_EQ(message("[]"), "accepted");
  EXPECT_THAT(message("[]", "\"../../x\""), HasSubstr("acme/tiny: listing: sha: expected 40 lower-case hex digits"));
  EXPECT_THAT(message("[]", "7"), HasSubstr("sha: expected 40 lower-case hex digits, found 7"));
  EXPECT_THAT(message("{}"), HasSubstr("siblings: expected an array"));
  EXPECT_THAT(message("[{}]"), HasSubstr("rfilename: expected a string"));
  for (const char* hostile : {"../x.json",
                              "/etc/x.json",
                              "a/../../b.json",
                              "a//b.json",
                              "./a.json",
                              "..",
                              "a/",
                              "a\\\\..\\\\b.json",
                              "x\\u0000.json",
                              "a\\nb.json",
                              "../x.py",
                              ""}) {
    EXPECT_THAT(message(str("[{\"rfilename\": \"", hostile, "\"}]")), HasSubstr("expected a relative path")) << hostile;
  }
  // Odd names: code and pictures are skipped anyway, texts are left out, but weights must not be.
  EXPECT_EQ(message(R"([{"rfilename": "my picture (1).png"}, {"rfilename": "read me.md"}])"), "accepted");
  EXPECT_THAT(message(R"([{"rfilename": "model 1.safetensors"}])"), HasSubstr("expected a relative path"));
  const std::string entry = str(R"({"rfilename": "a.json", "size": 1, "blobId": ")", kCommit, "\"}");
  EXPECT_EQ(message(str("[", entry, "]")), "accepted");
  EXPECT_THAT(message(str("[", entry, ",", entry, "]")), HasSubstr("named twice"));
  EXPECT_THAT(message(R"([{"rfilename": "a.json", "size": 1, "blobId": "../../x"}])"),
              HasSubstr("blobId: expected 40 lower-case hex digits"));
  const auto lfs = [&](const std::string& size, const std::string& hash) {
    return message(str(R"([{"rfilename": "a.safetensors", "lfs": {"size": )", size, R"(, "sha256": ")", hash, "\"}}]"));
  };
  EXPECT_EQ(lfs("1", hash64), "accepted");
  EXPECT_THAT(lfs("-1", hash64), HasSubstr("size: expected a number of bytes, found -1"));
  EXPECT_THAT(lfs("1e30", hash64), HasSubstr("size: expected a number of bytes"));
  EXPECT_THAT(lfs("1", "abc"), HasSubstr("lfs.sha256: expected 64 lower-case hex digits"));
}

}  // namespace
}  // namespace lathe
