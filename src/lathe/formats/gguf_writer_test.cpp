#include "lathe/formats/gguf_writer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "lathe/base/str.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using testing::TempDir;

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::byte> counted(size_t n) {
  std::vector<std::byte> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(i + 1);
  return out;
}

std::string message(const Status& status) {
  return status ? "accepted" : status.error().message;
}

std::string u32(uint32_t v) {
  std::string out;
  for (int i = 0; i < 4; ++i) out += static_cast<char>(v >> (8 * i) & 0xFF);
  return out;
}

std::string u64(uint64_t v) {
  return u32(static_cast<uint32_t>(v)) + u32(static_cast<uint32_t>(v >> 32));
}

std::string text(std::string_view t) {
  return u64(t.size()) + std::string(t);
}

// The whole file, byte by byte, against the published layout.
TEST(GgufWriter, LayoutIsExact) {
  const TempDir dir;
  const auto path = dir.path() / "a.gguf";
  auto writer = GgufWriter::create(path);
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE(writer->add_metadata("general.architecture", std::string("x")));
  ASSERT_TRUE(writer->add_metadata("n", uint32_t{7}));
  ASSERT_TRUE(writer->add_metadata("f", 1.5F));
  ASSERT_TRUE(writer->add_metadata("b", true));
  ASSERT_TRUE(writer->add_metadata("l", std::vector<std::string>{"p", "qq"}));
  ASSERT_TRUE(writer->add_metadata("i", std::vector<int32_t>{-1}));
  ASSERT_TRUE(writer->add_tensor({"m", DType::kF16, {2, 3}}));
  ASSERT_TRUE(writer->add_tensor({"q", DType::kQ8_0, {1, 2, 32}}));
  const std::vector<std::byte> m = counted(12);
  const std::vector<std::byte> q = counted(68);
  ASSERT_TRUE(writer->write(std::span(m).first(5)));
  ASSERT_TRUE(writer->write(std::span(m).subspan(5)));
  EXPECT_EQ(writer->current_tensor(), 1U);
  ASSERT_TRUE(writer->write(q));
  EXPECT_FALSE(std::filesystem::exists(path));
  const uint64_t size = writer->file_bytes();
  ASSERT_TRUE(writer->finish());

  std::string expected = "GGUF" + u32(3) + u64(2) + u64(6);
  expected += text("general.architecture") + u32(8) + text("x");
  expected += text("n") + u32(4) + u32(7);
  expected += text("f") + u32(6) + u32(0x3FC00000);
  expected += text("b") + u32(7) + std::string(1, '\1');
  expected += text("l") + u32(9) + u32(8) + u64(2) + text("p") + text("qq");
  expected += text("i") + u32(9) + u32(5) + u64(1) + u32(0xFFFFFFFF);
  expected += text("m") + u32(2) + u64(3) + u64(2) + u32(1) + u64(0);
  expected += text("q") + u32(3) + u64(32) + u64(2) + u64(1) + u32(8) + u64(32);
  expected.append((32 - expected.size() % 32) % 32, '\0');
  for (size_t i = 0; i < 12; ++i) expected += static_cast<char>(m[i]);
  expected.append(20, '\0');
  for (size_t i = 0; i < 68; ++i) expected += static_cast<char>(q[i]);
  expected.append(28, '\0');
  EXPECT_EQ(contents(path), expected);
  EXPECT_EQ(size, expected.size());
}

TEST(GgufWriter, TypeNumbersGoBothWays) {
  for (const DType type : {DType::kF32,
                           DType::kF16,
                           DType::kBF16,
                           DType::kQ4_0,
                           DType::kQ4_1,
                           DType::kQ5_0,
                           DType::kQ5_1,
                           DType::kQ8_0,
                           DType::kQ4_K,
                           DType::kQ5_K,
                           DType::kQ6_K}) {
    const auto number = ggml_type_of(type);
    ASSERT_TRUE(number.has_value());
    EXPECT_EQ(dtype_of_ggml(*number), type);
  }
  EXPECT_EQ(ggml_type_of(DType::kQ4_K), 12U);
  EXPECT_EQ(ggml_type_of(DType::kBF16), 30U);
  EXPECT_FALSE(ggml_type_of(DType::kF8E4M3).has_value());
  EXPECT_FALSE(dtype_of_ggml(10).has_value());
}

TEST(GgufWriter, RefusesWhatIsWrong) {
  const TempDir dir;
  auto writer = GgufWriter::create(dir.path() / "a.gguf");
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->add_metadata("k", uint32_t{1}));
  EXPECT_NE(message(writer->add_metadata("k", uint32_t{1})).find("\"k\" is given twice"), std::string::npos);
  EXPECT_NE(message(writer->add_metadata("", uint32_t{1})).find("expected a key"), std::string::npos);
  EXPECT_NE(message(writer->add_tensor({"a", DType::kQ4_K, {2, 128}})).find("blocks of 256"), std::string::npos);
  EXPECT_NE(message(writer->add_tensor({"a", DType::kF8E4M3, {2}})).find("no type F8_E4M3"), std::string::npos);
  EXPECT_NE(message(writer->add_tensor({"a", DType::kF32, {}})).find("1 to 4 dimensions"), std::string::npos);
  EXPECT_NE(message(writer->add_tensor({"a", DType::kF32, {0, 4}})).find("empty"), std::string::npos);
  EXPECT_NE(message(writer->add_tensor({"a", DType::kF32, {1LL << 40, 1LL << 40}})).find("exceeds"), std::string::npos);
  EXPECT_NE(message(writer->add_tensor({std::string(64, 'n'), DType::kF32, {1}})).find("63"), std::string::npos);
  ASSERT_TRUE(writer->add_tensor({"a", DType::kF32, {2}}));
  EXPECT_NE(message(writer->add_tensor({"a", DType::kF32, {2}})).find("given twice"), std::string::npos);
  const std::vector<std::byte> bytes = counted(12);
  EXPECT_NE(message(writer->write(bytes)).find("at most 8 more bytes, found 12"), std::string::npos);
  ASSERT_TRUE(writer->write(std::span(bytes).first(4)));
  EXPECT_NE(message(writer->finish()).find("expected 8 bytes, found 4"), std::string::npos);
  EXPECT_NE(message(writer->add_tensor({"b", DType::kF32, {2}})).find("after data"), std::string::npos);
  EXPECT_NE(message(writer->add_metadata("z", true)).find("after data"), std::string::npos);
}

TEST(GgufWriter, AbandonedFilesLeaveNothingBehind) {
  const TempDir dir;
  const auto path = dir.path() / "a.gguf";
  std::ofstream(path) << "before";
  {
    auto writer = GgufWriter::create(path);
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->add_tensor({"a", DType::kF32, {2}}));
    ASSERT_TRUE(writer->write(counted(4)));
  }
  EXPECT_EQ(contents(path), "before");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

}  // namespace
}  // namespace lathe
