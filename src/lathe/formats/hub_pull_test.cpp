// Pulls that succeed, against the stand-in hub: what lies in the cache afterwards, and what went over the wire.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "hub/stand_in_hub.h"
#include "lathe/base/sha256.h"
#include "lathe/formats/hub.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kCommit;
using testing::kOtherCommit;
using testing::slurp;
using testing::spit;
using testing::StandInHub;

// A scenario with one revision, main, of those files.
std::string scenario(const std::string& files, const std::string& more = "") {
  return str(R"({"repo": "acme/tiny", "revisions": {"main": {"commit": ")",
             kCommit,
             R"(", "files": {)",
             files,
             "}}}",
             more,
             "}");
}

constexpr const char* kModel = R"(
  "config.json": {"text": "{\"model_type\": \"deepseek_v2\"}"},
  "tokenizer.json": {"text": "{}"},
  "sub/extra.json": {"text": "[1]"},
  "model.safetensors": {"size": 300000, "seed": 3, "lfs": true, "cdn": true},
  "modeling_deepseek.py": {"text": "import os"},
  "pytorch_model.bin": {"size": 1000, "lfs": true, "cdn": true},
  ".gitattributes": {"text": "*"})";

class HubPull : public ::testing::Test {
 protected:
  void start(const std::string& text) {
    hub_ = std::make_unique<StandInHub>(text);
    ASSERT_TRUE(hub_->started()) << "the stand-in hub needs python3";
  }

  Result<fs::path> pull(const HubSettings& settings, const std::string& revision = "main") {
    return hub_pull({"acme", "tiny", revision}, settings, [this](const HubProgress& p) { reports_.push_back(p); });
  }

  Result<fs::path> pull() { return pull(hub_->settings()); }

  std::unique_ptr<StandInHub> hub_;
  std::vector<HubProgress> reports_;
};

TEST_F(HubPull, LeavesTheStandardLayout) {
  start(scenario(kModel));
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(*path, hub_->snapshot());
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(*path)) {
    if (entry.is_directory()) continue;
    const std::string name = entry.path().lexically_relative(*path).string();
    names.insert(name);
    ASSERT_TRUE(entry.is_symlink()) << name;
    const std::string target = fs::read_symlink(entry.path()).string();
    const std::string prefix = name.starts_with("sub/") ? "../../../blobs/" : "../../blobs/";
    ASSERT_TRUE(target.starts_with(prefix)) << target;
    EXPECT_EQ(target.size(), prefix.size() + (name == "model.safetensors" ? 64u : 40u)) << target;
    EXPECT_EQ(slurp(entry.path()), hub_->truth(name)) << name;
  }
  EXPECT_EQ(names, (std::set<std::string>{"config.json", "tokenizer.json", "sub/extra.json", "model.safetensors"}));
  EXPECT_EQ(slurp(hub_->repo() / "refs/main"), kCommit);
  EXPECT_THAT(slurp(hub_->cache() / "CACHEDIR.TAG"), HasSubstr("Signature: 8a477f597d28d172789f06886806bc55\n"));
  Hasher hasher(Hasher::Kind::kSha256);
  hasher.update(hub_->truth("model.safetensors"));
  const std::string sha256 = hasher.hex_digest();
  EXPECT_TRUE(fs::exists(hub_->repo() / "blobs" / sha256));
  EXPECT_TRUE(fs::exists(hub_->cache() / ".locks/models--acme--tiny" / (sha256 + ".lock")));
  // 4 blobs, 4 links, 1 ref and nothing else.
  EXPECT_EQ(hub_->final_names().size(), 9u);
  for (const auto& entry : fs::directory_iterator(hub_->repo() / "blobs")) {
    EXPECT_EQ(entry.path().string().find("partial"), std::string::npos) << entry.path();
  }
  // Files are asked for by commit: a branch that moves meanwhile cannot mix two versions.
  EXPECT_EQ(hub_->seen(str("/acme/tiny/resolve/", kCommit, "/config.json")).size(), 1u);
  EXPECT_THAT(hub_->seen("pytorch_model.bin"), IsEmpty());
  EXPECT_THAT(hub_->seen(".py"), IsEmpty());
}

TEST_F(HubPull, ASecondPullAsksOnceAndLoadsNothing) {
  start(scenario(kModel));
  ASSERT_TRUE(pull());
  const size_t before = hub_->seen().size();
  reports_.clear();
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(*path, hub_->snapshot());
  EXPECT_EQ(hub_->seen().size(), before + 1);
  EXPECT_THAT(reports_, IsEmpty());
}

