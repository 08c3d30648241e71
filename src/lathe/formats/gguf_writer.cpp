#include "lathe/formats/gguf_writer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <type_traits>

#include "lathe/base/check.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe {

namespace {

constexpr uint32_t kVersion = 3;
constexpr uint32_t kTypeString = 8;
constexpr uint32_t kTypeArray = 9;
constexpr size_t kMaxDimensions = 4;
constexpr size_t kMaxTensorName = 63;  // ggml's names have 64 bytes with the terminator
constexpr size_t kMaxKey = 65535;

struct TypeNumber {
  DType dtype;
  uint32_t number;
};

constexpr std::array<TypeNumber, 16> kTypeNumbers{{{DType::kF32, 0},
                                                   {DType::kF16, 1},
                                                   {DType::kQ4_0, 2},
                                                   {DType::kQ4_1, 3},
                                                   {DType::kQ5_0, 6},
                                                   {DType::kQ5_1, 7},
                                                   {DType::kQ8_0, 8},
                                                   {DType::kQ4_K, 12},
                                                   {DType::kQ5_K, 13},
                                                   {DType::kQ6_K, 14},
                                                   {DType::kI8, 24},
                                                   {DType::kI16, 25},
                                                   {DType::kI32, 26},
                                                   {DType::kI64, 27},
                                                   {DType::kF64, 28},
                                                   {DType::kBF16, 30}}};

Error refused(std::string message) {
  return Error{Errc::kInvalidArgument, std::move(message)};
}

template <class T>
void put(std::string& out, T value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += static_cast<char>(value ? 1 : 0);
  } else if constexpr (std::is_floating_point_v<T>) {
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    put(out, std::bit_cast<Bits>(value));
  } else {
    const auto bits = static_cast<uint64_t>(static_cast<std::make_unsigned_t<T>>(value));
    for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(bits >> (8 * i) & 0xFF);
  }
}

void put_string(std::string& out, std::string_view text) {
  put(out, static_cast<uint64_t>(text.size()));
  out += text;
}

// GGUF's number of the type of a metadata value.
template <class T>
constexpr uint32_t value_type() {
  if constexpr (std::is_same_v<T, uint8_t>) return 0;
  if constexpr (std::is_same_v<T, int8_t>) return 1;
  if constexpr (std::is_same_v<T, uint16_t>) return 2;
  if constexpr (std::is_same_v<T, int16_t>) return 3;
  if constexpr (std::is_same_v<T, uint32_t>) return 4;
  if constexpr (std::is_same_v<T, int32_t>) return 5;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, std::string>) return kTypeString;
  if constexpr (std::is_same_v<T, uint64_t>) return 10;
  if constexpr (std::is_same_v<T, int64_t>) return 11;
  if constexpr (std::is_same_v<T, double>) return 12;
  return kTypeArray;
}

void put_value(std::string& out, const GgufValue& value) {
  std::visit(
      [&out](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        put(out, value_type<T>());
        if constexpr (std::is_same_v<T, std::string>) {
          put_string(out, v);
        } else if constexpr (value_type<T>() == kTypeArray) {
          using Element = typename T::value_type;
          put(out, value_type<Element>());
          put(out, static_cast<uint64_t>(v.size()));
          for (const Element& element : v) {
            if constexpr (std::is_same_v<Element, std::string>) {
              put_string(out, element);
            } else {
              put(out, element);
            }
          }
        } else {
          put(out, v);
        }
      },
      value);
}

uint64_t aligned(uint64_t position) {
  return (position + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}

Status check_info(const GgufTensorInfo& info) {
  const auto fault = [&](const std::string& what) { return refused(str("tensor ", quoted(info.name), ": ", what)); };
  if (info.name.empty() || info.name.size() > kMaxTensorName || !is_valid_utf8(info.name)) {
    return fault(str("expected a name of 1 to ", kMaxTensorName, " bytes of UTF-8"));
  }
  if (!ggml_type_of(info.dtype)) return fault(str("GGUF has no type ", dtype_name(info.dtype)));
  if (info.shape.empty() || info.shape.size() > kMaxDimensions) {
    return fault(str("expected 1 to ", kMaxDimensions, " dimensions, found ", info.shape.size()));
  }
  const int64_t block = block_elements(info.dtype);
  int64_t bytes = block_bytes(info.dtype);
  for (size_t i = 0; i < info.shape.size(); ++i) {
    int64_t extent = info.shape[i];
    if (i + 1 == info.shape.size()) {
      if (extent % block != 0) {
        return fault(str("expected rows of whole blocks of ", block, " elements, found ", extent));
      }
      extent /= block;
    }
    if (extent < 1 || __builtin_mul_overflow(bytes, extent, &bytes) || bytes > INT64_MAX / 2) {
      return fault(str("shape ", info.shape, " is empty, negative or exceeds 2^62 bytes"));
    }
  }
  return {};
}

}  // namespace

uint64_t GgufTensorInfo::bytes() const {
  auto total = static_cast<uint64_t>(block_bytes(dtype));
  for (size_t i = 0; i < shape.size(); ++i) {
    total *= static_cast<uint64_t>(i + 1 == shape.size() ? shape[i] / block_elements(dtype) : shape[i]);
  }
  return total;
}

