// The header of GGUF: metadata and tensor list, read with every length checked against the bytes that are there.
#include "lathe/formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/formats/gguf_writer.h"

namespace lathe {
namespace {

constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint64_t kMaxNameBytes = 64;       // of a tensor; other readers refuse longer ones
constexpr uint64_t kMaxEntries = 65'536;     // of metadata; real files have about fifty
constexpr uint64_t kMaxTensors = 1'000'000;  // of one file; the largest models have about two thousand
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
constexpr uint32_t kMaxRank = 4;
constexpr uint64_t kLeastEntryBytes = 8 + 1 + 4 + 1;           // key length, key, type, value
constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name length, name, rank, extent, type, offset

static_assert(std::endian::native == std::endian::little, "values are read as they lie in the file");

Error invalid(std::string message) {
  return Error{Errc::kInvalidData, std::move(message)};
}

// Types of tensors that exist and are not read, by ggml's numbers, for messages.
struct OtherType {
  uint32_t number;
  std::string_view name;
};

constexpr OtherType kOtherTypes[] = {
    {9, "Q8_1"},
    {10, "Q2_K"},
    {11, "Q3_K"},
    {15, "Q8_K"},
    {16, "IQ2_XXS"},
    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},
    {19, "IQ1_S"},
    {20, "IQ4_NL"},
    {21, "IQ3_S"},
    {22, "IQ2_S"},
    {23, "IQ4_XS"},
    {29, "IQ1_M"},
    {34, "TQ1_0"},
    {35, "TQ2_0"},
    {39, "MXFP4"},
};

struct ValueType {
  std::string_view name;
  uint64_t bytes;  // 0: strings and arrays
};

constexpr std::array<ValueType, 13> kValueTypes{{{"uint8", 1},
                                                 {"int8", 1},
                                                 {"uint16", 2},
                                                 {"int16", 2},
                                                 {"uint32", 4},
                                                 {"int32", 4},
                                                 {"float32", 4},
                                                 {"bool", 1},
                                                 {"string", 0},
                                                 {"array", 0},
                                                 {"uint64", 8},
                                                 {"int64", 8},
                                                 {"float64", 8}}};

const ValueType& value_type(GgufType type) {
  return kValueTypes[static_cast<size_t>(type)];
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// The shortest decimal of a float32, as a double: 1e-6F becomes 1e-6.
double widen(float value) {
  if (!std::isfinite(value)) return value;
  char buffer[32];
  const std::to_chars_result text = std::to_chars(buffer, buffer + sizeof buffer, value);
  double out = value;
  std::from_chars(buffer, text.ptr, out);
  return out;
}

// A number or boolean of that type; `at` points to as many bytes as it has.
GgufField read_number(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::kUint8:
      return {type, uint64_t{load<uint8_t>(at)}};
    case GgufType::kUint16:
      return {type, uint64_t{load<uint16_t>(at)}};
    case GgufType::kUint32:
      return {type, uint64_t{load<uint32_t>(at)}};
    case GgufType::kUint64:
      return {type, load<uint64_t>(at)};
    case GgufType::kInt8:
      return {type, int64_t{load<int8_t>(at)}};
    case GgufType::kInt16:
      return {type, int64_t{load<int16_t>(at)}};
    case GgufType::kInt32:
      return {type, int64_t{load<int32_t>(at)}};
    case GgufType::kInt64:
      return {type, load<int64_t>(at)};
    case GgufType::kFloat32:
      return {type, widen(load<float>(at))};
    case GgufType::kFloat64:
      return {type, load<double>(at)};
    case GgufType::kBool:
      return {type, load<uint8_t>(at) != 0};
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return {};
}

// Reads from a span that it never leaves; errors say what was to be read and how many bytes are left.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }

  uint64_t left() const { return bytes_.size() - position_; }

  Result<const std::byte*> take(uint64_t count, std::string_view what) {
    if (count > left()) {
      return invalid(str(what, ": expected ", count, " bytes at byte ", position_, ", found ", left()));
    }
    const std::byte* at = bytes_.data() + position_;
    position_ += count;
    return at;
  }

  template <class T>
  Result<T> number(std::string_view what) {
    LATHE_TRY(const std::byte* at, take(sizeof(T), what));
    return load<T>(at);
  }

  Result<std::string_view> text(std::string_view what) {
    LATHE_TRY(const uint64_t size, number<uint64_t>(what));
    LATHE_TRY(const std::byte* at, take(size, what));
    return std::string_view(reinterpret_cast<const char*>(at), size);
  }

 private:
  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

Result<GgufType> read_type(Reader& reader) {
  LATHE_TRY(const uint32_t number, reader.number<uint32_t>("type"));
  if (number >= kValueTypes.size()) {
    return invalid(str("type: expected a number from 0 to ", kValueTypes.size() - 1, ", found ", number));
  }
  return static_cast<GgufType>(number);
}

Status check_bools(std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) {
    if (b > std::byte{1}) return invalid(str("bool: expected 0 or 1, found ", static_cast<int>(b)));
  }
  return {};
}

Result<GgufField> read_array(Reader& reader) {
  GgufField::Array array;
  LATHE_TRY(array.element, read_type(reader));
  LATHE_TRY(array.size, reader.number<uint64_t>("array length"));
  if (array.element == GgufType::kArray) return invalid("expected an array of values, found an array of arrays");
  if (array.element == GgufType::kString) {
    if (array.size > reader.left() / sizeof(uint64_t)) {
      return invalid(str("expected at most ",
                         reader.left() / sizeof(uint64_t),
                         " strings in the bytes that are left, found ",
                         array.size));
    }
    array.texts.reserve(array.size);
    for (uint64_t i = 0; i < array.size; ++i) {
      Result<std::string_view> text = reader.text("string");
      if (!text) return text.error().at(str("element ", i));
      array.texts.push_back(*text);
    }
    return GgufField(GgufType::kArray, std::move(array));
  }
  const uint64_t width = value_type(array.element).bytes;
  if (array.size > reader.left() / width) {
    return invalid(str("expected at most ",
                       reader.left() / width,
                       " elements of ",
                       name_of(array.element),
                       " in the bytes that are left, found ",
                       array.size));
  }
  LATHE_TRY(const std::byte* at, reader.take(array.size * width, "array"));
  array.numbers = {at, array.size * width};
  if (array.element == GgufType::kBool) LATHE_TRY(check_bools(array.numbers));
  return GgufField(GgufType::kArray, std::move(array));
}

Result<GgufField> read_value(Reader& reader) {
  LATHE_TRY(const GgufType type, read_type(reader));
  if (type == GgufType::kArray) return read_array(reader);
  if (type == GgufType::kString) {
    LATHE_TRY(const std::string_view text, reader.text("string"));
    return GgufField(type, text);
  }
  const uint64_t width = value_type(type).bytes;
  LATHE_TRY(const std::byte* at, reader.take(width, name_of(type)));
  if (type == GgufType::kBool) LATHE_TRY(check_bools({at, width}));
  return read_number(type, at);
}

// A name or key: not empty, not longer than `most`, UTF-8.
Result<std::string_view> read_name(Reader& reader, std::string_view what, uint64_t most) {
  LATHE_TRY(const std::string_view text, reader.text(what));
  if (text.empty() || text.size() > most) {
    return invalid(str(what, ": expected 1 to ", most, " bytes, found ", text.size()));
  }
  if (!is_valid_utf8(text)) return invalid(str(what, ": expected UTF-8, found ", lathe::quoted(text)));
  return text;
}

Status read_metadata(Reader& reader, uint64_t count, GgufHeader& header) {
  header.metadata.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    Result<std::string_view> key = read_name(reader, "key", kMaxKeyBytes);
    if (!key) return key.error().at(str("metadata entry ", i));
    Result<GgufField> value = read_value(reader);
    if (!value) return value.error().at(str("key ", lathe::quoted(*key)));
    header.metadata.push_back({*key, std::move(*value)});
  }
  header.by_key.resize(count);
  std::iota(header.by_key.begin(), header.by_key.end(), 0U);
  const auto key_of = [&](uint32_t i) { return header.metadata[i].key; };
  std::sort(header.by_key.begin(), header.by_key.end(), [&](uint32_t a, uint32_t b) { return key_of(a) < key_of(b); });
  const auto twice = std::adjacent_find(
      header.by_key.begin(), header.by_key.end(), [&](uint32_t a, uint32_t b) { return key_of(a) == key_of(b); });
  if (twice != header.by_key.end()) return invalid(str("key ", lathe::quoted(key_of(*twice)), " is given twice"));
  return {};
}

