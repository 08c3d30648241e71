#include "lathe/formats/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using lathe::testing::TempDir;
namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";

void write_text(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

// A file of one-byte tensors.
void write_shard(const fs::path& path, const std::vector<std::string>& names) {
  static const std::byte kOne[1] = {std::byte{1}};
  std::vector<StoredTensor> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::kU8, {1}, kOne});
  const Status status = write_safetensors(path, tensors);
  ASSERT_TRUE(status) << status.error().message;
}

void write_index(const fs::path& folder, const std::map<std::string, std::string>& weight_map) {
  Json::Object map;
  for (const auto& [tensor, file] : weight_map) map.emplace_back(tensor, file);
  write_text(folder / kIndex, Json(Json::Object{{"metadata", Json::object()}, {"weight_map", std::move(map)}}).dump());
}

std::string verdict(const fs::path& folder) {
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder);
  if (checkpoint) return "accepted";
  EXPECT_EQ(checkpoint.error().message.find('\n'), std::string::npos);
  return checkpoint.error().message;
}

// Two shards, three tensors.
void write_good(const fs::path& folder) {
  write_shard(folder / "s-1.safetensors", {"b", "c"});
  write_shard(folder / "s-2.safetensors", {"a"});
  write_index(folder, {{"a", "s-2.safetensors"}, {"b", "s-1.safetensors"}, {"c", "s-1.safetensors"}});
}

TEST(Checkpoint, OpensShardsThroughTheIndex) {
  const TempDir dir;
  write_good(dir.path());
  // The index wins over a single file, which may be left over from something else.
  write_text(dir / "model.safetensors", "not a checkpoint");
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  std::vector<std::string> names;
  for (const StoredTensor* tensor : checkpoint->tensors()) names.push_back(tensor->name);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(checkpoint->total_bytes(), 3U);
  EXPECT_EQ(checkpoint->folder(), dir.path());
  ASSERT_NE(checkpoint->find("a"), nullptr);
  EXPECT_EQ(checkpoint->file_of(*checkpoint->find("a")), dir / "s-2.safetensors");
  EXPECT_EQ(checkpoint->file_of(*checkpoint->find("c")), dir / "s-1.safetensors");
  EXPECT_EQ(checkpoint->find("d"), nullptr);
  EXPECT_EQ(checkpoint->find(""), nullptr);
  EXPECT_EQ(checkpoint->file_of(StoredTensor{}), fs::path());
}

TEST(Checkpoint, OpensASingleFile) {
  const TempDir dir;
  write_shard(dir / "model.safetensors", {"x"});
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_NE(checkpoint->find("x"), nullptr);
}

TEST(Checkpoint, OpensLinkedFilesAsInTheHubCache) {
  const TempDir dir;
  fs::create_directories(dir / "blobs");
  fs::create_directories(dir / "snapshots/1");
  write_shard(dir / "blobs/aa", {"b", "c"});
  write_shard(dir / "blobs/bb", {"a"});
  write_index(dir / "blobs", {{"a", "s-2.safetensors"}, {"b", "s-1.safetensors"}, {"c", "s-1.safetensors"}});
  fs::create_symlink("../../blobs/aa", dir / "snapshots/1/s-1.safetensors");
  fs::create_symlink("../../blobs/bb", dir / "snapshots/1/s-2.safetensors");
  fs::create_symlink(fs::path("../../blobs") / kIndex, dir / "snapshots/1" / kIndex);
  EXPECT_EQ(verdict(dir / "snapshots/1"), "accepted");
}

TEST(Checkpoint, UsesTensorsThatTheIndexLeavesOut) {
  const TempDir dir;
  write_good(dir.path());
  write_index(dir.path(), {{"a", "s-2.safetensors"}, {"c", "s-1.safetensors"}});
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_NE(checkpoint->find("b"), nullptr);
}

