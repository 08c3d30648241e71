// A hub, a network and a disk that misbehave: every pull ends in a verified file or in one clear error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "hub/stand_in_hub.h"
#include "lathe/formats/hub.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kCommit;
using ::testing::Not;
using testing::slurp;
using testing::spit;
using testing::StandInHub;

class HubFaults : public ::testing::Test {
 protected:
  // A model of config.json and model.safetensors (100000 bytes at the cdn), whose cdn takes these steps.
  void start(const std::string& steps, const std::string& more = "", const std::string& file = "") {
    start_raw(str(R"({"repo": "acme/tiny", "revisions": {"main": {"commit": ")",
                  kCommit,
                  R"(", "files": {"config.json": {"text": "{}"}, "model.safetensors": {"size": 100000, "seed": 9,
                  "lfs": true, "cdn": true, "steps": [)",
                  steps,
                  "]",
                  file,
                  "}}}}",
                  more,
                  "}"));
  }

  void start_raw(const std::string& scenario) {
    hub_ = std::make_unique<StandInHub>(scenario);
    ASSERT_TRUE(hub_->started()) << "the stand-in hub needs python3";
    settings_ = hub_->settings();
  }

  Result<fs::path> pull(const std::string& revision = "main") {
    return hub_pull({"acme", "tiny", revision}, settings_, nullptr);
  }

  void expect_good() {
    const Result<fs::path> path = pull();
    ASSERT_TRUE(path) << path.error().message;
    EXPECT_EQ(slurp(*path / "model.safetensors"), hub_->truth("model.safetensors"));
    EXPECT_THAT(partials(), IsEmpty());
  }

  // The error of a pull, after making sure that the model did not get its name.
  Error failure(const std::string& revision = "main") {
    const Result<fs::path> path = pull(revision);
    EXPECT_FALSE(path);
    if (path) return {};
    for (const std::string& name : hub_->final_names()) {
      // Blobs that were verified at most: config.json, and the weights where nothing is wrong with them.
      EXPECT_TRUE(name.starts_with("blobs/") && (name.size() == 6 + 40 || weights_are_good_)) << name;
    }
    EXPECT_EQ(path.error().message.find('\n'), std::string::npos);
    EXPECT_THAT(path.error().message, Not(HasSubstr("very-secret")));
    return path.error();
  }

  std::vector<fs::path> partials() {
    std::vector<fs::path> out;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(hub_->repo() / "blobs", error)) {
      if (entry.path().extension() == ".lathe-partial") out.push_back(entry.path());
    }
    return out;
  }

  std::vector<std::string> ranges() {
    std::vector<std::string> out;
    for (const StandInHub::Seen& request : hub_->seen("/blobs/")) out.push_back(request.range);
    return out;
  }

  std::unique_ptr<StandInHub> hub_;
  HubSettings settings_;
  bool weights_are_good_ = false;
};

using Ranges = std::vector<std::string>;

TEST_F(HubFaults, DroppedConnectionsResume) {
  start(R"({"drop_after": 30000}, {"drop_after": 20000}, {"drop_after": 0})");
  expect_good();
  EXPECT_EQ(ranges(), (Ranges{"", "bytes=30000-", "bytes=50000-", "bytes=50000-"}));
}

TEST_F(HubFaults, ConnectionsThatKeepDroppingEndInOneErrorAndKeepWhatCame) {
  start(R"({"drop_after": 1000, "repeat": -1})");
  const Error error = failure();
  EXPECT_EQ(error.code, Errc::kNetwork);
  EXPECT_THAT(error.message, HasSubstr("acme/tiny: model.safetensors: http://localhost:"));
  EXPECT_THAT(error.message, HasSubstr("(tried 4 times)"));
  ASSERT_EQ(partials().size(), 1u);
  EXPECT_EQ(fs::file_size(partials()[0]), 4000u);
}

