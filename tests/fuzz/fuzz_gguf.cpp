// The header of a GGUF file; the input is the whole file.
#include <set>
#include <string>

#include "fuzz.h"
#include "lathe/formats/gguf.h"

using lathe::fuzz::require;

namespace {

void check_accepted(const lathe::GgufHeader& header, size_t file_size) {
  std::set<std::string_view> keys;
  for (const lathe::GgufHeader::Entry& entry : header.metadata) {
    require(keys.insert(entry.key).second, "a key twice");
    require(header.find(entry.key) == &entry.value, "a key that is not found");
    require(!entry.value.describe().empty(), "a value without a description");
    const lathe::GgufField::Array* array = entry.value.array();
    for (uint64_t i = 0; array != nullptr && i < array->size; ++i) static_cast<void>(lathe::element_of(*array, i));
  }
  std::set<std::string_view> names;
  for (const lathe::GgufHeader::Tensor& t : header.tensors) {
    require(names.insert(t.tensor.name).second, "a name twice");
    require(t.begin <= file_size && t.size <= file_size - t.begin, "range outside the file");
    require(t.begin % header.alignment == 0, "data that is not aligned");
    const int64_t rows = t.tensor.elements() / t.tensor.shape.back();
    require(static_cast<uint64_t>(rows * lathe::row_bytes(t.tensor.dtype, t.tensor.shape.back())) == t.size,
            "size does not fit shape and dtype");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const lathe::Result<lathe::GgufHeader> header = lathe::parse_gguf_header({bytes, size});
  if (header) {
    check_accepted(*header, size);
  } else {
    lathe::fuzz::require_clean_message(header.error().message);
  }
  return 0;
}