TEST(Checkpoint, RefusesFoldersWithoutWeights) {
  const TempDir dir;
  EXPECT_EQ(verdict(dir.path()),
            str(dir.path(), ": expected model.safetensors or model.safetensors.index.json, found neither"));
  write_text(dir / "pytorch_model.bin", "x");
  EXPECT_NE(verdict(dir.path()).find("found pytorch_model.bin: pickled weights can run code"), std::string::npos);
  EXPECT_EQ(verdict(dir / "none"), str(dir / "none", ": expected a folder, found nothing"));
  EXPECT_NE(verdict(dir / "pytorch_model.bin").find("expected a folder, found another kind of file"),
            std::string::npos);
}

TEST(Checkpoint, RefusesShardsThatAreNotFiles) {
  const TempDir dir;
  write_good(dir.path());
  fs::remove(dir / "s-2.safetensors");
  EXPECT_NE(verdict(dir.path()).find("1 of 2 files are missing, the first is s-2.safetensors"), std::string::npos);
  fs::create_symlink("s-2.safetensors", dir / "s-2.safetensors");
  EXPECT_NE(verdict(dir.path()).find("s-2.safetensors: "), std::string::npos) << verdict(dir.path());
  fs::remove(dir / "s-2.safetensors");
  fs::create_symlink("nowhere", dir / "s-2.safetensors");
  EXPECT_NE(verdict(dir.path()).find("s-2.safetensors: "), std::string::npos) << verdict(dir.path());
  fs::remove(dir / "s-2.safetensors");
  fs::create_directory(dir / "s-2.safetensors");
  EXPECT_NE(verdict(dir.path()).find("s-2.safetensors: "), std::string::npos) << verdict(dir.path());
}

TEST(Checkpoint, RefusesIndexesThatDisagreeWithTheFiles) {
  const TempDir dir;
  write_good(dir.path());
  const auto with = [&](const std::map<std::string, std::string>& map) {
    write_index(dir.path(), map);
    return verdict(dir.path());
  };
  const std::string one = "s-1.safetensors", two = "s-2.safetensors";
  EXPECT_EQ(with({{"a", one}, {"b", one}, {"c", one}, {"z", two}}),
            str(dir / kIndex, ": tensor \"a\": expected in s-1.safetensors, not found there"));
  EXPECT_NE(with({{"a", two}, {"b", one}, {"c", one}, {"zz", one}}).find("tensor \"zz\": expected in s-1.safetensors"),
            std::string::npos);
  EXPECT_NE(with({{"a", two}, {"aa", one}, {"b", one}, {"c", one}}).find("tensor \"aa\": expected in"),
            std::string::npos);
  write_shard(dir / "s-2.safetensors", {"a", "b"});
  EXPECT_EQ(with({{"a", two}, {"b", one}, {"c", one}}),
            str(dir.path(), ": tensor \"b\" is stored twice, in s-1.safetensors and in s-2.safetensors"));
}

TEST(Checkpoint, RefusesFileNamesThatLeaveTheFolder) {
  const TempDir dir;
  write_good(dir.path());
  fs::create_directory(dir / "sub");
  write_shard(dir / "sub/s.safetensors", {"a"});
  for (const std::string& name : {std::string("../s-1.safetensors"),
                                  std::string(".."),
                                  std::string("."),
                                  std::string(),
                                  (dir / "s-2.safetensors").string(),
                                  std::string("sub/s.safetensors"),
                                  std::string("sub\\s.safetensors"),
                                  std::string("a b.safetensors"),
                                  std::string("s-2.safetensors\n"),
                                  std::string("s\0x", 3),
                                  std::string("\xE2\x80\xAE.safetensors"),
                                  std::string(256, 'a')}) {
    write_index(dir.path(), {{"a", name}});
    const std::string message = verdict(dir.path());
    EXPECT_NE(message.find("weight_map: \"a\": expected a plain file name"), std::string::npos)
        << name << ": " << message;
    EXPECT_LT(message.size(), 400U);
  }
}