Result<DType> dtype_of(uint32_t number) {
  if (const std::optional<DType> dtype = dtype_of_ggml(number)) return *dtype;
  std::string found = str("number ", number);
  for (const OtherType& type : kOtherTypes) {
    if (type.number == number) found = type.name;
  }
  return Error{Errc::kUnsupported,
               str("type: expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K, found ", found)};
}

// Bytes of a tensor; the product of all extents, and of the bytes, fits int64_t.
Result<uint64_t> data_size(DType dtype, const std::vector<int64_t>& shape) {
  const int64_t block = block_elements(dtype);
  if (shape.back() % block != 0) {
    return invalid(str("expected rows of whole blocks of ",
                       block,
                       " elements for ",
                       dtype_name(dtype),
                       ", found ",
                       shape.back(),
                       " elements"));
  }
  int64_t elements = 1;
  int64_t bytes = 0;
  bool overflow = false;
  for (const int64_t extent : shape) overflow = overflow || __builtin_mul_overflow(elements, extent, &elements);
  overflow = overflow || __builtin_mul_overflow(elements / block, block_bytes(dtype), &bytes);
  if (overflow) return invalid(str("shape ", shape, " of ", dtype_name(dtype), " exceeds 2^63 - 1 bytes"));
  return static_cast<uint64_t>(bytes);
}

