// The cache on disk: what is taken from a listing, locks, links, listing, removing, resolving.
#include "lathe/formats/hub_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "hub/stand_in_hub.h"
#include "lathe/formats/hub_http.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::kCommit;
using testing::kOtherCommit;
using testing::slurp;
using testing::spit;
using testing::TempDir;

TEST(HubFileRules, OnlyWhatAModelNeeds) {
  for (const char* wanted : {"config.json",
                             "model-00001-of-00002.safetensors",
                             "model.safetensors.index.json",
                             "tokenizer.model",
                             "merges.txt",
                             "chat_template.jinja",
                             "README.md",
                             "LICENSE-MODEL",
                             "sub/folder/a.json"}) {
    EXPECT_EQ(hub_file_rule(wanted), HubFileRule::kWanted) << wanted;
  }
  for (const char* skipped : {"modeling_deepseek.py",
                              "pytorch_model.bin",
                              "consolidated.pt",
                              "model.pth",
                              "a.pickle",
                              ".gitattributes",
                              "figures/a b.png",
                              ".json",
                              "LICENSE.py",
                              "other.model"}) {
    EXPECT_EQ(hub_file_rule(skipped), HubFileRule::kSkipped) << skipped;
  }
  EXPECT_EQ(hub_file_rule(std::string(256, 'a') + ".json"), HubFileRule::kOdd);
  EXPECT_EQ(hub_file_rule("a b.json"), HubFileRule::kOdd);
  std::string deep = "a.json";
  for (int i = 0; i < 20; ++i) deep = "d/" + deep;
  EXPECT_EQ(hub_file_rule(deep), HubFileRule::kHostile);
}

// A cache with one model put together by hand, as another program would leave it.
class Cache : public ::testing::Test {
 protected:
  void add(const std::string& revision, const std::string& commit, const std::string& file, const std::string& text) {
    const std::string etag = str("etag-of-", text);
    spit(repo() / "blobs" / etag, text);
    const fs::path link = repo() / "snapshots" / commit / file;
    fs::create_directories(link.parent_path());
    const bool nested = file.find('/') != std::string::npos;
    fs::create_symlink(str(nested ? "../" : "", "../../blobs/", etag), link);
    if (!revision.empty()) spit(repo() / "refs" / revision, commit);
  }

  fs::path repo() const { return dir_ / "models--acme--tiny"; }

  HubSettings settings() const {
    HubSettings settings;
    settings.cache = dir_.path();
    return settings;
  }

  std::string resolve_error(const std::string& model) const {
    const Result<fs::path> path = resolve_model(model, settings());
    return path ? "resolved to " + path->string() : path.error().message;
  }

  TempDir dir_;
  const HubModelName name_{"acme", "tiny", "main"};
};

TEST_F(Cache, ListsNothingWhereThereIsNothing) {
  HubSettings nowhere = settings();
  nowhere.cache = dir_ / "absent";
  const auto models = hub_list(nowhere);
  ASSERT_TRUE(models) << models.error().message;
  EXPECT_TRUE(models->empty());
  spit(dir_ / "CACHEDIR.TAG", "x");
  fs::create_directories(dir_ / "datasets--acme--set/snapshots/x");
  EXPECT_TRUE(hub_list(settings())->empty());
}

TEST_F(Cache, ListsSnapshotsWithRefsBytesAndCompleteness) {
  add("main", kCommit, "config.json", "{}");
  add("v1", kCommit, "model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors"}})");
  add("", kCommit, "one.safetensors", "12345");
  add("", kCommit, "sub/same.json", "{}");  // the same blob is counted once
  spit(repo() / "refs/pr/1", kOtherCommit);
  add("", kOtherCommit, "config.json", "{}");
  add("", kOtherCommit, "model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors"}})");
  const auto models = hub_list(settings());
  ASSERT_TRUE(models) << models.error().message;
  ASSERT_EQ(models->size(), 2u);
  const HubCachedModel& whole = (*models)[0];
  EXPECT_EQ(whole.name, "acme/tiny");
  EXPECT_EQ(whole.revision, "main, v1");
  EXPECT_EQ(whole.commit, kCommit);
  EXPECT_EQ(whole.snapshot, repo() / "snapshots" / kCommit);
  EXPECT_EQ(whole.bytes, 2u + 40u + 5u);
  EXPECT_TRUE(whole.complete);
  EXPECT_EQ((*models)[1].revision, "pr/1");
  EXPECT_FALSE((*models)[1].complete);
  fs::remove_all(repo() / "refs");
  EXPECT_EQ((*hub_list(settings()))[0].revision, kCommit);
}

TEST_F(Cache, AModelWithAnUnreadableIndexIsListedAsIncomplete) {
  add("main", kCommit, "config.json", "{}");
  add("", kCommit, "model.safetensors.index.json", "{");
  const auto models = hub_list(settings());
  ASSERT_TRUE(models && models->size() == 1u);
  EXPECT_FALSE((*models)[0].complete);
}