TEST_F(HubPull, TheTokenStaysWithTheEndpoint) {
  start(scenario(kModel, R"(, "token": "hf_very_secret")"));
  HubSettings settings = hub_->settings();
  settings.token = "hf_very_secret";
  const Result<fs::path> path = pull(settings);
  ASSERT_TRUE(path) << path.error().message;
  size_t at_cdn = 0;
  for (const StandInHub::Seen& request : hub_->seen()) {
    if (request.server == "hub") {
      EXPECT_EQ(request.authorization, "Bearer hf_very_secret") << request.path;
    } else {
      EXPECT_EQ(request.authorization, "") << request.path;
      ++at_cdn;
    }
  }
  EXPECT_EQ(at_cdn, 1u);
}

TEST_F(HubPull, TheTokenDoesNotComeBackAfterADetour) {
  // hub -> cdn -> hub: whoever sits at the cdn must not choose what is asked for with the token.
  start(scenario(R"("config.json": {"text": "{}"},
    "model.safetensors": {"size": 10, "lfs": true, "cdn": true, "steps": [{"redirect": "{hub}/elsewhere"}]})"));
  HubSettings settings = hub_->settings();
  settings.token = "hf_very_secret";
  EXPECT_FALSE(pull(settings));
  const auto detour = hub_->seen("/elsewhere");
  ASSERT_EQ(detour.size(), 1u);
  EXPECT_EQ(detour[0].server, "hub");
  EXPECT_EQ(detour[0].authorization, "");
}

TEST_F(HubPull, AnotherPortIsAnotherOrigin) {
  start(scenario(R"("config.json": {"text": "{}"},
    "model.safetensors": {"size": 10, "lfs": true, "cdn": true})"));
  HubSettings settings = hub_->settings();
  settings.token = "hf_very_secret";
  // Now the hub and the cdn share the host name and differ in the port alone.
  settings.endpoint.replace(settings.endpoint.find("127.0.0.1"), 9, "localhost");
  ASSERT_TRUE(pull(settings));
  const auto blobs = hub_->seen("/blobs/");
  ASSERT_EQ(blobs.size(), 1u);
  EXPECT_EQ(blobs[0].authorization, "");
}

TEST_F(HubPull, RelativeRedirectsOfRenamedModelsKeepTheToken) {
  start(scenario(R"("config.json": {"text": "{}"})",
                 str(R"(, "token": "hf_t", "listing": {"steps": [{"redirect": "/api/models/acme/tiny/revision/)",
                     kCommit,
                     R"(?blobs=true"}]})")));
  HubSettings settings = hub_->settings();
  settings.token = "hf_t";
  const Result<fs::path> path = pull(settings);
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(hub_->seen("/api/").size(), 2u);
}

