// The safetensors container: an 8-byte little-endian header length, a JSON header, then the data. Rules and their
// sources are in docs/formats.md; everything is checked before the first byte of data is touched.
#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>

#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/formats/json_cursor.h"

namespace lathe {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxRank = 8;
constexpr size_t kMaxMetadata = 65'536;  // real files have a handful; bounds what a header can make us keep
constexpr std::string_view kMetadataKey = "__metadata__";

Error invalid(std::string message) {
  return Error{Errc::kInvalidData, std::move(message)};
}

// quoted() is qualified in this folder: an argument of std::string would find std::quoted first.
std::string tensor_label(std::string_view name) {
  return str("tensor ", lathe::quoted(name));
}

Result<DType> read_dtype(JsonCursor& cursor) {
  LATHE_TRY(const std::string name, cursor.read_string());
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype) return invalid(str("unknown dtype ", lathe::quoted(name)));
  return *dtype;
}

Result<std::vector<int64_t>> read_shape(JsonCursor& cursor) {
  std::vector<int64_t> shape;
  LATHE_TRY(cursor.open_array());
  while (true) {
    LATHE_TRY(const bool more, cursor.next_element());
    if (!more) return shape;
    if (shape.size() == kMaxRank) return invalid(str("shape: expected at most ", kMaxRank, " dimensions, found more"));
    LATHE_TRY(const uint64_t extent, cursor.read_unsigned());
    if (extent > static_cast<uint64_t>(INT64_MAX))
      return invalid(str("shape: dimension ", extent, " exceeds 2^63 - 1"));
    shape.push_back(static_cast<int64_t>(extent));
  }
}

Status read_offsets(JsonCursor& cursor, SafetensorsHeader::Entry& entry) {
  uint64_t values[2] = {};
  size_t count = 0;
  LATHE_TRY(cursor.open_array());
  while (true) {
    LATHE_TRY(const bool more, cursor.next_element());
    if (!more) break;
    if (count == 2) return invalid("data_offsets: expected two offsets, found more");
    LATHE_TRY(values[count], cursor.read_unsigned());
    ++count;
  }
  if (count != 2) return invalid(str("data_offsets: expected two offsets, found ", count));
  entry.begin = values[0];
  entry.end = values[1];
  return {};
}

// {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} in any order, each once, nothing else.
Status read_entry(JsonCursor& cursor, SafetensorsHeader::Entry& entry) {
  bool has_dtype = false;
  bool has_shape = false;
  bool has_offsets = false;
  const auto once = [](bool& seen, std::string_view key) -> Status {
    if (seen) return invalid(str("duplicate key \"", key, "\""));
    seen = true;
    return {};
  };
  LATHE_TRY(cursor.open_object());
  std::string key;
  while (true) {
    LATHE_TRY(const bool more, cursor.next_member(key));
    if (!more) break;
    if (key == "dtype") {
      LATHE_TRY(once(has_dtype, key));
      LATHE_TRY(entry.tensor.dtype, read_dtype(cursor));
    } else if (key == "shape") {
      LATHE_TRY(once(has_shape, key));
      LATHE_TRY(entry.tensor.shape, read_shape(cursor));
    } else if (key == "data_offsets") {
      LATHE_TRY(once(has_offsets, key));
      LATHE_TRY(read_offsets(cursor, entry));
    } else {
      return invalid(str("expected only \"dtype\", \"shape\" and \"data_offsets\", found ", lathe::quoted(key)));
    }
  }
  const std::string_view missing = !has_dtype ? "dtype" : !has_shape ? "shape" : !has_offsets ? "data_offsets" : "";
  if (!missing.empty()) return invalid(str("missing \"", missing, "\""));
  return {};
}

// begin <= end <= data size, and end - begin is what shape and dtype say. The product runs over max(extent, 1), so that
// code which multiplies the extents in another order, or leaves some out, cannot overflow either.
Status check_size(const SafetensorsHeader::Entry& entry, uint64_t data_bytes) {
  if (entry.begin > entry.end) {
    return invalid(str("data_offsets: expected begin <= end, found [", entry.begin, ", ", entry.end, "]"));
  }
  if (entry.end > data_bytes) {
    return invalid(
        str("data_offsets: expected an end of at most ", data_bytes, " (the bytes of data), found ", entry.end));
  }
  int64_t product = dtype_size(entry.tensor.dtype);
  bool empty = false;
  for (const int64_t extent : entry.tensor.shape) {
    empty = empty || extent == 0;
    if (__builtin_mul_overflow(product, std::max<int64_t>(extent, 1), &product)) {
      return invalid(
          str("shape ", entry.tensor.shape, " of ", dtype_name(entry.tensor.dtype), " exceeds 2^63 - 1 bytes"));
    }
  }
  const uint64_t bytes = empty ? 0 : static_cast<uint64_t>(product);
  if (entry.end - entry.begin != bytes) {
    return invalid(str("data_offsets: expected ",
                       bytes,
                       " bytes for shape ",
                       entry.tensor.shape,
                       " of ",
                       dtype_name(entry.tensor.dtype),
                       ", found ",
                       entry.end - entry.begin));
  }
  return {};
}

Status read_metadata(JsonCursor& cursor, std::vector<std::pair<std::string, std::string>>& metadata) {
  LATHE_TRY(cursor.open_object());
  std::string key;
  while (true) {
    LATHE_TRY(const bool more, cursor.next_member(key));
    if (!more) break;
    if (metadata.size() == kMaxMetadata) return invalid(str("expected at most ", kMaxMetadata, " entries, found more"));
    LATHE_TRY(std::string value, cursor.read_string());
    metadata.emplace_back(key, std::move(value));
  }
  std::vector<std::string_view> names;
  names.reserve(metadata.size());
  for (const auto& [name, value] : metadata) names.push_back(name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) return invalid(str("duplicate key ", lathe::quoted(*twice)));
  return {};
}