TEST_F(Cache, RemovesOneRevisionAndKeepsSharedContent) {
  add("main", kCommit, "config.json", "shared");
  add("", kCommit, "model.safetensors", "old weights");
  add("new", kOtherCommit, "config.json", "shared2");
  add("", kOtherCommit, "tokenizer.json", "shared");
  const Result<uint64_t> freed = hub_remove(name_, false, settings());
  ASSERT_TRUE(freed) << freed.error().message;
  EXPECT_EQ(*freed, 11u);
  EXPECT_FALSE(fs::exists(repo() / "refs/main"));
  EXPECT_FALSE(fs::exists(repo() / "snapshots" / kCommit));
  EXPECT_FALSE(fs::exists(repo() / "blobs/etag-of-old weights"));
  EXPECT_EQ(slurp(repo() / "snapshots" / kOtherCommit / "tokenizer.json"), "shared");
  // The last one takes the folder with it.
  EXPECT_TRUE(hub_remove({"acme", "tiny", "new"}, false, settings()));
  EXPECT_FALSE(fs::exists(repo()));
}

TEST_F(Cache, RemovesAllRevisionsAndRemains) {
  add("main", kCommit, "config.json", "1234");
  add("new", kOtherCommit, "config.json", "123456");
  spit(repo() / "blobs/x.lathe-partial", "12");
  spit(dir_ / ".locks/models--acme--tiny/x.lock", "");
  const Result<uint64_t> freed = hub_remove(name_, true, settings());
  ASSERT_TRUE(freed) << freed.error().message;
  EXPECT_GE(*freed, 12u);
  EXPECT_FALSE(fs::exists(repo()));
  EXPECT_FALSE(fs::exists(dir_ / ".locks/models--acme--tiny"));
  const Result<uint64_t> again = hub_remove(name_, true, settings());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::kNotFound);
  EXPECT_EQ(again.error().message, str("acme/tiny: not in the hub cache ", dir_.path()));
  // What an interrupted download left, without any snapshot, goes too.
  spit(repo() / "blobs/x.lathe-partial", "12");
  EXPECT_EQ(*hub_remove(name_, false, settings()), 2u);
  EXPECT_FALSE(fs::exists(repo()));
}

TEST_F(Cache, RemovingAnUnknownRevisionRemovesNothing) {
  add("main", kCommit, "config.json", "1");
  const Result<uint64_t> freed = hub_remove({"acme", "tiny", "v9"}, false, settings());
  ASSERT_FALSE(freed);
  EXPECT_THAT(freed.error().message, HasSubstr("acme/tiny@v9: not in the hub cache"));
  EXPECT_TRUE(fs::exists(repo() / "snapshots" / kCommit / "config.json"));
}

TEST_F(Cache, RemovingDoesNotFollowForeignLinks) {
  TempDir outside;
  spit(outside / "precious", "data");
  add("main", kCommit, "config.json", "1");
  add("other", kOtherCommit, "config.json", "2");
  fs::create_directory_symlink(outside.path(), repo() / "snapshots" / kCommit / "folder");
  fs::create_symlink(outside / "precious", repo() / "snapshots" / kCommit / "file.json");
  ASSERT_TRUE(hub_remove(name_, false, settings()));
  ASSERT_TRUE(hub_remove(name_, true, settings()));
  EXPECT_EQ(slurp(outside / "precious"), "data");
}

TEST_F(Cache, RemovingWhileADownloadRunsIsRefused) {
  add("main", kCommit, "config.json", "1");
  fs::create_directories(dir_ / ".locks/models--acme--tiny");
  HubStop stop(nullptr);
  {
    const Result<FileLock> lock = hub_lock(dir_ / ".locks/models--acme--tiny/e.lock", &stop);
    ASSERT_TRUE(lock) << lock.error().message;
    const Result<uint64_t> freed = hub_remove(name_, true, settings());
    ASSERT_FALSE(freed);
    EXPECT_EQ(freed.error().code, Errc::kIo);
    EXPECT_THAT(freed.error().message, HasSubstr("held by another process"));
    EXPECT_TRUE(fs::exists(repo() / "snapshots" / kCommit / "config.json"));
  }
  EXPECT_TRUE(hub_remove(name_, true, settings()));
}

