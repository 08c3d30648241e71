#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "lathe/base/str.h"
#include "lathe/formats/checkpoint.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using testing::TempDir;

std::string file_bytes(std::string_view header, size_t data_bytes) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  out += header;
  for (size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i + 1);
  return out;
}

void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// The message of a refused header, or "accepted".
std::string verdict(std::string_view header, uint64_t data_bytes) {
  const Result<SafetensorsHeader> parsed = parse_safetensors_header(header, data_bytes);
  return parsed ? "accepted" : parsed.error().message;
}

std::string verdict_of_file(const std::filesystem::path& path) {
  const Result<SafetensorsFile> file = SafetensorsFile::open(path);
  return file ? "accepted" : file.error().message;
}

std::vector<std::byte> counted_bytes(size_t n) {
  std::vector<std::byte> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(i * 7 + 1);
  return out;
}

constexpr std::string_view kTwo =
    R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}})";

TEST(SafetensorsHeader, ReadsTensorsInHeaderOrder) {
  const Result<SafetensorsHeader> parsed = parse_safetensors_header(kTwo, 12);
  ASSERT_TRUE(parsed) << parsed.error().message;
  ASSERT_EQ(parsed->entries.size(), 2U);
  EXPECT_EQ(parsed->entries[0].tensor.name, "a");
  EXPECT_EQ(parsed->entries[1].tensor.dtype, DType::kBF16);
  EXPECT_EQ(parsed->entries[1].tensor.shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(parsed->entries[1].begin, 8U);
  EXPECT_EQ(parsed->entries[1].end, 12U);
}

TEST(SafetensorsHeader, AcceptsWhatTheFormatAllows) {
  EXPECT_EQ(verdict("{}", 0), "accepted");
  EXPECT_EQ(verdict("{}      ", 0), "accepted");
  EXPECT_EQ(verdict(R"({"__metadata__":{"format":"pt","x":""}})", 0), "accepted");
  EXPECT_EQ(verdict(R"({"scalar":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})", 8), "accepted");
  // Empty tensors, at the start, in the middle and at the end.
  EXPECT_EQ(
      verdict(
          R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
          R"("c":{"dtype":"F32","shape":[3,0],"data_offsets":[2,2]},"d":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},)"
          R"("e":{"dtype":"I64","shape":[0,0],"data_offsets":[3,3]}})",
          3),
      "accepted");
  // Header order need not be data order; keys of an entry come in any order.
  EXPECT_EQ(
      verdict(
          R"({"b":{"data_offsets":[1,2],"shape":[1],"dtype":"U8"},"a":{"shape":[1],"data_offsets":[0,1],"dtype":"I8"}})",
          2),
      "accepted");
  EXPECT_EQ(verdict(R"({"a":{"dtype":"BOOL","shape":[1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1), "accepted");
  for (const char* dtype : {"F16", "BF16", "I16", "U16"}) {
    EXPECT_EQ(verdict(str(R"({"a":{"dtype":")", dtype, R"(","shape":[3],"data_offsets":[0,6]}})"), 6), "accepted")
        << dtype;
  }
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "I8", "U8"}) {
    EXPECT_EQ(verdict(str(R"({"a":{"dtype":")", dtype, R"(","shape":[3],"data_offsets":[0,3]}})"), 3), "accepted")
        << dtype;
  }
}

struct BadHeader {
  const char* name;
  std::string header;
  uint64_t data_bytes;
  const char* message;  // part of the error
};

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return str(R"({"w":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets, "}}");
}

