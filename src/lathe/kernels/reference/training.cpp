#include "lathe/kernels/reference/training.h"

#include <algorithm>
#include <cmath>

namespace lathe::internal {
namespace {

// Element (p, j) of the right-hand side, wherever it lies.
double right(const SgemmArgs& a, int64_t p, int64_t j) {
  if (a.b_packed == nullptr) return a.b[p * a.b_row + j * a.b_col];
  const int64_t block = p / kSgemmDepth * kSgemmDepth;
  const int64_t depth = std::min(a.packed_k - block, kSgemmDepth);
  const int64_t columns = (a.packed_n + 15) / 16 * 16;
  j += a.packed_column;
  return a.b_packed[block * columns + j / 16 * depth * 16 + (p - block) * 16 + j % 16];
}

}  // namespace

void reference_sgemm(const SgemmArgs& a) {
  for (int64_t i = 0; i < a.m; ++i) {
    for (int64_t j = 0; j < a.n; ++j) {
      float& c = a.c[i * a.c_row + j];
      double sum = a.accumulate ? c : 0.0;
      for (int64_t p = 0; p < a.k; ++p) {
        sum += static_cast<double>(a.a[i * a.a_row + p * a.a_col]) * right(a, p, j);
      }
      c = static_cast<float>(sum);
    }
  }
}

void reference_sgemm_pack(const SgemmPackArgs& a) {
  const int64_t columns = (a.n + 15) / 16 * 16;
  for (int64_t p = 0; p < a.k; ++p) {
    const int64_t block = p / kSgemmDepth * kSgemmDepth;
    const int64_t depth = std::min(a.k - block, kSgemmDepth);
    for (int64_t j = 0; j < columns; ++j) {
      a.out[block * columns + j / 16 * depth * 16 + (p - block) * 16 + j % 16] =
          j < a.n ? a.b[p * a.b_row + j * a.b_col] : 0.0F;
    }
  }
}

void reference_rms_norm_backward(const RmsNormBackwardArgs& a) {
  double squares = 0.0;
  double products = 0.0;
  for (int64_t i = 0; i < a.n; ++i) {
    squares += static_cast<double>(a.x[i]) * a.x[i];
    products += static_cast<double>(a.weight[i]) * a.dy[i] * a.x[i];
  }
  const double factor = 1.0 / std::sqrt(squares / static_cast<double>(a.n) + a.eps);
  const double mean = factor * products / static_cast<double>(a.n);  // of n w dy
  for (int64_t i = 0; i < a.n; ++i) {
    const double normed = a.x[i] * factor;
    const double dy = a.dy[i];
    a.dweight[i] = static_cast<float>(a.dweight[i] + dy * normed);
    const double dx = factor * (a.weight[i] * dy - normed * mean);
    a.dx[i] = static_cast<float>(a.accumulate ? a.dx[i] + dx : dx);
  }
}

void reference_silu_mul_backward(const SiluMulBackwardArgs& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    const double g = a.gate[i];
    const double up = a.up[i];
    const double dh = a.dh[i];
    const double sigma = 1.0 / (1.0 + std::exp(-g));
    a.dup[i] = static_cast<float>(dh * g * sigma);
    a.dgate[i] = static_cast<float>(dh * up * sigma * (1.0 + g * (1.0 - sigma)));
  }
}

void reference_softmax_backward(const SoftmaxBackwardArgs& a) {
  for (int64_t i = 0; i < a.padded; ++i) {
    const double p =
        i < a.count ? std::exp(static_cast<double>(a.scale) * a.scores[i] - static_cast<double>(a.lse)) : 0.0;
    a.dp[i] = i < a.count ? static_cast<float>(a.scale * p * (static_cast<double>(a.dp[i]) - a.delta)) : 0.0F;
    a.scores[i] = static_cast<float>(p);
  }
}

void reference_adamw(const AdamwArgs& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    const double g = static_cast<double>(a.gradient[i]) * a.gradient_factor;
    const double m = static_cast<double>(a.beta1) * a.first[i] + static_cast<double>(a.rest1) * g;
    const double v = static_cast<double>(a.beta2) * a.second[i] + static_cast<double>(a.rest2) * g * g;
    a.first[i] = static_cast<float>(m);
    a.second[i] = static_cast<float>(v);
    const double update = m * a.correction1 / (std::sqrt(v * a.correction2) + a.epsilon);
    a.value[i] =
        static_cast<float>(a.value[i] - a.learning_rate * (update + static_cast<double>(a.decay) * a.value[i]));
  }
}

}  // namespace lathe::internal