TEST_F(Cache, LocksExcludeThreadsAndAnswerToStop) {
  const fs::path path = dir_ / "a.lock";
  HubStop stop(nullptr);
  Result<FileLock> first = hub_lock(path, &stop);
  ASSERT_TRUE(first);
  std::atomic<bool> got{false};
  std::thread waiter([&] { got = hub_lock(path, &stop).has_value(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(got);
  { const FileLock released = *std::move(first); }
  waiter.join();
  EXPECT_TRUE(got);
  const Result<FileLock> held = hub_lock(path, &stop);
  ASSERT_TRUE(held);
  stop.request();
  const Result<FileLock> stopped = hub_lock(path, &stop);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, Errc::kCancelled);
}

TEST_F(Cache, PlacesLinksRelativeAndReplacesWrongOnes) {
  const HubPaths paths(dir_.path(), name_);
  spit(paths.blob("e"), "text");
  ASSERT_TRUE(place_in_snapshot(paths, kCommit, "a.json", "e", true));
  ASSERT_TRUE(place_in_snapshot(paths, kCommit, "x/y/a.json", "e", true));
  EXPECT_EQ(fs::read_symlink(paths.snapshot(kCommit) / "a.json"), "../../blobs/e");
  EXPECT_EQ(fs::read_symlink(paths.snapshot(kCommit) / "x/y/a.json"), "../../../../blobs/e");
  EXPECT_EQ(slurp(paths.snapshot(kCommit) / "x/y/a.json"), "text");
  fs::create_symlink("/etc/passwd", paths.snapshot(kCommit) / "b.json");
  ASSERT_TRUE(place_in_snapshot(paths, kCommit, "b.json", "e", true));
  EXPECT_EQ(fs::read_symlink(paths.snapshot(kCommit) / "b.json"), "../../blobs/e");
  // Where links are not wanted the file itself moves, once.
  ASSERT_TRUE(place_in_snapshot(paths, kOtherCommit, "a.json", "e", false));
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(paths.snapshot(kOtherCommit) / "a.json")));
  ASSERT_TRUE(place_in_snapshot(paths, kOtherCommit, "a.json", "e", false));
  const Status gone = place_in_snapshot(paths, kOtherCommit, "c.json", "e", true);
  ASSERT_FALSE(gone);
  EXPECT_THAT(gone.error().message, HasSubstr("disappeared"));
}

TEST_F(Cache, ResolvesPathsFirst) {
  const Result<fs::path> folder = resolve_model(dir_.path().string(), settings());
  ASSERT_TRUE(folder);
  EXPECT_EQ(*folder, dir_.path());
  spit(dir_ / "m.gguf", "x");
  EXPECT_EQ(*resolve_model((dir_ / "m.gguf").string(), settings()), dir_ / "m.gguf");
}

TEST_F(Cache, ResolvesNamesOfCompleteModels) {
  add("main", kCommit, "config.json", "{}");
  add("", kCommit, "model.safetensors", "weights");
  EXPECT_EQ(*resolve_model("acme/tiny", settings()), repo() / "snapshots" / kCommit);
  EXPECT_EQ(*resolve_model(str("acme/tiny@", kCommit), settings()), repo() / "snapshots" / kCommit);
  spit(repo() / "refs/main", str(kCommit, "\n"));
  EXPECT_EQ(*resolve_model("acme/tiny", settings()), repo() / "snapshots" / kCommit);
}

TEST_F(Cache, ExplainsWhatItCannotResolve) {
  EXPECT_EQ(resolve_error("acme/absent"),
            str("acme/absent: not in the hub cache ", dir_.path(), "; `lathe pull acme/absent` downloads it"));
  EXPECT_THAT(resolve_error(""), HasSubstr("found an empty name"));
  EXPECT_THAT(resolve_error("no-such-folder"), HasSubstr("no such file or folder, and not a name ORG/NAME"));
  EXPECT_THAT(resolve_error("/no/such/folder"), HasSubstr("no such file or folder"));
  EXPECT_THAT(resolve_error(std::string(5000, 'a')), HasSubstr("no such file or folder"));
  EXPECT_THAT(resolve_error(std::string("a\0b", 3)), HasSubstr("without a zero byte"));

  add("main", kCommit, "config.json", "{}");
  EXPECT_THAT(resolve_error("acme/tiny@v1"), HasSubstr("`lathe pull acme/tiny@v1` completes it"));
  add("", kCommit, "model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors"}})");
  EXPECT_THAT(resolve_error("acme/tiny"), HasSubstr("one.safetensors is missing; `lathe pull acme/tiny` completes"));
  spit(repo() / "refs/main", "../../../etc");
  EXPECT_THAT(resolve_error("acme/tiny"), HasSubstr("expected a commit of 40 hex digits, found"));
  spit(repo() / "refs/main", kOtherCommit);
  EXPECT_THAT(resolve_error("acme/tiny"), HasSubstr("config.json is missing; `lathe pull acme/tiny` completes"));
}

TEST_F(Cache, RefusesAnIndexThatNamesPaths) {
  add("main", kCommit, "config.json", "{}");
  add("", kCommit, "model.safetensors.index.json", R"({"weight_map": {"a": "../../../secret"}})");
  EXPECT_THAT(resolve_error("acme/tiny"), HasSubstr("expected the name of a file beside the index"));
}

}  // namespace
}  // namespace lathe
