// The reference table: plain scalar code with double accumulators, the oracle of the vector tables.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lathe/base/check.h"
#include "lathe/base/scalar.h"
#include "lathe/kernels/isa_tables.h"
#include "lathe/kernels/reference/attention.h"
#include "lathe/kernels/reference/panels.h"
#include "lathe/kernels/reference/training.h"
#include "lathe/tensor/blocks.h"

namespace lathe::internal {
namespace {

// Element i of a packed array, as fp32; E4M3 without scale.
float element(DType dtype, const std::byte* data, int64_t i) {
  switch (dtype) {
    case DType::kF32: {
      float value = 0.0f;
      std::memcpy(&value, data + 4 * i, 4);
      return value;
    }
    case DType::kBF16:
    case DType::kF16: {
      uint16_t bits = 0;
      std::memcpy(&bits, data + 2 * i, 2);
      return dtype == DType::kBF16 ? bf16_to_float(bits) : f16_to_float(bits);
    }
    case DType::kF8E4M3:
      return e4m3_to_float(static_cast<uint8_t>(data[i]));
    default:
      LATHE_CHECK(false, "kernels do not read ", dtype_name(dtype));
  }
  return 0.0f;
}

// One row as fp32 values: what the vector tables multiply with.
void decode_row(const WeightMatrix& w, int64_t row, std::vector<float>& out) {
  const std::byte* data = w.data + row * w.row_stride();
  out.resize(static_cast<size_t>(w.cols));
  if (is_block_format(w.dtype)) return decode_blocks(w.dtype, data, out.data(), w.cols);
  for (int64_t k = 0; k < w.cols; ++k) {
    float value = element(w.dtype, data, k);
    if (w.dtype == DType::kF8E4M3 && w.scales != nullptr) {
      value *= w.scales[(row / kFp8Block) * w.scale_cols() + k / kFp8Block];
    }
    out[static_cast<size_t>(k)] = value;
  }
}

void gemm(const GemmArgs& args) {
  std::vector<float> row;
  for (int64_t r = args.row_begin; r < args.row_end; ++r) {
    decode_row(args.w, r, row);
    for (int64_t t = 0; t < args.tokens; ++t) {
      const float* x = args.x + t * args.x_stride;
      double sum = 0.0;
      for (int64_t k = 0; k < args.w.cols; ++k) sum += static_cast<double>(row[static_cast<size_t>(k)]) * x[k];
      float& y = args.y[t * args.y_stride + (r - args.row_begin)];
      y = args.accumulate ? y + static_cast<float>(sum) : static_cast<float>(sum);
    }
  }
}

void gemm_transposed(const GemmTransposedArgs& args) {
  const auto cols = static_cast<size_t>(args.w.cols);
  const auto tokens = static_cast<size_t>(std::max<int64_t>(args.tokens, 0));
  std::vector<double> sums(tokens * cols, 0.0);
  for (size_t t = 0; t < tokens && args.accumulate; ++t) {
    std::copy_n(args.y + static_cast<int64_t>(t) * args.y_stride, cols, sums.data() + t * cols);
  }
  std::vector<float> row;
  for (int64_t r = args.row_begin; r < args.row_end && tokens > 0; ++r) {
    decode_row(args.w, r, row);
    for (size_t t = 0; t < tokens; ++t) {
      const double x = args.x[static_cast<int64_t>(t) * args.x_stride + (r - args.row_begin)];
      for (size_t c = 0; c < cols; ++c) sums[t * cols + c] += x * row[c];
    }
  }
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < cols; ++c) {
      args.y[static_cast<int64_t>(t) * args.y_stride + static_cast<int64_t>(c)] =
          static_cast<float>(sums[t * cols + c]);
    }
  }
}

void rms_norm(const float* x, const float* weight, float* y, int64_t n, float eps) {
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const double factor = 1.0 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(weight[i] * (x[i] * factor));
}

void silu_mul(const float* gate, const float* up, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double g = gate[i];
    out[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
  }
}

