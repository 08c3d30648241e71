// Reading of GGUF files, versions 2 and 3, little-endian: typed metadata, then the list of tensors, then their data.
// Every count, length, offset and type is checked before it is used (docs/formats.md lists the rules). What the keys
// and the tensors mean for a model is told by gguf_config.h, gguf_tensors.h and gguf_tokenizer.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/result.h"
#include "lathe/formats/checkpoint.h"

namespace lathe {

// Types of metadata values, with their numbers in the file.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// "uint32", "string", ...
std::string_view name_of(GgufType type);

// One value of the metadata, or one element of an array. Texts and arrays borrow the bytes that were parsed.
class GgufField {
 public:
  // A list of values of one type; arrays of arrays are refused by the parser.
  struct Array {
    GgufType element = GgufType::kUint8;
    std::span<const std::byte> numbers;   // of every type but kString, packed
    std::vector<std::string_view> texts;  // of kString
    uint64_t size = 0;
  };

  GgufField() = default;

  GgufField(GgufType type, std::variant<uint64_t, int64_t, double, bool, std::string_view, Array> value)
      : type_(type), value_(std::move(value)) {}

  GgufType type() const { return type_; }

  // The value as that kind, or nothing: integers of any width that fit, floats and integers as a real number (exact in
  // float32 widened to the shortest decimal that reads back, so that 1e-6 means 1e-6), booleans, texts, arrays.
  std::optional<int64_t> integer() const;
  std::optional<double> real() const;
  std::optional<bool> boolean() const;
  std::optional<std::string_view> text() const;

  const Array* array() const { return std::get_if<Array>(&value_); }

  // For messages: the type, and the value of scalars, e.g. `uint32 7`, `string "x"`, `array of 3 float32`.
  std::string describe() const;

 private:
  GgufType type_ = GgufType::kUint8;
  std::variant<uint64_t, int64_t, double, bool, std::string_view, Array> value_ = uint64_t{0};
};

// Element i < size of an array of numbers, booleans or texts.
GgufField element_of(const GgufField::Array& array, uint64_t i);

// What lies before the data. Views borrow the parsed bytes.
struct GgufHeader {
  struct Entry {
    std::string_view key;
    GgufField value;
  };

  struct Tensor {
    StoredTensor tensor;  // name and HF shape (the slowest extent first); `bytes` empty
    uint64_t begin = 0;   // of the data, in bytes from the start of the file
    uint64_t size = 0;
  };

  uint32_t version = 0;
  uint64_t alignment = 32;
  std::vector<Entry> metadata;  // in file order, keys unique
  std::vector<Tensor> tensors;  // in file order, names unique, ranges apart and inside the file

  // The value of that key, or null. Binary search; valid as long as the header.
  const GgufField* find(std::string_view key) const;

  std::vector<uint32_t> by_key;  // positions in metadata, sorted by key
};

// Parses a whole file; of the data only the size counts. Pure, so that it can be fuzzed. Allocates at most a small
// multiple of the header's bytes. Errors name the key or tensor and the broken rule.
Result<GgufHeader> parse_gguf_header(std::span<const std::byte> file);

// A mapped file with its header; the tensors' bytes point into the map.
class GgufFile {
 public:
  // Errors begin with the path.
  static Result<GgufFile> open(const std::filesystem::path& path);

  const GgufHeader& header() const { return header_; }

  // In file order, under the names of the file.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

  const std::filesystem::path& path() const { return map_->path(); }

 private:
  std::shared_ptr<const MappedFile> map_;
  GgufHeader header_;
  std::vector<StoredTensor> tensors_;
};

// A model in one file, or in the files NAME-00001-of-000NN.gguf of which the first is named and has the metadata.
class GgufModel {
 public:
  // Opens all files of the model. A missing file, a part that is not the first, counts that contradict each other and a
  // tensor that two files hold are errors.
  static Result<std::shared_ptr<const GgufModel>> open(const std::filesystem::path& path);

  const std::vector<GgufFile>& files() const { return files_; }

  const std::filesystem::path& path() const { return files_.front().path(); }

  // The metadata, all of it in the first file.
  const GgufHeader& header() const { return files_.front().header(); }

  // The tensor of that name in the file, or null. Valid as long as this object.
  const StoredTensor* find(std::string_view name) const;

  // Every tensor, sorted by name.
  const std::vector<const StoredTensor*>& tensors() const { return by_name_; }

 private:
  GgufModel() = default;
  Status open_parts(const std::filesystem::path& first, int64_t count);
  Status index_tensors();

  std::vector<GgufFile> files_;
  std::vector<const StoredTensor*> by_name_;
};

// Whether a path names a GGUF file: a regular file, or a link to one, that ends in .gguf.
bool is_gguf_path(const std::filesystem::path& path);

}  // namespace lathe