TEST_F(HubFaults, ATransferThatGetsOnDoesNotRunOutOfTries) {
  start_raw(str(R"({"repo": "acme/tiny", "revisions": {"main": {"commit": ")",
                kCommit,
                R"(", "files": {"config.json": {"text": "{}"}, "model.safetensors": {"size": 9000000, "seed": 9,
                "lfs": true, "cdn": true, "steps": [{"drop_after": 1200000, "repeat": 6}]}}}}})"));
  settings_.retries = 1;
  expect_good();
  EXPECT_EQ(ranges().size(), 7u);
}

TEST_F(HubFaults, IgnoredRangesStartAgain) {
  start(R"({"drop_after": 30000}, {"ignore_range": true})");
  expect_good();
  EXPECT_EQ(ranges(), (Ranges{"", "bytes=30000-"}));
}

TEST_F(HubFaults, WrongRangesStartAgain) {
  start(R"({"drop_after": 30000}, {"wrong_range": true})");
  expect_good();
  EXPECT_EQ(ranges(), (Ranges{"", "bytes=30000-", ""}));
}

TEST_F(HubFaults, StalledTransfersAreCutAndResumed) {
  start(R"({"stall_after": 30000, "seconds": 20})");
  settings_.stall_timeout_s = 0.5;
  const auto begin = std::chrono::steady_clock::now();
  expect_good();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(ranges(), (Ranges{"", "bytes=30000-"}));
}

TEST_F(HubFaults, StallsThatLastAreNamed) {
  start(R"({"stall_after": 0, "seconds": 20, "repeat": -1})");
  settings_.stall_timeout_s = 0.2;
  settings_.retries = 1;
  EXPECT_THAT(failure().message, HasSubstr("no byte moved for 0.2 s (tried 2 times)"));
}

TEST_F(HubFaults, WrongContentIsRefusedDeletedAndTriedAgain) {
  start(R"({"corrupt": true})");
  expect_good();
  EXPECT_EQ(ranges(), (Ranges{"", ""}));
}

TEST_F(HubFaults, ContentThatStaysWrongIsAnError) {
  start(R"({"corrupt": true, "repeat": -1})");
  const Error error = failure();
  EXPECT_EQ(error.code, Errc::kInvalidData);
  EXPECT_THAT(error.message, HasSubstr("acme/tiny: model.safetensors: expected SHA-256 "));
  EXPECT_THAT(error.message, HasSubstr(", found "));
  EXPECT_THAT(error.message, HasSubstr("(tried 3 times)"));
  EXPECT_THAT(partials(), IsEmpty());
}

TEST_F(HubFaults, SmallFilesAreVerifiedToo) {
  start_raw(str(R"({"repo": "acme/tiny", "revisions": {"main": {"commit": ")",
                kCommit,
                R"(", "files": {"config.json": {"text": "{}", "steps": [{"corrupt": true, "repeat": -1}]}}}}})"));
  EXPECT_THAT(failure().message, HasSubstr("acme/tiny: config.json: expected git SHA-1 "));
}

TEST_F(HubFaults, WrongLengthsAreErrors) {
  start(R"({"content_length": 90000, "repeat": -1})");
  EXPECT_THAT(failure().message, HasSubstr("expected 100000 bytes, found Content-Length \"90000\""));
  EXPECT_THAT(partials(), IsEmpty());
  start(R"({"content_length": 200000000000, "repeat": -1})");
  EXPECT_THAT(failure().message, HasSubstr("expected 100000 bytes, found Content-Length \"200000000000\""));
  start(R"({"end_after": 70000, "repeat": -1})");
  EXPECT_THAT(failure().message, HasSubstr("expected 100000 bytes, found 70000 (tried 3 times)"));
  EXPECT_THAT(partials(), IsEmpty());
  start(R"({"surplus": 5, "repeat": -1})");
  EXPECT_THAT(failure().message, HasSubstr("expected 100000 bytes, found more"));
  EXPECT_THAT(partials(), IsEmpty());
  start(R"({"end_after": 70000})");
  expect_good();
}

