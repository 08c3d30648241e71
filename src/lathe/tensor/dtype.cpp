#include "lathe/tensor/dtype.h"

#include <array>

#include "lathe/base/check.h"

namespace lathe {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  int64_t size;  // bytes of one block
  bool floating;
  int64_t elements = 1;  // of one block
};

constexpr std::array<Entry, 23> kEntries{{
    {DType::kF64, "F64", 8, true},           {DType::kF32, "F32", 4, true},
    {DType::kF16, "F16", 2, true},           {DType::kBF16, "BF16", 2, true},
    {DType::kF8E4M3, "F8_E4M3", 1, true},    {DType::kF8E5M2, "F8_E5M2", 1, true},
    {DType::kI64, "I64", 8, false},          {DType::kI32, "I32", 4, false},
    {DType::kI16, "I16", 2, false},          {DType::kI8, "I8", 1, false},
    {DType::kU64, "U64", 8, false},          {DType::kU32, "U32", 4, false},
    {DType::kU16, "U16", 2, false},          {DType::kU8, "U8", 1, false},
    {DType::kBool, "BOOL", 1, false},        {DType::kQ4_0, "Q4_0", 18, false, 32},
    {DType::kQ4_1, "Q4_1", 20, false, 32},   {DType::kQ5_0, "Q5_0", 22, false, 32},
    {DType::kQ5_1, "Q5_1", 24, false, 32},   {DType::kQ8_0, "Q8_0", 34, false, 32},
    {DType::kQ4_K, "Q4_K", 144, false, 256}, {DType::kQ5_K, "Q5_K", 176, false, 256},
    {DType::kQ6_K, "Q6_K", 210, false, 256},
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
  const Entry& e = entry(dtype);
  LATHE_CHECK(e.elements == 1, e.name, " has blocks, not elements");
  return e.size;
}

bool is_block_format(DType dtype) {
  return entry(dtype).elements > 1;
}

int64_t block_elements(DType dtype) {
  return entry(dtype).elements;
}

int64_t block_bytes(DType dtype) {
  return entry(dtype).size;
}

int64_t row_bytes(DType dtype, int64_t cols) {
  const Entry& e = entry(dtype);
  LATHE_CHECK(cols % e.elements == 0, cols, " elements are not whole blocks of ", e.name);
  return cols / e.elements * e.size;
}

std::string_view dtype_name(DType dtype) {
  return entry(dtype).name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Entry& e : kEntries) {
    if (e.name == name && e.elements == 1) return e.dtype;
  }
  return std::nullopt;
}

bool is_floating(DType dtype) {
  return entry(dtype).floating;
}

}  // namespace lathe