TEST_F(HubPull, ReportsProgressOneAtATimeAndInSum) {
  start(scenario(R"("config.json": {"text": "{}"},
    "a.safetensors": {"size": 400000, "seed": 1, "lfs": true, "cdn": true, "steps": [{"slow": 0.01}]},
    "b.safetensors": {"size": 300000, "seed": 2, "lfs": true, "cdn": true, "steps": [{"slow": 0.01}]})"));
  std::atomic<int> inside{0};
  bool overlapped = false;
  std::map<std::string, uint64_t> finished;
  HubProgress last;
  const Result<fs::path> path = hub_pull({"acme", "tiny", "main"}, hub_->settings(), [&](const HubProgress& p) {
    overlapped = overlapped || ++inside != 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_LE(p.file_done, p.file_total);
    EXPECT_LE(p.done, p.total);
    if (p.file_finished) finished[p.file] = p.file_done;
    last = p;
    --inside;
  });
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_FALSE(overlapped);
  EXPECT_EQ(
      finished,
      (std::map<std::string, uint64_t>{{"config.json", 2}, {"a.safetensors", 400000}, {"b.safetensors", 300000}}));
  EXPECT_EQ(last.done, 700002u);
  EXPECT_EQ(last.total, 700002u);
}

TEST_F(HubPull, ResumesWhatAFormerRunLeft) {
  start(scenario(R"("config.json": {"text": "{}"},
    "model.safetensors": {"size": 200000, "seed": 5, "lfs": true, "cdn": true, "steps": [{"drop_after": 120000}]})"));
  HubSettings once = hub_->settings();
  once.retries = 0;
  const Result<fs::path> broken = pull(once);
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, Errc::kNetwork);
  EXPECT_FALSE(fs::exists(hub_->repo() / "refs/main"));
  EXPECT_FALSE(fs::exists(hub_->snapshot()));
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(slurp(*path / "model.safetensors"), hub_->truth("model.safetensors"));
  const auto blobs = hub_->seen("/blobs/");
  ASSERT_EQ(blobs.size(), 2u);
  EXPECT_EQ(blobs[0].range, "");
  EXPECT_EQ(blobs[1].range, "bytes=120000-");
}

TEST_F(HubPull, ResumesAfterBeingKilled) {
  start(scenario(R"("config.json": {"text": "{}"},
    "model.safetensors": {"size": 900000, "seed": 6, "lfs": true, "cdn": true, "steps": [{"slow": 0.02}]})"));
  const pid_t child = ::fork();
  if (child == 0) {
    static_cast<void>(hub_pull({"acme", "tiny", "main"}, hub_->settings(), nullptr));
    ::_exit(0);
  }
  fs::path partial;
  for (int i = 0; i < 500 && partial.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(hub_->repo() / "blobs", error)) {
      // A file that was renamed meanwhile has no size.
      const uintmax_t size = entry.file_size(error);
      if (!error && entry.path().extension() == ".lathe-partial" && size > 50000) partial = entry.path();
    }
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_FALSE(partial.empty());
  ASSERT_LT(fs::file_size(partial), 900000u);
  const uint64_t left = fs::file_size(partial);
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(slurp(*path / "model.safetensors"), hub_->truth("model.safetensors"));
  EXPECT_EQ(hub_->seen("/blobs/").back().range, str("bytes=", left, "-"));
}

TEST_F(HubPull, APartialFileThatIsWholeNeedsNoTransfer) {
  start(scenario(kModel));
  ASSERT_TRUE(pull());
  const fs::path blob = fs::canonical(hub_->snapshot() / "model.safetensors");
  fs::rename(blob, blob.string() + ".lathe-partial");
  const size_t before = hub_->seen("/blobs/").size();
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(slurp(*path / "model.safetensors"), hub_->truth("model.safetensors"));
  EXPECT_EQ(hub_->seen("/blobs/").size(), before);
}

TEST_F(HubPull, ABlobOfTheWrongSizeIsLoadedAgain) {
  start(scenario(kModel));
  ASSERT_TRUE(pull());
  const fs::path blob = fs::canonical(hub_->snapshot() / "model.safetensors");
  fs::resize_file(blob, 10);
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(slurp(blob), hub_->truth("model.safetensors"));
}

TEST_F(HubPull, ThreadsAndProcessesPullTheSameModelAtOnce) {
  start(scenario(R"("config.json": {"text": "{}"},
    "a.safetensors": {"size": 600000, "seed": 1, "lfs": true, "cdn": true, "steps": [{"slow": 0.005}]},
    "b.safetensors": {"size": 500000, "seed": 2, "lfs": true, "cdn": true, "steps": [{"slow": 0.005}]})"));
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(hub_pull({"acme", "tiny", "main"}, hub_->settings(), nullptr) ? 0 : 1);
    children.push_back(child);
  }
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] { good += hub_pull({"acme", "tiny", "main"}, hub_->settings(), nullptr) ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 2);
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_EQ(slurp(hub_->snapshot() / "a.safetensors"), hub_->truth("a.safetensors"));
  EXPECT_EQ(slurp(hub_->snapshot() / "b.safetensors"), hub_->truth("b.safetensors"));
  EXPECT_EQ(hub_->final_names().size(), 7u);
  // Whoever waited found the work done.
  EXPECT_EQ(hub_->seen("/blobs/").size(), 2u);
}

TEST_F(HubPull, RevisionsShareContentAndOnlyBranchesGetRefs) {
  start(str(R"({"repo": "acme/tiny", "revisions": {
    "main": {"commit": ")",
            kCommit,
            R"(", "files": {"config.json": {"text": "{}"},
      "model.safetensors": {"size": 1000, "lfs": true, "cdn": true}}},
    "v2": {"commit": ")",
            kOtherCommit,
            R"(", "files": {"config.json": {"text": "{\"a\": 1}"},
      "model.safetensors": {"size": 1000, "lfs": true, "cdn": true}}}}})"));
  ASSERT_TRUE(pull());
  const Result<fs::path> other = pull(hub_->settings(), kOtherCommit);
  ASSERT_TRUE(other) << other.error().message;
  EXPECT_EQ(*other, hub_->snapshot(kOtherCommit));
  EXPECT_FALSE(fs::exists(hub_->repo() / "refs" / kOtherCommit));
  ASSERT_TRUE(pull(hub_->settings(), "v2"));
  EXPECT_EQ(slurp(hub_->repo() / "refs/v2"), kOtherCommit);
  EXPECT_EQ(slurp(hub_->repo() / "refs/main"), kCommit);
  EXPECT_EQ(hub_->seen("/blobs/").size(), 1u);
  const auto models = hub_list(hub_->settings());
  ASSERT_TRUE(models);
  ASSERT_EQ(models->size(), 2u);
  EXPECT_TRUE((*models)[0].complete && (*models)[1].complete);
  EXPECT_EQ(*resolve_model("acme/tiny@v2", hub_->settings()), hub_->snapshot(kOtherCommit));
}