TEST_F(HubFaults, ADamagedPartialFileIsThrownAway) {
  start("");
  ASSERT_TRUE(pull());
  const fs::path blob = fs::canonical(hub_->snapshot() / "model.safetensors");
  const std::string text = slurp(blob);
  for (const std::string& left : {std::string(5000, 'x'), std::string(100000, 'x'), text + "more"}) {
    fs::remove(blob);
    spit(blob.string() + ".lathe-partial", left);
    expect_good();
  }
}

TEST_F(HubFaults, BusyHubsAreAskedAgain) {
  start(R"({"status": 503}, {"status": 500}, {"status": 408})",
        R"(, "listing": {"steps": [{"status": 502}, {"status": 504}]})");
  expect_good();
  EXPECT_EQ(hub_->seen("/api/").size(), 3u);
  EXPECT_EQ(ranges().size(), 4u);
}

TEST_F(HubFaults, BusyHubsAreGivenUp) {
  start(R"({"status": 503, "repeat": -1})");
  EXPECT_THAT(failure().message, HasSubstr("HTTP 503 (tried 4 times)"));
  EXPECT_EQ(ranges().size(), 4u);
  start("", R"(, "listing": {"steps": [{"status": 500, "repeat": -1}]})");
  EXPECT_THAT(failure().message, HasSubstr("acme/tiny: http://127.0.0.1:"));
}

TEST_F(HubFaults, OtherRefusalsAreNotRepeated) {
  start(R"({"status": 410, "repeat": -1})");
  EXPECT_THAT(failure().message, HasSubstr("HTTP 410"));
  EXPECT_EQ(ranges().size(), 1u);
}

TEST_F(HubFaults, RetryAfterWinsOverTheBackoff) {
  start(R"({"status": 429, "headers": {"Retry-After": "1"}})");
  const auto begin = std::chrono::steady_clock::now();
  expect_good();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(990));
  // And shortens it too.
  start(R"({"status": 429, "headers": {"Retry-After": "0"}})");
  settings_.retry_base_delay_s = 30.0;
  expect_good();
}

TEST_F(HubFaults, AWaitOfHoursIsAnErrorAtOnce) {
  start(R"({"status": 429, "headers": {"Retry-After": "7200"}, "repeat": -1})");
  EXPECT_THAT(failure().message, HasSubstr("too many requests (HTTP 429), the hub asks to wait 7200 s"));
  EXPECT_EQ(ranges().size(), 1u);
}

TEST_F(HubFaults, EndlessRedirectsEnd) {
  start("", "", R"(, "hub_steps": [{"redirect": "{hub}/loop", "repeat": -1}])");
  EXPECT_THAT(failure().message, HasSubstr("more than 10 redirects"));
  EXPECT_EQ(hub_->seen("/loop").size(), 10u);
}

TEST_F(HubFaults, RedirectsToOtherSchemesAreRefused) {
  for (const char* target : {"file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:password@127.0.0.1:1/"}) {
    start("", "", str(R"(, "hub_steps": [{"redirect": ")", target, R"("}])"));
    EXPECT_THAT(failure().message, HasSubstr("expected an http or https URL")) << target;
  }
}

TEST_F(HubFaults, HostileNamesStopEverything) {
  for (const char* name :
       {"../outside.json", "/tmp/outside.json", "a/../../../../outside.json", "..\\\\outside.json"}) {
    start("",
          str(R"(, "listing": {"extra": [{"rfilename": ")", name, R"(", "size": 2, "blobId": ")", kCommit, "\"}]}"));
    const Error error = failure();
    EXPECT_EQ(error.code, Errc::kInvalidData);
    EXPECT_THAT(error.message, HasSubstr("expected a relative path")) << name;
    EXPECT_THAT(hub_->seen("/resolve/"), IsEmpty()) << name;
    EXPECT_FALSE(fs::exists(hub_->cache())) << name;
  }
}

