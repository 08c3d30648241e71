// The safetensors header. The first 8 bytes of an input are the size of the data section, the rest is the header.
#include <set>

#include "fuzz.h"
#include "lathe/base/json.h"
#include "lathe/formats/checkpoint.h"

using lathe::fuzz::require;

namespace {

void check_accepted(const lathe::SafetensorsHeader& header, std::string_view text, uint64_t data_bytes) {
  std::set<std::string> names;
  uint64_t total = 0;
  for (const lathe::SafetensorsHeader::Entry& entry : header.entries) {
    require(entry.begin <= entry.end && entry.end <= data_bytes, "range outside the data");
    require(names.insert(entry.tensor.name).second, "a name twice");
    const auto elements = static_cast<uint64_t>(entry.tensor.elements());
    require(elements * static_cast<uint64_t>(lathe::dtype_size(entry.tensor.dtype)) == entry.end - entry.begin,
            "size does not fit shape and dtype");
    total += entry.end - entry.begin;
  }
  require(total == data_bytes, "the tensors do not fill the data");
  require(lathe::parse_json(text).has_value(), "the header is not JSON");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8) return 0;
  uint64_t data_bytes = 0;
  for (size_t i = 0; i < 8; ++i) data_bytes |= uint64_t{data[i]} << (8 * i);
  const std::string_view text(reinterpret_cast<const char*>(data) + 8, size - 8);
  const lathe::Result<lathe::SafetensorsHeader> header = lathe::parse_safetensors_header(text, data_bytes);
  if (header) {
    check_accepted(*header, text, data_bytes);
  } else {
    lathe::fuzz::require_clean_message(header.error().message);
  }
  return 0;
}
