// Cache rows of random values for tests of the kernels that read them.
#pragma once

#include <cstdint>
#include <vector>

#include "lathe/base/rng.h"
#include "support/compare.h"
#include "support/kernels.h"

namespace lathe::testing {

// Rows in a cache format that end right before an unmapped page.
inline FencedBytes stored_rows(CacheFormat format, int64_t rows, int64_t elements, uint64_t seed) {
  Rng rng(seed);
  std::vector<std::byte> bytes(static_cast<size_t>(rows * cache_row_bytes(format, elements)));
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<float> values = random_floats(rng, elements);
    encode_cache_row(format, values.data(), elements, bytes.data() + row * cache_row_bytes(format, elements));
  }
  return FencedBytes(bytes);
}

// `cols` columns from `first` on, of `rows` rows of `elements`.
struct Columns {
  int64_t rows;
  int64_t elements;
  int64_t first;
  int64_t cols;
};

}  // namespace lathe::testing
