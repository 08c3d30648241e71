// What the functions of KernelTable under "training" take: fp32 products of any orientation and the elementwise parts
// of backward passes.
#pragma once

#include <cstdint>

namespace lathe {

// Depth of a product's sums: see SgemmArgs.
inline constexpr int64_t kSgemmDepth = 256;
// Columns of B that are packed at a time.
inline constexpr int64_t kSgemmColumns = 256;
// Rows of A that pass all columns of B before the next ones come: at most so many.
inline constexpr int64_t kSgemmBlockRows = 96;
// Of such rows, packed or copied: each at most with 16 floats of padding.
inline constexpr int64_t kSgemmPackedRowFloats = kSgemmBlockRows * (kSgemmDepth + 16);
// Scratch of one product.
inline constexpr int64_t kSgemmScratchFloats = kSgemmDepth * kSgemmColumns + kSgemmPackedRowFloats;

// C[m, n] (+)= A[m, k] B[k, n], all fp32. Element (i, p) of A lies at a[i * a_row + p * a_col], element (p, j) of B at
// b[p * b_row + j * b_col]; of each pair of strides one is 1. Rows of C are contiguous and c_row floats apart; C
// overlaps neither input. Every element of C is computed alone: for each block of kSgemmDepth values of p a chain of
// fused multiply-adds from 0 in ascending p; the blocks are added in order, to C's old value with `accumulate`, else
// the first one is stored. So the bits do not depend on m, n or on how a product is cut along them.
struct SgemmArgs {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  const float* a = nullptr;
  int64_t a_row = 0;
  int64_t a_col = 0;
  const float* b = nullptr;  // or null, with b_packed
  int64_t b_row = 0;
  int64_t b_col = 0;
  // B as sgemm_pack leaves it: packed_k rows of which the first k are multiplied, packed_n columns of which n from
  // packed_column (a multiple of 16) on.
  const float* b_packed = nullptr;
  int64_t packed_k = 0;
  int64_t packed_n = 0;
  int64_t packed_column = 0;
  float* c = nullptr;
  int64_t c_row = 0;
  bool accumulate = false;
  float* scratch = nullptr;  // kSgemmScratchFloats, aligned to a cache line
};

// B[k, n] for many products: blocks of kSgemmDepth rows, in each 16 columns after another, [rows][16], zeros past n.
struct SgemmPackArgs {
  int64_t k = 0;
  int64_t n = 0;
  const float* b = nullptr;
  int64_t b_row = 0;
  int64_t b_col = 0;
  float* out = nullptr;  // sgemm_packed_floats(k, n)
};

constexpr int64_t sgemm_packed_floats(int64_t k, int64_t n) {  // floats of a packed B
  return k * ((n + 15) / 16 * 16);
}

// Backward of y_j = w_j n_j, n = x / sqrt(mean(x^2) + eps), for one row:
//   dx (+)= (w dy - n mean(n w dy)) / sqrt(mean(x^2) + eps),  dw += dy n.
struct RmsNormBackwardArgs {
  const float* x = nullptr;
  const float* weight = nullptr;
  const float* dy = nullptr;
  float* dx = nullptr;  // may be dy
  float* dweight = nullptr;
  int64_t n = 0;
  float eps = 0.0F;
  bool accumulate = false;  // add to dx
};

// Backward of h = silu(gate) up: dgate = dh up sigma(g)(1 + g (1 - sigma(g))), dup = dh silu(g). dgate may be gate, dup
// may be up.
struct SiluMulBackwardArgs {
  const float* gate = nullptr;
  const float* up = nullptr;
  const float* dh = nullptr;
  float* dgate = nullptr;
  float* dup = nullptr;
  int64_t n = 0;
};

// Backward of softmax for one query, from its raw scores: p = exp(scale s - lse), ds = scale p (dp - delta) with delta
// = sum of p dp. p overwrites the scores, ds overwrites dp; both are 0 in [count, padded).
struct SoftmaxBackwardArgs {
  float* scores = nullptr;
  float* dp = nullptr;
  int64_t count = 0;
  int64_t padded = 0;
  float scale = 0.0F;
  float lse = 0.0F;
  float delta = 0.0F;
};

// One AdamW update of n values. rest = 1 - beta, which loses digits when it is computed from fp32. correction1 = 1 / (1
// - beta1^t), correction2 = 1 / (1 - beta2^t).
struct AdamwArgs {
  float* value = nullptr;
  const float* gradient = nullptr;
  float* first = nullptr;
  float* second = nullptr;
  int64_t n = 0;
  float gradient_factor = 1.0F;
  float beta1 = 0.0F;
  float beta2 = 0.0F;
  float rest1 = 0.0F;
  float rest2 = 0.0F;
  float correction1 = 1.0F;
  float correction2 = 1.0F;
  float learning_rate = 0.0F;
  float epsilon = 0.0F;
  float decay = 0.0F;
};

}  // namespace lathe