std::vector<BadHeader> bad_headers() {
  const std::string u8 = R"("U8")";
  const auto two = [](std::string_view a, std::string_view b, int na, int nb) {
    return str(R"({"a":{"dtype":"U8","shape":[)",
               na,
               R"(],"data_offsets":)",
               a,
               R"(},"b":{"dtype":"U8","shape":[)",
               nb,
               R"(],"data_offsets":)",
               b,
               "}}");
  };
  return {
      {"empty", "", 0, "header: expected '{' as its first byte, found nothing"},
      {"leading space", " {}", 0, "header: expected '{' as its first byte, found \" {}\""},
      {"array", "[]", 0, "expected '{' as its first byte"},
      {"byte order mark", "\xEF\xBB\xBF{}", 0, "expected '{' as its first byte"},
      {"bad utf-8", "{\"\xFF\":1}", 0, "header: not valid UTF-8"},
      {"overlong utf-8", "{\"\xC0\xAF\":1}", 0, "header: not valid UTF-8"},
      {"trailing text", "{} x", 0, "header: byte 3: expected nothing after the JSON value, found \"x\""},
      {"two objects", "{}{}", 0, "expected nothing after the JSON value"},
      {"unfinished", "{", 0, "header: byte 1: expected a member name, found the end of the text"},
      {"entry not an object", R"({"w":3})", 0, "tensor \"w\": byte 5: expected an object, found"},
      {"entry null", R"({"w":null})", 0, "expected an object"},
      {"deep", str(R"({"w":)", std::string(1000, '['), "}"), 0, "expected an object"},
      {"unknown dtype", entry(R"("F13")", "[1]", "[0,1]"), 1, "header: tensor \"w\": unknown dtype \"F13\""},
      {"dtype in lower case", entry(R"("f32")", "[1]", "[0,4]"), 4, "unknown dtype \"f32\""},
      {"dtype a number", entry("32", "[1]", "[0,4]"), 4, "expected a string"},
      {"no dtype", R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1, "tensor \"w\": missing \"dtype\""},
      {"no shape", R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1, "tensor \"w\": missing \"shape\""},
      {"no offsets", R"({"w":{"dtype":"U8","shape":[1]}})", 1, "tensor \"w\": missing \"data_offsets\""},
      {"extra field", R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1, "found \"x\""},
      {"dtype twice",
       R"({"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1,
       "duplicate key \"dtype\""},
      {"shape twice",
       R"({"w":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}})",
       1,
       "duplicate key \"shape\""},
      {"offsets twice",
       R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}})",
       1,
       "duplicate key \"data_offsets\""},
      {"shape a number", entry(u8, "1", "[0,1]"), 1, "expected an array"},
      {"negative extent",
       entry(u8, "[-1]", "[0,1]"),
       1,
       "expected a non-negative integer of at most 64 bits, found \"-1]"},
      {"fractional extent", entry(u8, "[1.0]", "[0,1]"), 1, "expected a non-negative integer"},
      {"extent as text", entry(u8, R"(["1"])", "[0,1]"), 1, "expected a non-negative integer"},
      {"rank 9", entry(u8, "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "expected at most 8 dimensions"},
      {"extent 2^63", entry(u8, "[9223372036854775808]", "[0,1]"), 1, "dimension 9223372036854775808 exceeds 2^63 - 1"},
      {"extent 2^64", entry(u8, "[18446744073709551616]", "[0,1]"), 1, "expected a non-negative integer"},
      {"product wraps to 0", entry(u8, "[4294967296,4294967296]", "[0,0]"), 0, "exceeds 2^63 - 1 bytes"},
      {"product wraps to 1",
       entry(u8, "[9223372036854775807,9223372036854775807]", "[0,1]"),
       1,
       "exceeds 2^63 - 1 bytes"},
      {"bytes wrap", entry(R"("F64")", "[2305843009213693952]", "[0,0]"), 0, "exceeds 2^63 - 1 bytes"},
      {"wraps beside 0", entry(u8, "[0,4294967296,4294967296]", "[0,0]"), 0, "exceeds 2^63 - 1 bytes"},
      {"one offset", entry(u8, "[1]", "[0]"), 1, "expected two offsets, found 1"},
      {"three offsets", entry(u8, "[1]", "[0,1,1]"), 1, "expected two offsets, found more"},
      {"negative offset", entry(u8, "[1]", "[-1,0]"), 1, "expected a non-negative integer"},
      {"begin after end", entry(u8, "[1]", "[1,0]"), 1, "expected begin <= end, found [1, 0]"},
      {"end past the data", entry(u8, "[2]", "[0,2]"), 1, "expected an end of at most 1 (the bytes of data), found 2"},
      {"end 2^64-1",
       entry(u8, "[1]", "[18446744073709551614,18446744073709551615]"),
       1,
       "expected an end of at most 1"},
      {"size below the shape", entry(R"("F32")", "[2]", "[0,4]"), 4, "expected 8 bytes for shape [2] of F32, found 4"},
      {"size above the shape", entry(u8, "[2]", "[0,4]"), 4, "expected 2 bytes for shape [2] of U8, found 4"},
      {"empty shape with bytes", entry(u8, "[0]", "[0,1]"), 1, "expected 0 bytes for shape [0] of U8, found 1"},
      {"hole at the start",
       entry(u8, "[1]", "[1,2]"),
       2,
       "expected begin 0 (the end of the tensor before), found 1: hole"},
      {"hole", two("[0,1]", "[2,3]", 1, 1), 3, "tensor \"b\": data_offsets: expected begin 1"},
      {"overlap", two("[0,2]", "[1,3]", 2, 2), 3, "found 1: overlap"},
      {"same bytes twice", two("[0,2]", "[0,2]", 2, 2), 2, "found 0: overlap"},
      {"bytes left over",
       two("[0,1]", "[1,2]", 1, 1),
       3,
       "header: expected 2 bytes of data (the end of the last tensor), found 3"},
      {"data without tensors", "{}", 1, "expected 0 bytes of data"},
      {"empty tensor in a hole", two("[0,1]", "[2,2]", 1, 0), 2, "found 2: hole"},
      {"tensor twice",
       R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2,
       "header: tensor \"w\": stored twice"},
      {"tensor twice, once escaped",
       R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0077":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2,
       "tensor \"w\": stored twice"},
      {"metadata not an object", R"({"__metadata__":[]})", 0, "header: __metadata__: byte 16: expected an object"},
      {"metadata value a number", R"({"__metadata__":{"a":1}})", 0, "__metadata__: byte 21: expected a string"},
      {"metadata value an object", R"({"__metadata__":{"a":{}}})", 0, "expected a string"},
      {"metadata key twice", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "__metadata__: duplicate key \"a\""},
      {"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", 0, "duplicate key \"__metadata__\""},
  };
}