float softmax_step(float* scores, int64_t count, int64_t padded, float scale, SoftmaxState& state) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const float old_maximum = state.maximum;
  for (int64_t i = 0; i < count; ++i) {
    scores[i] *= scale;
    if (scores[i] > state.maximum) state.maximum = scores[i];  // never with NaN
  }
  const double shift = state.maximum == kLowest ? 0.0 : state.maximum;
  const double rescale = std::exp(old_maximum - shift);
  double sum = state.sum * rescale;
  for (int64_t i = 0; i < count; ++i) {
    const double e = std::exp(scores[i] - shift);
    scores[i] = static_cast<float>(e);
    sum += e;
  }
  for (int64_t i = count; i < padded; ++i) scores[i] = 0.0f;
  state.sum = static_cast<float>(sum);
  return static_cast<float>(rescale);
}

void scale(float* y, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] *= factor;
}

void axpy(float* y, float factor, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = std::fma(factor, x[i], y[i]);
}

void add(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

void rotate(float& a, float& b, double cos, double sin) {
  const double first = a * cos - b * sin;
  const double second = b * cos + a * sin;
  a = static_cast<float>(first);
  b = static_cast<float>(second);
}

void rope_interleaved(float* x, const float* cos, const float* sin, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) rotate(x[2 * i], x[2 * i + 1], cos[i], sin[i]);
}

void rope_half_split(float* x, const float* cos, const float* sin, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) rotate(x[i], x[pairs + i], cos[i], sin[i]);
}

void to_float(DType dtype, const void* source, float* out, int64_t n) {
  if (is_block_format(dtype)) return decode_blocks(dtype, static_cast<const std::byte*>(source), out, n);
  for (int64_t i = 0; i < n; ++i) out[i] = element(dtype, static_cast<const std::byte*>(source), i);
}

void from_float(DType dtype, const float* source, void* out, int64_t n) {
  auto* bytes = static_cast<std::byte*>(out);
  switch (dtype) {
    case DType::kF32:
      if (n > 0) std::memmove(out, source, static_cast<size_t>(4 * n));  // null only when there is nothing
      return;
    case DType::kBF16:
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits = dtype == DType::kBF16 ? float_to_bf16(source[i]) : float_to_f16(source[i]);
        std::memcpy(bytes + 2 * i, &bits, 2);
      }
      return;
    default:
      LATHE_CHECK(false, "kernels do not write ", dtype_name(dtype));
  }
}

}  // namespace

constinit const KernelTable kReferenceKernels = {
    .isa = "reference",
    .gemm = gemm,
    .gemm_transposed = gemm_transposed,
    .panel_gemm = panel_gemm,
    .quantise = quantise,
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .softmax_step = softmax_step,
    .scale = scale,
    .axpy = axpy,
    .add = add,
    .rope_interleaved = rope_interleaved,
    .rope_half_split = rope_half_split,
    .to_float = to_float,
    .from_float = from_float,
    .load_strip = reference_load_strip,
    .lane_scores = reference_lane_scores,
    .lane_quantise = reference_lane_quantise,
    .lane_scores_q8 = reference_lane_scores_q8,
    .lane_softmax = reference_lane_softmax,
    .lane_values = reference_lane_values,
    .lane_values_q8 = reference_lane_values_q8,
    .cache_to_float = decode_cache_row,
    .encode_q8 = [](const float* x, int64_t n, std::byte* row) { encode_cache_row(CacheFormat::kQ8, x, n, row); },
    .rows_to_lanes = reference_rows_to_lanes,
    .lanes_to_rows = reference_lanes_to_rows,
    .sgemm = reference_sgemm,
    .sgemm_pack = reference_sgemm_pack,
    .rms_norm_backward = reference_rms_norm_backward,
    .silu_mul_backward = reference_silu_mul_backward,
    .softmax_backward = reference_softmax_backward,
    .adamw = reference_adamw,
};

}  // namespace lathe::internal