TEST_F(HubPull, FilesOfEqualContentShareOneTransfer) {
  start(scenario(R"("config.json": {"text": "{}"}, "tokenizer_config.json": {"text": "{}"})"));
  ASSERT_TRUE(pull());
  EXPECT_EQ(hub_->seen("/resolve/").size(), 1u);
  EXPECT_EQ(slurp(hub_->snapshot() / "tokenizer_config.json"), "{}");
}

TEST_F(HubPull, EmptyFilesNeedNoTransfer) {
  start(scenario(R"("config.json": {"text": "{}"}, "notes.txt": {"text": ""})"));
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_TRUE(fs::is_regular_file(*path / "notes.txt"));
  EXPECT_EQ(fs::file_size(*path / "notes.txt"), 0u);
}

TEST_F(HubPull, OfflineAnswersFromTheCache) {
  start(scenario(kModel));
  HubSettings offline = hub_->settings();
  offline.offline = true;
  const Result<fs::path> absent = pull(offline);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Errc::kNotFound);
  EXPECT_THAT(absent.error().message, HasSubstr("offline mode (HF_HUB_OFFLINE): acme/tiny: not in the hub cache"));
  ASSERT_TRUE(pull());
  const size_t before = hub_->seen().size();
  const Result<fs::path> path = pull(offline);
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(*path, hub_->snapshot());
  EXPECT_EQ(hub_->seen().size(), before);
}

TEST_F(HubPull, AsksFilesForHashesThatTheListingLacks) {
  start(scenario(kModel, R"(, "listing": {"without_hashes": true})"));
  const Result<fs::path> path = pull();
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(slurp(*path / "model.safetensors"), hub_->truth("model.safetensors"));
  EXPECT_EQ(slurp(*path / "config.json"), hub_->truth("config.json"));
  for (const StandInHub::Seen& request : hub_->seen()) {
    // A HEAD is answered by the hub itself; following it to the content network would lose the linked hash.
    if (request.method == "HEAD") {
      EXPECT_EQ(request.server, "hub");
    }
  }
}

TEST_F(HubPull, WithoutLinksTheFilesLieInTheSnapshot) {
  start(scenario(kModel));
  HubSettings settings = hub_->settings();
  settings.symlinks = false;
  const Result<fs::path> path = pull(settings);
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(*path / "model.safetensors")));
  EXPECT_EQ(slurp(*path / "model.safetensors"), hub_->truth("model.safetensors"));
  const size_t before = hub_->seen().size();
  ASSERT_TRUE(pull(settings));
  EXPECT_EQ(hub_->seen().size(), before + 1);
  EXPECT_TRUE((*hub_list(settings))[0].complete);
}

// A certificate for 127.0.0.1 that signs itself; false where the openssl program is absent.
bool make_certificate(const fs::path& folder) {
  const std::string command =
      str("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
          "-keyout '",
          folder / "key.pem",
          "' -out '",
          folder / "cert.pem",
          "' >/dev/null 2>&1");
  return ::system(command.c_str()) == 0;
}

TEST_F(HubPull, HttpsVerifiesCertificatesAndRefusesToStepDown) {
  testing::TempDir dir;
  if (!make_certificate(dir.path())) GTEST_SKIP() << "needs the openssl program";
  start(scenario(R"("config.json": {"text": "{}"}, "z.safetensors": {"size": 1000, "lfs": true, "cdn": true})",
                 str(R"(, "tls": {"cert": ")", dir / "cert.pem", R"(", "key": ")", dir / "key.pem", "\"}")));
  HubSettings settings = hub_->settings();
  settings.endpoint = hub_->address("https");
  const Result<fs::path> unknown = pull(settings);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Errc::kNetwork);
  EXPECT_THAT(unknown.error().message, HasSubstr("ssl peer certificate"));
  EXPECT_THAT(hub_->seen(), IsEmpty());
  settings.ca_file = dir / "cert.pem";
  const Result<fs::path> down = pull(settings);
  ASSERT_FALSE(down);
  EXPECT_THAT(down.error().message, HasSubstr("z.safetensors"));
  EXPECT_THAT(down.error().message, HasSubstr("redirect from https to http://localhost"));
  EXPECT_THAT(down.error().message, ::testing::Not(HasSubstr("Signature")));
  EXPECT_THAT(hub_->seen("/blobs/"), IsEmpty());
}

}  // namespace
}  // namespace lathe