// Everything of one tensor but its name; `begin` is still relative to the data.
Status read_tensor(Reader& reader, uint64_t alignment, GgufHeader::Tensor& out) {
  LATHE_TRY(const uint32_t rank, reader.number<uint32_t>("number of dimensions"));
  if (rank < 1 || rank > kMaxRank) {
    return invalid(str("expected 1 to ", kMaxRank, " dimensions, found ", rank));
  }
  out.tensor.shape.resize(rank);
  for (uint32_t i = 0; i < rank; ++i) {  // ne[0] is the fastest
    LATHE_TRY(const uint64_t extent, reader.number<uint64_t>("extent"));
    if (extent < 1 || extent > static_cast<uint64_t>(INT64_MAX)) {
      return invalid(str("ne[", i, "]: expected 1 to 2^63 - 1, found ", extent));
    }
    out.tensor.shape[rank - 1 - i] = static_cast<int64_t>(extent);
  }
  LATHE_TRY(const uint32_t type, reader.number<uint32_t>("type"));
  LATHE_TRY(out.tensor.dtype, dtype_of(type));
  LATHE_TRY(out.begin, reader.number<uint64_t>("offset"));
  if (out.begin % alignment != 0) {
    return invalid(str("offset: expected a multiple of the alignment ", alignment, ", found ", out.begin));
  }
  LATHE_TRY(out.size, data_size(out.tensor.dtype, out.tensor.shape));
  return {};
}

Status check_names(const std::vector<GgufHeader::Tensor>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const GgufHeader::Tensor& t : tensors) names.push_back(t.tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return {};
  return invalid(str("tensor ", lathe::quoted(*twice), " is given twice"));
}

// Moves the offsets behind the header, and checks that the ranges are inside the file and apart.
Status place_data(std::vector<GgufHeader::Tensor>& tensors,
                  uint64_t header_end,
                  uint64_t alignment,
                  uint64_t file_size) {
  const uint64_t start = (header_end + alignment - 1) / alignment * alignment;
  if (tensors.empty()) return {};
  const uint64_t data = file_size > start ? file_size - start : 0;
  std::vector<uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return tensors[a].begin < tensors[b].begin; });
  uint64_t end = 0;
  const GgufHeader::Tensor* before = nullptr;
  for (const uint32_t i : order) {
    GgufHeader::Tensor& t = tensors[i];
    const std::string label = str("tensor ", lathe::quoted(t.tensor.name));
    if (t.begin > data || t.size > data - t.begin) {
      return invalid(str(label,
                         ": expected an end within the ",
                         data,
                         " bytes of data, found ",
                         t.size,
                         " bytes from offset ",
                         t.begin));
    }
    if (t.begin < end) {
      return invalid(str(label,
                         ": expected an offset of at least ",
                         end,
                         ", the end of tensor ",
                         lathe::quoted(before->tensor.name),
                         ", found ",
                         t.begin));
    }
    end = t.begin + t.size;
    before = &t;
  }
  for (GgufHeader::Tensor& t : tensors) t.begin += start;
  return {};
}

Result<uint64_t> read_alignment(const GgufHeader& header) {
  const GgufField* field = header.find("general.alignment");
  if (field == nullptr) return header.alignment;
  const std::optional<int64_t> value = field->integer();
  if (!value || *value < 1 || static_cast<uint64_t>(*value) > kMaxAlignment ||
      !std::has_single_bit(static_cast<uint64_t>(*value))) {
    return invalid(
        str("key \"general.alignment\": expected a power of two up to ", kMaxAlignment, ", found ", field->describe()));
  }
  return static_cast<uint64_t>(*value);
}

