// Writing of safetensors files.
#include <algorithm>
#include <numeric>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/formats/checkpoint.h"

namespace lathe {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

Error refused(std::string_view name, std::string_view what) {
  return Error{Errc::kInvalidArgument, str("tensor ", lathe::quoted(name), ": ", what)};
}

Status check_tensor(const StoredTensor& tensor) {
  if (tensor.name == "__metadata__") return refused(tensor.name, "the name is reserved");
  if (!is_valid_utf8(tensor.name)) return refused(tensor.name, "the name is not valid UTF-8");
  int64_t product = dtype_size(tensor.dtype);
  bool empty = false;
  for (const int64_t extent : tensor.shape) {
    empty = empty || extent == 0;
    if (extent < 0 || __builtin_mul_overflow(product, std::max<int64_t>(extent, 1), &product)) {
      return refused(tensor.name, str("shape ", tensor.shape, " is negative or exceeds 2^63 - 1 bytes"));
    }
  }
  const int64_t bytes = empty ? 0 : product;
  if (static_cast<uint64_t>(bytes) != tensor.bytes.size()) {
    return refused(tensor.name,
                   str("expected ",
                       bytes,
                       " bytes for shape ",
                       tensor.shape,
                       " of ",
                       dtype_name(tensor.dtype),
                       ", found ",
                       tensor.bytes.size()));
  }
  return {};
}

using Metadata = std::span<const std::pair<std::string, std::string>>;

Result<std::string> make_header(std::span<const StoredTensor* const> order, Metadata metadata) {
  Json::Object meta;
  bool has_format = false;
  for (const auto& [key, value] : metadata) {
    const bool twice = std::any_of(meta.begin(), meta.end(), [&](const Json::Member& m) { return m.first == key; });
    if (twice || !is_valid_utf8(key) || !is_valid_utf8(value)) {
      return Error{Errc::kInvalidArgument, str("metadata ", lathe::quoted(key), ": given twice or not valid UTF-8")};
    }
    has_format = has_format || key == "format";
    meta.emplace_back(key, value);
  }
  if (!has_format) meta.emplace_back("format", "pt");

  Json::Object header;
  header.reserve(order.size() + 1);
  header.emplace_back("__metadata__", std::move(meta));
  uint64_t position = 0;
  for (const StoredTensor* tensor : order) {
    const uint64_t end = position + tensor->bytes.size();  // sizes of objects in memory: the sum cannot overflow
    Json::Object entry;
    entry.emplace_back("dtype", dtype_name(tensor->dtype));
    entry.emplace_back("shape", Json::list(tensor->shape));
    entry.emplace_back("data_offsets", Json::Array{Json(position), Json(end)});
    header.emplace_back(tensor->name, std::move(entry));
    position = end;
  }
  std::string text = Json(std::move(header)).dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    return Error{Errc::kInvalidArgument,
                 str("header: expected at most ", kMaxHeaderBytes, " bytes, found ", text.size())};
  }
  return text;
}

}  // namespace

Status write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors, Metadata metadata) {
  std::vector<const StoredTensor*> order;
  order.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) {
    const Status status = check_tensor(tensor);
    if (!status) return status.error().at(path.string());
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) { return a->name < b->name; });
  const auto twice = std::adjacent_find(
      order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) { return a->name == b->name; });
  if (twice != order.end()) return refused((*twice)->name, "given twice").at(path.string());
  std::stable_sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return dtype_size(a->dtype) > dtype_size(b->dtype);
  });
  const Result<std::string> header = make_header(order, metadata);
  if (!header) return header.error().at(path.string());

  LATHE_TRY(AtomicFile file, AtomicFile::create(path));
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(header->size() >> (8 * i) & 0xFF);
  LATHE_TRY(file.write(length));
  LATHE_TRY(file.write(*header));
  for (const StoredTensor* tensor : order) LATHE_TRY(file.write(tensor->bytes));
  return file.commit();
}

}  // namespace lathe