TEST(SafetensorsHeader, RefusesEveryBrokenRuleByName) {
  for (const BadHeader& bad : bad_headers()) {
    const std::string message = verdict(bad.header, bad.data_bytes);
    EXPECT_NE(message.find(bad.message), std::string::npos) << bad.name << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << bad.name;
  }
}

TEST(SafetensorsHeader, BoundsMetadata) {
  std::string header = R"({"__metadata__":{"a":"")";
  for (int i = 0; i < 65'536; ++i) header += str(",\"", i, "\":\"\"");
  EXPECT_EQ(verdict(header + "}}", 0), "header: __metadata__: expected at most 65536 entries, found more");
}

TEST(SafetensorsFile, WritesAndReadsBack) {
  const TempDir dir;
  const std::vector<std::byte> data = counted_bytes(64);
  const auto bytes = [&](size_t begin, size_t n) { return std::span(data).subspan(begin, n); };
  const std::vector<StoredTensor> tensors = {
      {"z.u8", DType::kU8, {3}, bytes(0, 3)},
      {"b.f32", DType::kF32, {2, 2}, bytes(3, 16)},
      {"a.bf16", DType::kBF16, {3}, bytes(19, 6)},
      {"scalar", DType::kF32, {}, bytes(25, 4)},
      {"empty", DType::kF64, {0, 5}, bytes(0, 0)},
      {"a.u8", DType::kU8, {1}, bytes(40, 1)},
      {"n\"\n\xE2\x82\xAC", DType::kI64, {1}, bytes(48, 8)},
  };
  const std::vector<std::pair<std::string, std::string>> metadata = {{"made_by", "a \"test\""}};
  const Status written = write_safetensors(dir / "m.safetensors", tensors, metadata);
  ASSERT_TRUE(written) << written.error().message;
  const Result<SafetensorsFile> file = SafetensorsFile::open(dir / "m.safetensors");
  ASSERT_TRUE(file) << file.error().message;

  ASSERT_EQ(file->tensors().size(), tensors.size());
  for (const StoredTensor& wanted : tensors) {
    const StoredTensor* found = file->find(wanted.name);
    ASSERT_NE(found, nullptr) << wanted.name;
    EXPECT_EQ(found->dtype, wanted.dtype);
    EXPECT_EQ(found->shape, wanted.shape);
    EXPECT_TRUE(std::equal(found->bytes.begin(), found->bytes.end(), wanted.bytes.begin(), wanted.bytes.end()));
  }
  std::vector<std::string> order;
  for (const StoredTensor& tensor : file->tensors()) order.push_back(tensor.name);
  EXPECT_EQ(order,
            (std::vector<std::string>{"empty", "n\"\n\xE2\x82\xAC", "b.f32", "scalar", "a.bf16", "a.u8", "z.u8"}));
  EXPECT_EQ(file->metadata(),
            (std::vector<std::pair<std::string, std::string>>{{"made_by", "a \"test\""}, {"format", "pt"}}));
  EXPECT_EQ(file->find("nope"), nullptr);
  EXPECT_EQ(file->find(""), nullptr);
  EXPECT_EQ(file->find("b.f32")->elements(), 4);
  EXPECT_EQ(file->find("scalar")->elements(), 1);
  EXPECT_EQ(file->find("empty")->elements(), 0);

  std::ifstream raw(dir / "m.safetensors", std::ios::binary);
  uint64_t length = 0;
  raw.read(reinterpret_cast<char*>(&length), 8);
  EXPECT_EQ(length % 8, 0U);
}

TEST(SafetensorsFile, WriterRefusesWhatItCouldNotReadBack) {
  const TempDir dir;
  const std::vector<std::byte> data = counted_bytes(8);
  const auto verdict_of = [&](std::vector<StoredTensor> tensors,
                              std::vector<std::pair<std::string, std::string>> meta) {
    const Status status = write_safetensors(dir / "x.safetensors", tensors, meta);
    EXPECT_FALSE(std::filesystem::exists(dir / "x.safetensors"));
    return status ? "accepted" : status.error().message;
  };
  const StoredTensor good{"a", DType::kF32, {2}, data};
  EXPECT_NE(verdict_of({good, good}, {}).find("tensor \"a\": given twice"), std::string::npos);
  EXPECT_NE(verdict_of({{"__metadata__", DType::kF32, {2}, data}}, {}).find("the name is reserved"), std::string::npos);
  EXPECT_NE(verdict_of({{"\xFF", DType::kF32, {2}, data}}, {}).find("not valid UTF-8"), std::string::npos);
  EXPECT_NE(verdict_of({{"a", DType::kF32, {3}, data}}, {}).find("expected 12 bytes for shape [3] of F32, found 8"),
            std::string::npos);
  EXPECT_NE(verdict_of({{"a", DType::kF32, {-2}, data}}, {}).find("negative"), std::string::npos);
  EXPECT_NE(verdict_of({{"a", DType::kF32, {INT64_MAX, 4}, data}}, {}).find("exceeds"), std::string::npos);
  EXPECT_NE(verdict_of({good}, {{"k", "1"}, {"k", "2"}}).find("metadata \"k\": given twice"), std::string::npos);
  EXPECT_NE(verdict_of({good}, {{"k", "\xFF"}}).find("not valid UTF-8"), std::string::npos);
}

TEST(SafetensorsFile, WriterReportsAFolderThatIsNotThere) {
  const TempDir dir;
  const Status status = write_safetensors(dir / "no" / "x.safetensors", {});
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("x.safetensors"), std::string::npos) << status.error().message;
}