Result<uint32_t> read_preamble(Reader& reader) {
  constexpr std::string_view kMagic = "GGUF";
  LATHE_TRY(const std::byte* magic, reader.take(kMagic.size(), "magic"));
  const std::string_view found(reinterpret_cast<const char*>(magic), kMagic.size());
  if (found != kMagic) return invalid(str("expected the magic \"GGUF\", found ", lathe::quoted(found)));
  LATHE_TRY(const uint32_t version, reader.number<uint32_t>("version"));
  if (version == 2 || version == 3) return version;
  const bool swapped = version == 0x02000000U || version == 0x03000000U;
  return Error{Errc::kUnsupported,
               str("expected GGUF version 2 or 3, found ", swapped ? std::string("a big-endian file") : str(version))};
}

}  // namespace

std::string_view name_of(GgufType type) {
  return value_type(type).name;
}

std::optional<int64_t> GgufField::integer() const {
  if (const uint64_t* u = std::get_if<uint64_t>(&value_); u != nullptr && *u <= static_cast<uint64_t>(INT64_MAX)) {
    return static_cast<int64_t>(*u);
  }
  if (const int64_t* i = std::get_if<int64_t>(&value_); i != nullptr) return *i;
  return std::nullopt;
}

std::optional<double> GgufField::real() const {
  if (const double* d = std::get_if<double>(&value_); d != nullptr) return *d;
  const std::optional<int64_t> i = integer();
  return i ? std::optional(static_cast<double>(*i)) : std::nullopt;
}

std::optional<bool> GgufField::boolean() const {
  const bool* b = std::get_if<bool>(&value_);
  return b != nullptr ? std::optional(*b) : std::nullopt;
}

std::optional<std::string_view> GgufField::text() const {
  const std::string_view* t = std::get_if<std::string_view>(&value_);
  return t != nullptr ? std::optional(*t) : std::nullopt;
}

std::string GgufField::describe() const {
  if (const Array* a = array(); a != nullptr) return str("array of ", a->size, " ", name_of(a->element));
  std::string value;
  if (const uint64_t* u = std::get_if<uint64_t>(&value_)) value = str(*u);
  if (const int64_t* i = std::get_if<int64_t>(&value_)) value = str(*i);
  if (const double* d = std::get_if<double>(&value_)) value = str(*d);
  if (const bool* b = std::get_if<bool>(&value_)) value = str(*b);
  if (const std::string_view* t = std::get_if<std::string_view>(&value_)) value = lathe::quoted(*t);
  return str(name_of(type_), " ", value);
}

GgufField element_of(const GgufField::Array& array, uint64_t i) {
  if (array.element == GgufType::kString) return {array.element, array.texts[i]};
  return read_number(array.element, array.numbers.data() + i * value_type(array.element).bytes);
}

const GgufField* GgufHeader::find(std::string_view key) const {
  const auto at = std::lower_bound(
      by_key.begin(), by_key.end(), key, [&](uint32_t i, std::string_view k) { return metadata[i].key < k; });
  return at != by_key.end() && metadata[*at].key == key ? &metadata[*at].value : nullptr;
}

Result<GgufHeader> parse_gguf_header(std::span<const std::byte> file) {
  Reader reader(file);
  GgufHeader header;
  LATHE_TRY(header.version, read_preamble(reader));
  LATHE_TRY(const uint64_t tensors, reader.number<uint64_t>("tensor count"));
  LATHE_TRY(const uint64_t entries, reader.number<uint64_t>("metadata count"));
  const uint64_t most_entries = std::min(kMaxEntries, reader.left() / kLeastEntryBytes);
  if (entries > most_entries) {
    return invalid(str("metadata count: expected at most ", most_entries, ", found ", entries));
  }
  LATHE_TRY(read_metadata(reader, entries, header));
  LATHE_TRY(header.alignment, read_alignment(header));
  const uint64_t most_tensors = std::min(kMaxTensors, reader.left() / kLeastTensorBytes);
  if (tensors > most_tensors) return invalid(str("tensor count: expected at most ", most_tensors, ", found ", tensors));
  header.tensors.resize(tensors);
  for (uint64_t i = 0; i < tensors; ++i) {
    Result<std::string_view> name = read_name(reader, "name", kMaxNameBytes);
    if (!name) return name.error().at(str("tensor ", i));
    header.tensors[i].tensor.name = *name;
    const Status read = read_tensor(reader, header.alignment, header.tensors[i]);
    if (!read) return read.error().at(str("tensor ", lathe::quoted(*name)));
  }
  LATHE_TRY(check_names(header.tensors));
  LATHE_TRY(place_data(header.tensors, reader.position(), header.alignment, file.size()));
  return header;
}

}  // namespace lathe