std::optional<uint32_t> ggml_type_of(DType dtype) {
  for (const TypeNumber& t : kTypeNumbers) {
    if (t.dtype == dtype) return t.number;
  }
  return std::nullopt;
}

std::optional<DType> dtype_of_ggml(uint32_t type) {
  for (const TypeNumber& t : kTypeNumbers) {
    if (t.number == type) return t.dtype;
  }
  return std::nullopt;
}

GgufWriter::GgufWriter(AtomicFile file, std::filesystem::path path) : file_(std::move(file)), path_(std::move(path)) {}

Result<GgufWriter> GgufWriter::create(const std::filesystem::path& path) {
  LATHE_TRY(AtomicFile file, AtomicFile::create(path));
  return GgufWriter(std::move(file), path);
}

Status GgufWriter::add_metadata(std::string key, GgufValue value) {
  if (started_) return refused(str(path_, ": metadata ", quoted(key), " comes after data"));
  if (key.empty() || key.size() > kMaxKey || !is_valid_utf8(key)) {
    return refused(str(path_, ": metadata ", quoted(key), ": expected a key of 1 to ", kMaxKey, " bytes of UTF-8"));
  }
  if (!names_.insert("k" + key).second) return refused(str(path_, ": metadata ", quoted(key), " is given twice"));
  metadata_.emplace_back(std::move(key), std::move(value));
  return {};
}

Status GgufWriter::add_tensor(GgufTensorInfo info) {
  if (started_) return refused(str(path_, ": tensor ", quoted(info.name), " comes after data"));
  const Status status = check_info(info);
  if (!status) return status.error().at(path_.string());
  if (!names_.insert("t" + info.name).second) {
    return refused(str(path_, ": tensor ", quoted(info.name), " is given twice"));
  }
  if (__builtin_add_overflow(data_bytes_, aligned(info.bytes()), &data_bytes_) || data_bytes_ > INT64_MAX / 2) {
    return refused(str(path_, ": tensor ", quoted(info.name), ": the tensors exceed 2^62 bytes together"));
  }
  tensors_.push_back(std::move(info));
  return {};
}

std::string GgufWriter::header() const {
  std::string out = "GGUF";
  put(out, kVersion);
  put(out, static_cast<uint64_t>(tensors_.size()));
  put(out, static_cast<uint64_t>(metadata_.size()));
  for (const auto& [key, value] : metadata_) {
    put_string(out, key);
    put_value(out, value);
  }
  uint64_t offset = 0;
  for (const GgufTensorInfo& info : tensors_) {
    put_string(out, info.name);
    put(out, static_cast<uint32_t>(info.shape.size()));
    for (auto extent = info.shape.rbegin(); extent != info.shape.rend(); ++extent) put(out, *extent);
    put(out, *ggml_type_of(info.dtype));
    put(out, offset);
    offset += aligned(info.bytes());
  }
  out.append(aligned(out.size()) - out.size(), '\0');
  return out;
}

uint64_t GgufWriter::file_bytes() const {
  return header().size() + data_bytes_;
}

Status GgufWriter::start() {
  if (started_) return {};
  started_ = true;
  return file_.write(header());
}

Status GgufWriter::write(std::span<const std::byte> bytes) {
  LATHE_TRY(start());
  if (bytes.empty()) return {};
  if (current_ >= tensors_.size()) {
    return refused(str(path_, ": expected no data after the last tensor, found ", bytes.size(), " bytes"));
  }
  const GgufTensorInfo& info = tensors_[current_];
  const uint64_t total = info.bytes();
  if (bytes.size() > total - written_) {
    return refused(str(path_,
                       ": tensor ",
                       quoted(info.name),
                       ": expected at most ",
                       total - written_,
                       " more bytes, found ",
                       bytes.size()));
  }
  LATHE_TRY(file_.write(bytes));
  written_ += bytes.size();
  if (written_ < total) return {};
  written_ = 0;
  ++current_;
  const std::string padding(aligned(total) - total, '\0');
  return padding.empty() ? Status() : file_.write(padding);
}

Status GgufWriter::finish() {
  LATHE_TRY(start());
  if (current_ < tensors_.size()) {
    return refused(str(path_,
                       ": tensor ",
                       quoted(tensors_[current_].name),
                       ": expected ",
                       tensors_[current_].bytes(),
                       " bytes, found ",
                       written_));
  }
  return file_.commit();
}

Status write_gguf(const std::filesystem::path& path,
                  std::span<const std::pair<std::string, GgufValue>> metadata,
                  std::span<const GgufTensorInfo> tensors,
                  std::span<const std::span<const std::byte>> bytes) {
  if (tensors.size() != bytes.size()) {
    return refused(str(path, ": expected data of ", tensors.size(), " tensors, found ", bytes.size()));
  }
  LATHE_TRY(GgufWriter writer, GgufWriter::create(path));
  for (const auto& [key, value] : metadata) LATHE_TRY(writer.add_metadata(key, value));
  for (const GgufTensorInfo& info : tensors) LATHE_TRY(writer.add_tensor(info));
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (bytes[i].size() != tensors[i].bytes()) {
      return refused(str(path,
                         ": tensor ",
                         quoted(tensors[i].name),
                         ": expected ",
                         tensors[i].bytes(),
                         " bytes, found ",
                         bytes[i].size()));
    }
    LATHE_TRY(writer.write(bytes[i]));
  }
  return writer.finish();
}

}  // namespace lathe