TEST_F(HubFaults, SizesBeyondTheDiskAreRefusedWithBothNumbers) {
  start("", "", R"(, "declared_size": 1152921504606846976)");
  const Error error = failure();
  EXPECT_EQ(error.code, Errc::kResourceExhausted);
  EXPECT_THAT(error.message, HasSubstr("not enough disk space"));
  EXPECT_THAT(error.message, HasSubstr("expected 1152921504606846978 free bytes"));
  EXPECT_THAT(error.message, HasSubstr(", found "));
  EXPECT_THAT(hub_->seen("/resolve/"), IsEmpty());
}

TEST_F(HubFaults, SizesThatOverflowAreRefused) {
  const std::string hash_a(64, 'a');
  const std::string hash_b(64, 'b');
  const std::string hash_c(64, 'c');
  const auto entry = [](char name, const std::string& hash) {
    return str(
        R"({"rfilename": ")", name, R"(.safetensors", "lfs": {"size": 9223372036854775807, "sha256": ")", hash, "\"}}");
  };
  start("",
        str(R"(, "listing": {"extra": [)", entry('a', hash_a), ",", entry('b', hash_b), ",", entry('c', hash_c), "]}"));
  EXPECT_THAT(failure().message, HasSubstr("exceed 2^64 bytes"));
}

TEST_F(HubFaults, BrokenListingsAreErrors) {
  start("", R"(, "listing": {"steps": [{"body": "<html>"}]})");
  EXPECT_THAT(failure().message, HasSubstr("acme/tiny: listing: byte"));
  start("", R"(, "listing": {"set": {"sha": "../../../x"}})");
  EXPECT_THAT(failure().message, HasSubstr("sha: expected 40 lower-case hex digits"));
  start("", R"(, "listing": {"set": {"siblings": []}})");
  EXPECT_THAT(failure().message, HasSubstr("no file that running a model needs"));
}

TEST_F(HubFaults, UnknownModelsAndRevisions) {
  start("");
  const Result<fs::path> unknown = hub_pull({"acme", "absent", "main"}, settings_, nullptr);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Errc::kNotFound);
  EXPECT_EQ(unknown.error().message,
            str("acme/absent: no such model at ",
                settings_.endpoint,
                ", or a private one: set HF_TOKEN to a token that may read it"));
  const Error revision = failure("v9");
  EXPECT_EQ(revision.code, Errc::kNotFound);
  EXPECT_THAT(revision.message, HasSubstr("acme/tiny@v9: no revision \"v9\" at "));
  EXPECT_FALSE(fs::exists(hub_->cache()));
}

TEST_F(HubFaults, AFileThatTheHubForgot) {
  weights_are_good_ = true;  // and may arrive before the error does
  start("", str(R"(, "listing": {"extra": [{"rfilename": "gone.json", "size": 2, "blobId": ")", kCommit, "\"}]}"));
  const Error error = failure();
  EXPECT_EQ(error.code, Errc::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("acme/tiny: gone.json: no such file at "));
}

TEST_F(HubFaults, GatedModelsSayWhatToDo) {
  start("", R"(, "gated": true)");
  EXPECT_THAT(failure().message,
              HasSubstr(str("gated: accept its terms at ",
                            settings_.endpoint,
                            "/acme/tiny and set HF_TOKEN to a token of that account")));
  start("", R"(, "gated": true, "token": "hf_right")");
  settings_.token = "hf_wrong";
  const std::string message = failure().message;
  EXPECT_THAT(message, HasSubstr("gated: accept its terms"));
  EXPECT_THAT(message, HasSubstr("the token of HF_TOKEN or the token file may not read it"));
  EXPECT_THAT(message, Not(HasSubstr("hf_wrong")));
}

TEST_F(HubFaults, RefusedTokensAndHubsThatRepeatThem) {
  start("", R"(, "token": "hf_right")");
  EXPECT_THAT(failure().message,
              HasSubstr("access refused (HTTP 401): no such model, or private or gated: set HF_TOKEN"));
  start("", R"(, "echo": true, "listing": {"steps": [{"status": 418, "repeat": -1}]})");
  settings_.token = "hf_repeated";
  ::testing::internal::CaptureStderr();
  const std::string message = failure().message;
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(message, HasSubstr("HTTP 418: \"seen: Bearer ***\""));
  EXPECT_THAT(message, Not(HasSubstr("hf_repeated")));
  EXPECT_THAT(log, Not(HasSubstr("hf_repeated")));
}

