#include "lathe/formats/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "lathe/base/str.h"
#include "lathe/formats/gguf_writer.h"
#include "support/temp_dir.h"

namespace lathe {
namespace {

using testing::TempDir;

template <class T>
std::string raw(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

std::string text(std::string_view value) {
  return raw(uint64_t{value.size()}) + std::string(value);
}

// The pieces of a file, put together byte by byte, so that each can be made wrong.
struct Draft {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> entries = {};
  std::vector<std::string> tensors = {};
  std::optional<uint64_t> tensor_count = {};
  std::optional<uint64_t> entry_count = {};
  std::string data = {};

  Draft& entry(std::string_view key, uint32_t type, const std::string& value) {
    entries.push_back(text(key) + raw(type) + value);
    return *this;
  }

  Draft& tensor(std::string_view name, const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset) {
    std::string out = text(name) + raw(static_cast<uint32_t>(ne.size()));
    for (const uint64_t n : ne) out += raw(n);
    tensors.push_back(out + raw(type) + raw(offset));
    return *this;
  }

  std::string bytes() const {
    std::string out =
        magic + raw(version) + raw(tensor_count.value_or(tensors.size())) + raw(entry_count.value_or(entries.size()));
    for (const std::string& e : entries) out += e;
    for (const std::string& t : tensors) out += t;
    if (!data.empty()) out.resize((out.size() + 31) / 32 * 32, '\0');
    return out + data;
  }
};

std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string verdict(const std::string& bytes) {
  const Result<GgufHeader> parsed = parse_gguf_header(as_bytes(bytes));
  return parsed ? "accepted" : parsed.error().message;
}

std::string verdict(const Draft& draft) {
  return verdict(draft.bytes());
}

std::string array_of(uint32_t type, uint64_t count, const std::string& elements) {
  return raw(type) + raw(count) + elements;
}

TEST(Gguf, ReadsValuesOfEveryType) {
  Draft draft;
  draft.entry("u8", 0, raw(uint8_t{200})).entry("i8", 1, raw(int8_t{-3})).entry("u16", 2, raw(uint16_t{60000}));
  draft.entry("i16", 3, raw(int16_t{-300}))
      .entry("u32", 4, raw(uint32_t{4000000000}))
      .entry("i32", 5, raw(int32_t{-7}));
  draft.entry("f32", 6, raw(1e-6F)).entry("bool", 7, raw(uint8_t{1})).entry("text", 8, text("hello"));
  draft.entry("u64", 10, raw(uint64_t{1} << 40)).entry("i64", 11, raw(int64_t{-1} << 40)).entry("f64", 12, raw(0.1));
  draft.entry("big", 10, raw(~uint64_t{0}));
  draft.entry("list", 9, array_of(5, 3, raw(int32_t{1}) + raw(int32_t{-2}) + raw(int32_t{3})));
  draft.entry("words", 9, array_of(8, 2, text("a") + text("bc")));
  draft.entry("flags", 9, array_of(7, 2, std::string("\0\1", 2)));
  const std::string bytes = draft.bytes();
  const Result<GgufHeader> header = parse_gguf_header(as_bytes(bytes));
  ASSERT_TRUE(header) << header.error().message;
  const auto integer = [&](const char* key) { return header->find(key)->integer().value_or(-999); };
  EXPECT_EQ(integer("u8"), 200);
  EXPECT_EQ(integer("i8"), -3);
  EXPECT_EQ(integer("u16"), 60000);
  EXPECT_EQ(integer("i16"), -300);
  EXPECT_EQ(integer("u32"), 4000000000);
  EXPECT_EQ(integer("i32"), -7);
  EXPECT_EQ(integer("u64"), int64_t{1} << 40);
  EXPECT_EQ(integer("i64"), int64_t{-1} << 40);
  EXPECT_EQ(header->find("f32")->real(), 1e-6);  // not 9.99999997e-07
  EXPECT_EQ(header->find("f64")->real(), 0.1);
  EXPECT_EQ(header->find("u8")->real(), 200.0);
  EXPECT_EQ(header->find("bool")->boolean(), true);
  EXPECT_EQ(header->find("text")->text(), "hello");
  EXPECT_EQ(header->find("big")->integer(), std::nullopt);
  EXPECT_EQ(header->find("none"), nullptr);
  EXPECT_EQ(header->find("f32")->integer(), std::nullopt);
  EXPECT_EQ(header->find("text")->boolean(), std::nullopt);
  EXPECT_EQ(header->find("u8")->text(), std::nullopt);
  const GgufField::Array& list = *header->find("list")->array();
  EXPECT_EQ(element_of(list, 1).integer(), -2);
  EXPECT_EQ(header->find("words")->array()->texts, (std::vector<std::string_view>{"a", "bc"}));
  EXPECT_EQ(element_of(*header->find("words")->array(), 1).text(), "bc");
  EXPECT_EQ(element_of(*header->find("flags")->array(), 1).boolean(), true);
  EXPECT_EQ(header->find("list")->describe(), "array of 3 int32");
  EXPECT_EQ(header->find("text")->describe(), "string \"hello\"");
  EXPECT_EQ(header->find("f64")->describe(), "float64 0.1");
}

TEST(Gguf, ReadsTensorsWithTheSlowestExtentFirst) {
  Draft draft;
  draft.tensor("a", {3, 2}, 0, 0).tensor("b", {32, 2, 5}, 8, 32).tensor("c", {256}, 12, 384);
  draft.data.assign(384 + 144, 'x');
  const std::string bytes = draft.bytes();
  const Result<GgufHeader> header = parse_gguf_header(as_bytes(bytes));
  ASSERT_TRUE(header) << header.error().message;
  ASSERT_EQ(header->tensors.size(), 3U);
  EXPECT_EQ(header->tensors[0].tensor.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header->tensors[1].tensor.shape, (std::vector<int64_t>{5, 2, 32}));
  EXPECT_EQ(header->tensors[1].tensor.dtype, DType::kQ8_0);
  EXPECT_EQ(header->tensors[1].size, 340U);
  EXPECT_EQ(header->tensors[2].tensor.dtype, DType::kQ4_K);
  EXPECT_EQ(header->tensors[2].begin, bytes.size() - 144);
  EXPECT_EQ(header->tensors[0].begin % 32, 0U);
}

TEST(Gguf, RefusesOtherFiles) {
  EXPECT_EQ(verdict(std::string()), "magic: expected 4 bytes at byte 0, found 0");
  EXPECT_EQ(verdict(Draft{.magic = "GGML"}), "expected the magic \"GGUF\", found \"GGML\"");
  EXPECT_EQ(verdict(Draft{.version = 1}), "expected GGUF version 2 or 3, found 1");
  EXPECT_EQ(verdict(Draft{.version = 0x03000000}), "expected GGUF version 2 or 3, found a big-endian file");
  EXPECT_EQ(verdict(Draft{.version = 2}), "accepted");
}

TEST(Gguf, EveryCutOfAHeaderIsRefused) {
  Draft draft;
  draft.entry("k", 8, text("value")).entry("list", 9, array_of(8, 2, text("a") + text("b"))).entry("n", 4, raw(7U));
  draft.tensor("t", {4}, 0, 0).data.assign(16, 'x');
  const std::string bytes = draft.bytes();
  ASSERT_EQ(verdict(bytes), "accepted");
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(verdict(bytes.substr(0, size)), "accepted") << size;
  }
  EXPECT_EQ(verdict(bytes + "left over"), "accepted");  // padding of any length may follow
}

TEST(Gguf, RefusesCountsTheFileCannotHold) {
  EXPECT_EQ(verdict(Draft{.entry_count = 1}), "metadata count: expected at most 0, found 1");
  EXPECT_EQ(verdict(Draft{.tensor_count = 1}), "tensor count: expected at most 0, found 1");
  EXPECT_EQ(verdict(Draft{.entry_count = ~uint64_t{0}}),
            "metadata count: expected at most 0, found 18446744073709551615");
  EXPECT_EQ(verdict(Draft().entry("k", 9, array_of(0, ~uint64_t{0}, ""))),
            "key \"k\": expected at most 0 elements of uint8 in the bytes that are left, found 18446744073709551615");
  EXPECT_EQ(verdict(Draft().entry("k", 9, array_of(10, uint64_t{1} << 61, raw(uint64_t{0})))),
            "key \"k\": expected at most 1 elements of uint64 in the bytes that are left, found 2305843009213693952");
  EXPECT_EQ(verdict(Draft().entry("k", 9, array_of(8, 2, raw(uint64_t{0})))),
            "key \"k\": expected at most 1 strings in the bytes that are left, found 2");
  EXPECT_EQ(verdict(Draft().entry("k", 8, raw(uint64_t{9}) + "short")),
            "key \"k\": string: expected 9 bytes at byte 45, found 5");
}

TEST(Gguf, RefusesBrokenMetadata) {
  EXPECT_EQ(verdict(Draft().entry("", 4, raw(0U))), "metadata entry 0: key: expected 1 to 65535 bytes, found 0");
  EXPECT_EQ(verdict(Draft().entry("\xff", 4, raw(0U))), "metadata entry 0: key: expected UTF-8, found \"\\xff\"");
  EXPECT_EQ(verdict(Draft().entry("k", 13, raw(0U))), "key \"k\": type: expected a number from 0 to 12, found 13");
  EXPECT_EQ(verdict(Draft().entry("k", 7, raw(uint8_t{2}))), "key \"k\": bool: expected 0 or 1, found 2");
  EXPECT_EQ(verdict(Draft().entry("k", 9, array_of(7, 1, raw(uint8_t{2})))),
            "key \"k\": bool: expected 0 or 1, found 2");
  EXPECT_EQ(verdict(Draft().entry("k", 9, array_of(9, 0, ""))),
            "key \"k\": expected an array of values, found an array of arrays");
  EXPECT_EQ(verdict(Draft().entry("k", 4, raw(1U)).entry("k", 4, raw(2U))), "key \"k\" is given twice");
  for (const uint32_t alignment : {0U, 3U, 1U << 21}) {
    EXPECT_EQ(verdict(Draft().entry("general.alignment", 4, raw(alignment))),
              str("key \"general.alignment\": expected a power of two up to 1048576, found uint32 ", alignment));
  }
}

TEST(Gguf, RefusesBrokenTensors) {
  const auto one = [](const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset) {
    Draft draft;
    draft.tensor("t", ne, type, offset).data.assign(64, 'x');
    return verdict(draft);
  };
  const std::string t = "tensor \"t\": ";
  EXPECT_EQ(one({16}, 0, 0), "accepted");
  EXPECT_EQ(one({}, 0, 0), t + "expected 1 to 4 dimensions, found 0");
  EXPECT_EQ(one({1, 1, 1, 1, 1}, 0, 0), t + "expected 1 to 4 dimensions, found 5");
  EXPECT_EQ(one({4, 0}, 0, 0), t + "ne[1]: expected 1 to 2^63 - 1, found 0");
  EXPECT_EQ(one({uint64_t{1} << 63}, 0, 0), t + "ne[0]: expected 1 to 2^63 - 1, found 9223372036854775808");
  EXPECT_EQ(one({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0),
            t + "shape [4294967296, 4294967296] of F32 exceeds 2^63 - 1 bytes");
  EXPECT_EQ(one({uint64_t{1} << 61, 2}, 0, 0), t + "shape [2, 2305843009213693952] of F32 exceeds 2^63 - 1 bytes");
  EXPECT_EQ(one({33}, 8, 0), t + "expected rows of whole blocks of 32 elements for Q8_0, found 33 elements");
  EXPECT_EQ(one({128, 2}, 14, 0), t + "expected rows of whole blocks of 256 elements for Q6_K, found 128 elements");
  const std::string known =
      t + "type: expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K, found ";
  EXPECT_EQ(one({256}, 10, 0), known + "Q2_K");
  EXPECT_EQ(one({256}, 20, 0), known + "IQ4_NL");
  EXPECT_EQ(one({256}, 4, 0), known + "number 4");
  EXPECT_EQ(one({256}, 1000, 0), known + "number 1000");
  EXPECT_EQ(one({4}, 0, 8), t + "offset: expected a multiple of the alignment 32, found 8");
  EXPECT_EQ(one({17}, 0, 0), t + "expected an end within the 64 bytes of data, found 68 bytes from offset 0");
  EXPECT_EQ(one({1}, 0, 96), t + "expected an end within the 64 bytes of data, found 4 bytes from offset 96");
  EXPECT_EQ(one({1}, 0, ~uint64_t{31}),
            t + "expected an end within the 64 bytes of data, found 4 bytes from offset 18446744073709551584");

  const auto named = [](std::string_view name) {
    Draft draft;
    draft.tensor(name, {1}, 0, 0).data.assign(32, 'x');
    return verdict(draft);
  };
  EXPECT_EQ(named(""), "tensor 0: name: expected 1 to 64 bytes, found 0");
  EXPECT_EQ(named(std::string(65, 'n')), "tensor 0: name: expected 1 to 64 bytes, found 65");
  EXPECT_EQ(named("\xc3"), "tensor 0: name: expected UTF-8, found \"\\xc3\"");

  Draft twice;
  twice.tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).data.assign(64, 'x');
  EXPECT_EQ(verdict(twice), "tensor \"t\" is given twice");
  Draft overlap;
  overlap.tensor("b", {1}, 0, 32).tensor("a", {16}, 0, 0).data.assign(64, 'x');
  EXPECT_EQ(verdict(overlap), "tensor \"b\": expected an offset of at least 64, the end of tensor \"a\", found 32");
}

TEST(Gguf, ReadsWhatTheWriterWrites) {
  const TempDir dir;
  const std::vector<float> values{1.5F, -2.0F, 3.25F};
  const std::vector<GgufTensorInfo> tensors{{.name = "v", .dtype = DType::kF32, .shape = {1, 3}}};
  const std::vector<std::span<const std::byte>> bytes{std::as_bytes(std::span(values))};
  const std::vector<std::pair<std::string, GgufValue>> keys{
      {"k", std::vector<std::string>{"x", "y z"}}, {"f", 0.25F}, {"b", true}, {"i", int64_t{-1}}};
  const Status written = write_gguf(dir / "m.gguf", keys, tensors, bytes);
  ASSERT_TRUE(written) << written.error().message;
  const Result<GgufFile> file = GgufFile::open(dir / "m.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->header().find("k")->array()->texts[1], "y z");
  EXPECT_EQ(file->header().find("f")->real(), 0.25);
  EXPECT_EQ(file->header().find("i")->integer(), -1);
  ASSERT_EQ(file->tensors().size(), 1U);
  EXPECT_EQ(std::memcmp(file->tensors()[0].bytes.data(), values.data(), 12), 0);
  EXPECT_TRUE(is_gguf_path(dir / "m.gguf"));
  EXPECT_FALSE(is_gguf_path(dir.path()));

  std::ofstream(dir / "bad.gguf") << "nothing";
  const Result<GgufFile> bad = GgufFile::open(dir / "bad.gguf");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message, str(dir / "bad.gguf", ": expected the magic \"GGUF\", found \"noth\""));
}

}  // namespace
}  // namespace lathe