TEST(Checkpoint, RefusesIndexesThatAreNotOne) {
  const TempDir dir;
  write_good(dir.path());
  const std::pair<const char*, const char*> cases[] = {
      {"", "expected an object, found the end of the text"},
      {"[]", "expected an object"},
      {"{}", "missing \"weight_map\""},
      {R"({"metadata":{"total_size":1}})", "missing \"weight_map\""},
      {R"({"weight_map":[]})", "weight_map: byte 14: expected an object"},
      {R"({"weight_map":{}})", "expected at least one tensor, found none"},
      {R"({"weight_map":{"a":1}})", "weight_map: byte 19: expected a string"},
      {R"({"weight_map":{"a":null}})", "expected a string"},
      {R"({"weight_map":{"a":"s-2.safetensors"},"weight_map":{}})", "duplicate key \"weight_map\""},
      {R"({"weight_map":{"a":"s-2.safetensors","a":"s-1.safetensors"}})", "weight_map: duplicate key \"a\""},
      {R"({"weight_map":{"a":"s-2.safetensors"}} x)", "expected nothing after the JSON value"},
      {R"({"weight_map":{"a":"s-2.safetensors"},"x":tru})", "expected a value"},
      {"{\"weight_map\":{\"\xFF\":\"s-2.safetensors\"}}", "not valid UTF-8"},
      {"\xEF\xBB\xBF{}", "expected an object"},
      {R"({"a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]})",
       "nesting deeper than 32"},
  };
  for (const auto& [text, wanted] : cases) {
    write_text(dir / kIndex, text);
    const std::string message = verdict(dir.path());
    EXPECT_TRUE(message.starts_with((dir / kIndex).string() + ": ")) << message;
    EXPECT_NE(message.find(wanted), std::string::npos) << text << ": " << message;
  }
  fs::remove(dir / kIndex);
  fs::create_symlink(kIndex, dir / kIndex);
  EXPECT_NE(verdict(dir.path()).find(kIndex), std::string::npos);
}

TEST(Checkpoint, OpensNinetyThousandTensorsQuickly) {
  const TempDir dir;
  std::map<std::string, std::string> map;
  for (int shard = 0; shard < 9; ++shard) {
    const std::string file = str("model-0000", shard, "-of-00009.safetensors");
    std::vector<std::string> names;
    for (int i = 0; i < 10'000; ++i) {
      names.push_back(str("model.layers.", i / 256, ".mlp.experts.", i % 256, ".", shard, ".gate_proj.weight"));
      map[names.back()] = file;
    }
    write_shard(dir / file, names);
  }
  write_index(dir.path(), map);
  const auto start = std::chrono::steady_clock::now();
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  for (const auto& [name, file] : map) ASSERT_NE(checkpoint->find(name), nullptr);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(checkpoint->tensors().size(), 90'000U);
  RecordProperty("seconds", str(seconds));
  EXPECT_LT(seconds, 20.0);  // about 0.2 s alone; the bound only catches quadratic work, also under sanitizers
}

// Files of another writer: golden models made with the reference implementation's library.
TEST(Checkpoint, OpensGoldenModels) {
  const fs::path golden = lathe::testing::golden_dir();
  const Result<Checkpoint> v2 = Checkpoint::open(golden / "v2-tiny");
  ASSERT_TRUE(v2) << v2.error().message;
  const StoredTensor* embedding = v2->find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->dtype, DType::kBF16);
  EXPECT_EQ(embedding->shape, (std::vector<int64_t>{320, 80}));

  const Result<Checkpoint> fp8 = Checkpoint::open(golden / "v3-tiny-fp8");
  ASSERT_TRUE(fp8) << fp8.error().message;
  const std::vector<const StoredTensor*> all = fp8->tensors();
  const auto count = [&](DType dtype) {
    return std::count_if(all.begin(), all.end(), [&](const StoredTensor* t) { return t->dtype == dtype; });
  };
  EXPECT_GT(count(DType::kF8E4M3), 0);
  EXPECT_EQ(
      std::count_if(all.begin(), all.end(), [](const StoredTensor* t) { return t->name.ends_with("_scale_inv"); }),
      count(DType::kF8E4M3));
}

}  // namespace
}  // namespace lathe