Status read_entries(JsonCursor& cursor, uint64_t data_bytes, SafetensorsHeader& header) {
  bool has_metadata = false;
  LATHE_TRY(cursor.open_object());
  std::string key;
  while (true) {
    LATHE_TRY(const bool more, cursor.next_member(key));
    if (!more) return {};
    if (key == kMetadataKey) {
      if (has_metadata) return invalid(str("duplicate key ", lathe::quoted(key)));
      has_metadata = true;
      const Status status = read_metadata(cursor, header.metadata);
      if (!status) return status.error().at(kMetadataKey);
      continue;
    }
    SafetensorsHeader::Entry& entry = header.entries.emplace_back();
    entry.tensor.name = std::move(key);
    Status status = read_entry(cursor, entry);
    if (status) status = check_size(entry, data_bytes);
    if (!status) return status.error().at(tensor_label(entry.tensor.name));
  }
}

// Positions of `count` items in the order of `less`.
template <class Less>
std::vector<uint32_t> sorted_positions(size_t count, const Less& less) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), less);
  return order;
}

Status check_unique(const std::vector<SafetensorsHeader::Entry>& entries) {
  const auto name = [&](uint32_t i) -> const std::string& { return entries[i].tensor.name; };
  const std::vector<uint32_t> order =
      sorted_positions(entries.size(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  const auto twice =
      std::adjacent_find(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return name(a) == name(b); });
  if (twice != order.end()) return invalid(str(tensor_label(name(*twice)), ": stored twice"));
  return {};
}

// The tensors fill the data from 0 to its end, without holes and without overlap.
Status check_contiguous(const std::vector<SafetensorsHeader::Entry>& entries, uint64_t data_bytes) {
  const std::vector<uint32_t> order = sorted_positions(entries.size(), [&](uint32_t a, uint32_t b) {
    return std::pair(entries[a].begin, entries[a].end) < std::pair(entries[b].begin, entries[b].end);
  });
  uint64_t position = 0;
  for (const uint32_t i : order) {
    if (entries[i].begin != position) {
      return invalid(str(tensor_label(entries[i].tensor.name),
                         ": data_offsets: expected begin ",
                         position,
                         " (the end of the tensor before), found ",
                         entries[i].begin,
                         entries[i].begin < position ? ": overlap" : ": hole"));
    }
    position = entries[i].end;
  }
  if (position != data_bytes) {
    return invalid(str("expected ", position, " bytes of data (the end of the last tensor), found ", data_bytes));
  }
  return {};
}

// Length of the header, checked against its limit and the file.
Result<uint64_t> header_length(std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) {
    return invalid(str("expected at least ", kLengthBytes, " bytes (the header length), found ", file.size()));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<uint64_t>(file[i]) << (8 * i);
  if (length > kMaxHeaderBytes) {
    return invalid(str("header length: expected at most ", kMaxHeaderBytes, ", found ", length));
  }
  if (length > file.size() - kLengthBytes) {
    return invalid(str("header length: expected at most ",
                       file.size() - kLengthBytes,
                       " (the file is ",
                       file.size(),
                       " bytes), found ",
                       length));
  }
  return length;
}

}  // namespace

int64_t StoredTensor::elements() const {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, uint64_t data_bytes) {
  if (header.empty() || header.front() != '{') {
    return invalid(
        str("header: expected '{' as its first byte, found ", header.empty() ? "nothing" : lathe::quoted(header, 20)));
  }
  if (!is_valid_utf8(header)) return invalid("header: not valid UTF-8");
  SafetensorsHeader parsed;
  JsonCursor cursor(header);
  Status status = read_entries(cursor, data_bytes, parsed);
  if (status) status = cursor.finish();
  if (status) status = check_unique(parsed.entries);
  if (status) status = check_contiguous(parsed.entries, data_bytes);
  if (!status) return status.error().at("header");
  return parsed;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile file;
  LATHE_TRY(file.map_, MappedFile::open(path));
  const std::span<const std::byte> bytes = file.map_->bytes();
  const Result<uint64_t> length = header_length(bytes);
  if (!length) return length.error().at(path.string());
  const std::span<const std::byte> header_bytes = bytes.subspan(kLengthBytes, *length);
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + *length);
  const std::string_view header(reinterpret_cast<const char*>(header_bytes.data()), header_bytes.size());
  Result<SafetensorsHeader> parsed = parse_safetensors_header(header, data.size());
  if (!parsed) return parsed.error().at(path.string());

  file.metadata_ = std::move(parsed->metadata);
  file.tensors_.reserve(parsed->entries.size());
  for (SafetensorsHeader::Entry& entry : parsed->entries) {
    entry.tensor.bytes = data.subspan(entry.begin, entry.end - entry.begin);
    file.tensors_.push_back(std::move(entry.tensor));
  }
  file.index_ = sorted_positions(file.tensors_.size(),
                                 [&](uint32_t a, uint32_t b) { return file.tensors_[a].name < file.tensors_[b].name; });
  return file;
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::lower_bound(index_.begin(), index_.end(), name, [&](uint32_t i, std::string_view wanted) {
    return tensors_[i].name < wanted;
  });
  return at != index_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

}  // namespace lathe