TEST_F(HubFaults, TheTokenIsInNoLogAndNoArgument) {
  start(R"({"status": 503}, {"drop_after": 10}, {"corrupt": true}, {"status": 429, "headers": {"Retry-After": "0"}})",
        R"(, "token": "hf_hidden", "echo": true)");
  settings_.token = "hf_hidden";
  ::testing::internal::CaptureStderr();
  settings_.retries = 5;
  const Result<fs::path> path = pull();
  const std::string log = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_THAT(log, Not(HasSubstr("hf_hidden")));
  EXPECT_THAT(log, Not(HasSubstr("very-secret")));
  EXPECT_THAT(slurp("/proc/self/cmdline"), Not(HasSubstr("hf_hidden")));
}

TEST_F(HubFaults, NobodyThere) {
  start("");
  settings_.endpoint = "http://127.0.0.1:1";
  settings_.retries = 1;
  const Error error = failure();
  EXPECT_EQ(error.code, Errc::kNetwork);
  EXPECT_THAT(error.message, HasSubstr("acme/tiny: http://127.0.0.1:1: "));
  EXPECT_THAT(error.message, HasSubstr("connect to server (tried 2 times)"));
}

TEST_F(HubFaults, CancelStopsSoonAndKeepsWhatCame) {
  start(R"({"slow": 0.05})");
  settings_.parallel_files = 1;  // else config.json may be on its way too
  std::atomic<bool> cancel{false};
  settings_.cancel = &cancel;
  const auto begin = std::chrono::steady_clock::now();
  const Result<fs::path> path =
      hub_pull({"acme", "tiny", "main"}, settings_, [&](const HubProgress& p) { cancel = p.file_done > 2; });
  ASSERT_FALSE(path);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_EQ(path.error().code, Errc::kCancelled);
  EXPECT_THAT(path.error().message, HasSubstr("stopped; the next pull resumes"));
  ASSERT_EQ(partials().size(), 1u);
  cancel = false;
  expect_good();
  EXPECT_THAT(ranges().back(), HasSubstr("bytes="));
}

TEST_F(HubFaults, CancelCutsWaitsShort) {
  start(R"({"status": 503, "repeat": -1})");
  settings_.retry_base_delay_s = 60.0;
  std::atomic<bool> cancel{false};
  settings_.cancel = &cancel;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    cancel = true;
  });
  const Error error = failure();
  later.join();
  EXPECT_EQ(error.code, Errc::kCancelled);
}

TEST_F(HubFaults, ACacheThatCannotBeWrittenIsNamed) {
  start("");
  spit(hub_->dir() / "file", "x");
  settings_.cache = hub_->dir() / "file" / "cache";
  const Result<fs::path> path = pull();
  ASSERT_FALSE(path);
  EXPECT_EQ(path.error().code, Errc::kIo);
  EXPECT_THAT(path.error().message, HasSubstr(settings_.cache.string()));
}

TEST_F(HubFaults, APartialFileThatIsALinkIsRefused) {
  start("");
  ASSERT_TRUE(pull());
  const fs::path blob = fs::canonical(hub_->snapshot() / "model.safetensors");
  fs::remove(blob);
  spit(hub_->dir() / "precious", "data");
  fs::create_symlink(hub_->dir() / "precious", blob.string() + ".lathe-partial");
  const Result<fs::path> path = pull();
  ASSERT_FALSE(path);
  EXPECT_THAT(path.error().message, HasSubstr(".lathe-partial: cannot open"));
  EXPECT_EQ(slurp(hub_->dir() / "precious"), "data");
}

}  // namespace
}  // namespace lathe
