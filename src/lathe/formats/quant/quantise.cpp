#include "lathe/formats/quant/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "lathe/base/check.h"
#include "lathe/base/scalar.h"
#include "lathe/formats/quant/encoders.h"
#include "lathe/tensor/blocks.h"

namespace lathe {

void quantise_row(DType format, std::span<const float> values, std::byte* out) {
  const int64_t block = block_elements(format);
  const auto n = static_cast<int64_t>(values.size());
  LATHE_CHECK(is_block_format(format) && n % block == 0, dtype_name(format), " of ", n, " values");
  for (int64_t at = 0; at < n; at += block, out += block_bytes(format)) {
    const float* x = values.data() + at;
    switch (format) {
      case DType::kQ8_0:
        quant::encode_q8_0(x, out);
        break;
      case DType::kQ4_K:
      case DType::kQ5_K:
        quant::encode_q45_k(format, x, out);
        break;
      case DType::kQ6_K:
        quant::encode_q6_k(x, out);
        break;
      default:
        quant::encode_small(format, x, out);
        break;
    }
  }
}

bool all_finite(std::span<const float> values) {
  // An exponent of all ones is infinity or NaN. Without branches, so that it takes no time beside the rest.
  uint32_t worst = 0;
  for (const float v : values) worst = std::max(worst, std::bit_cast<uint32_t>(v) & 0x7F800000U);
  return worst != 0x7F800000U;
}

void encode_row(DType format, std::span<const float> values, std::byte* out) {
  switch (format) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(out, values.data(), values.size_bytes());
      return;
    case DType::kF16:
    case DType::kBF16:
      for (const float v : values) {
        const uint16_t bits = format == DType::kF16 ? float_to_f16(v) : float_to_bf16(v);
        std::memcpy(out, &bits, sizeof bits);
        out += sizeof bits;
      }
      return;
    default:
      quantise_row(format, values, out);
  }
}

void decode_row(DType format, const std::byte* row, std::span<float> out) {
  switch (format) {
    case DType::kF32:
      if (!out.empty()) std::memcpy(out.data(), row, out.size_bytes());
      return;
    case DType::kF16:
    case DType::kBF16:
      for (float& v : out) {
        uint16_t bits = 0;
        std::memcpy(&bits, row, sizeof bits);
        v = format == DType::kF16 ? f16_to_float(bits) : bf16_to_float(bits);
        row += sizeof bits;
      }
      return;
    default:
      decode_blocks(format, row, out.data(), static_cast<int64_t>(out.size()));
  }
}

void quantise_rows(DType format, const float* values, int64_t rows, int64_t cols, std::byte* out, ThreadPool* pool) {
  const int64_t bytes = row_bytes(format, cols);
  const auto part = [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      quantise_row(format, {values + r * cols, static_cast<size_t>(cols)}, out + r * bytes);
    }
  };
  if (pool == nullptr) {
    part(0, rows, 0);
  } else {
    pool->run(rows, 1, part);
  }
}

}  // namespace lathe
