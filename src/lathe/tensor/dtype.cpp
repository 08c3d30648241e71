#include "lathe/tensor/dtype.h"

#include <array>

#include "lathe/base/check.h"

namespace lathe {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  int64_t size;
  bool floating;
};

constexpr std::array<Entry, 15> kEntries{{
    {DType::kF64, "F64", 8, true},
    {DType::kF32, "F32", 4, true},
    {DType::kF16, "F16", 2, true},
    {DType::kBF16, "BF16", 2, true},
    {DType::kF8E4M3, "F8_E4M3", 1, true},
    {DType::kF8E5M2, "F8_E5M2", 1, true},
    {DType::kI64, "I64", 8, false},
    {DType::kI32, "I32", 4, false},
    {DType::kI16, "I16", 2, false},
    {DType::kI8, "I8", 1, false},
    {DType::kU64, "U64", 8, false},
    {DType::kU32, "U32", 4, false},
    {DType::kU16, "U16", 2, false},
    {DType::kU8, "U8", 1, false},
    {DType::kBool, "BOOL", 1, false},
}};

// The table is indexed by the enumerator.
constexpr bool in_order() {
  for (size_t i = 0; i < kEntries.size(); ++i) {
    if (static_cast<size_t>(kEntries[i].dtype) != i) return false;
  }
  return true;
}

static_assert(in_order());

const Entry& entry(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  LATHE_CHECK(index < kEntries.size(), "dtype ", index);
  return kEntries[index];
}

}  // namespace

int64_t dtype_size(DType dtype) {
  return entry(dtype).size;
}

std::string_view dtype_name(DType dtype) {
  return entry(dtype).name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Entry& e : kEntries) {
    if (e.name == name) return e.dtype;
  }
  return std::nullopt;
}

bool is_floating(DType dtype) {
  return entry(dtype).floating;
}

}  // namespace lathe
