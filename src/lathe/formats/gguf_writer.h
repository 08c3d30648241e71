// Writing of GGUF files, version 3, little-endian: metadata and the list of tensors first, then their data in order.
// Data streams: a tensor may be larger than memory. Atomic: nothing appears under the final name before finish().
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/result.h"
#include "lathe/tensor/dtype.h"

namespace lathe {

// A value of GGUF metadata: exactly the types that the format has and that models use. Arrays are not nested.
using GgufValue = std::variant<uint8_t,
                               int8_t,
                               uint16_t,
                               int16_t,
                               uint32_t,
                               int32_t,
                               uint64_t,
                               int64_t,
                               float,
                               double,
                               bool,
                               std::string,
                               std::vector<uint8_t>,
                               std::vector<int32_t>,
                               std::vector<uint32_t>,
                               std::vector<float>,
                               std::vector<bool>,
                               std::vector<std::string>>;

// One tensor to come. The shape is row-major as everywhere here: [rows, cols], or [experts, rows, cols]; the file has
// the extents in the opposite order. At most four dimensions.
struct GgufTensorInfo {
  std::string name;
  DType dtype = DType::kF32;  // F32, F16, BF16, F64, I8 to I64 or a block format
  std::vector<int64_t> shape;

  // Size of the data; valid once GgufWriter::create has accepted the tensor.
  uint64_t bytes() const;
};

// ggml's number of a type, e.g. 12 for Q4_K; nothing for types that GGUF does not have.
std::optional<uint32_t> ggml_type_of(DType dtype);
// The inverse; nothing for numbers that Lathe does not read.
std::optional<DType> dtype_of_ggml(uint32_t type);

inline constexpr uint64_t kGgufAlignment = 32;  // of every tensor's data, from the start of the file

// Writer of one file. Not thread safe. Usage: add_metadata()..., then write() for all bytes of the first tensor in any
// portions, then of the second, and so on; then finish(). An abandoned writer leaves nothing behind.
class GgufWriter {
 public:
  // Collects metadata and tensors; nothing is written before the first write(). Errors of create: the folder.
  static Result<GgufWriter> create(const std::filesystem::path& path);

  // kInvalidArgument for a key given twice, empty, longer than 65535 bytes or not UTF-8.
  Status add_metadata(std::string key, GgufValue value);
  // Announces the next tensor. kInvalidArgument for a name given twice, an extent below 1, rows that are not whole
  // blocks, sizes beyond 2^62 bytes, a type that GGUF does not have, or a call after the first write().
  Status add_tensor(GgufTensorInfo info);

  // Appends to the data of the tensor at hand; padding between tensors is the writer's. More bytes than the tensor has
  // are kInvalidArgument. The first call writes the header.
  Status write(std::span<const std::byte> bytes);

  // Index (in the order of add_tensor) of the tensor that the next write() belongs to; tensors().size() after the last.
  size_t current_tensor() const { return current_; }

  const std::vector<GgufTensorInfo>& tensors() const { return tensors_; }

  // Bytes that the finished file will have.
  uint64_t file_bytes() const;

  // Pads, syncs and gives the file its name. kInvalidArgument when tensors are incomplete.
  Status finish();

 private:
  GgufWriter(AtomicFile file, std::filesystem::path path);
  Status start();  // writes the header, once
  std::string header() const;

  AtomicFile file_;
  std::filesystem::path path_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<GgufTensorInfo> tensors_;
  std::unordered_set<std::string> names_;  // keys and tensors, apart by a prefix
  uint64_t data_bytes_ = 0;                // of all tensors with their padding
  bool started_ = false;
  size_t current_ = 0;
  uint64_t written_ = 0;  // of the current tensor
};

// The whole of a small file at once: for tests and tools. `bytes` of the tensors follow the order of the infos.
Status write_gguf(const std::filesystem::path& path,
                  std::span<const std::pair<std::string, GgufValue>> metadata,
                  std::span<const GgufTensorInfo> tensors,
                  std::span<const std::span<const std::byte>> bytes);

}  // namespace lathe