TEST(SafetensorsFile, RefusesTruncationAtEveryByte) {
  const TempDir dir;
  const std::string whole = file_bytes(kTwo, 12);
  write_bytes(dir / "whole", whole);
  EXPECT_EQ(verdict_of_file(dir / "whole"), "accepted");
  for (size_t n = 0; n < whole.size(); ++n) {
    write_bytes(dir / "cut", whole.substr(0, n));
    const std::string message = verdict_of_file(dir / "cut");
    EXPECT_TRUE(message.starts_with((dir / "cut").string() + ": ")) << n << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
  write_bytes(dir / "longer", whole + "x");
  EXPECT_NE(verdict_of_file(dir / "longer").find("expected 12 bytes of data (the end of the last tensor), found 13"),
            std::string::npos);
}

TEST(SafetensorsFile, RefusesFilesThatAreNotOne) {
  const TempDir dir;
  const auto with_length = [&](uint64_t length, std::string_view rest) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    write_bytes(dir / "f", bytes + std::string(rest));
    return verdict_of_file(dir / "f");
  };
  EXPECT_NE(with_length(3, "{}").find("header length: expected at most 2 (the file is 10 bytes), found 3"),
            std::string::npos);
  EXPECT_NE(with_length(0, "{}").find("expected '{' as its first byte, found nothing"), std::string::npos);
  EXPECT_NE(with_length(100'000'001, "{}").find("expected at most 100000000, found 100000001"), std::string::npos);
  EXPECT_NE(with_length(UINT64_MAX, "{}").find("expected at most 100000000"), std::string::npos);
  EXPECT_NE(with_length(UINT64_MAX - 7, "{}").find("expected at most 100000000"), std::string::npos);
  EXPECT_EQ(with_length(2, "{}"), "accepted");

  write_bytes(dir / "empty", "");
  EXPECT_TRUE(verdict_of_file(dir / "empty").starts_with((dir / "empty").string())) << verdict_of_file(dir / "empty");
  std::filesystem::create_directory(dir / "folder");
  EXPECT_TRUE(verdict_of_file(dir / "folder").starts_with((dir / "folder").string()));
  std::filesystem::create_symlink(dir / "loop", dir / "loop");
  EXPECT_TRUE(verdict_of_file(dir / "loop").starts_with((dir / "loop").string()));
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(verdict_of_file(dir / "pipe").starts_with((dir / "pipe").string()));  // and does not wait for a writer
  EXPECT_TRUE(verdict_of_file("/dev/zero").starts_with("/dev/zero"));
  EXPECT_TRUE(verdict_of_file(dir / "none").starts_with((dir / "none").string()));
}

// Writers that do not pad the header leave everything behind it unaligned; the bytes are handed out where they lie.
TEST(SafetensorsFile, TensorsOfUnpaddedFilesAreNotCopied) {
  const TempDir dir;
  std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  for (int pad = 0; pad < 8; ++pad, header += ' ') {
    write_bytes(dir / "f", file_bytes(header, 9));
    const Result<SafetensorsFile> file = SafetensorsFile::open(dir / "f");
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ(file->find("b")->bytes.data() - file->find("a")->bytes.data(), 1);
    EXPECT_EQ(file->find("b")->bytes[0], std::byte{2});
    EXPECT_EQ(file->find("b")->bytes[7], std::byte{9});
  }
}

}  // namespace
}  // namespace lathe
