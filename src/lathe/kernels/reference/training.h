// Training kernels of the reference table: plain loops with double sums.
#pragma once

#include "lathe/kernels/training.h"

namespace lathe::internal {

// The entries of KernelTable under "training".
void reference_sgemm(const SgemmArgs& args);
void reference_sgemm_pack(const SgemmPackArgs& args);
void reference_rms_norm_backward(const RmsNormBackwardArgs& args);
void reference_silu_mul_backward(const SiluMulBackwardArgs& args);
void reference_softmax_backward(const SoftmaxBackwardArgs& args);
void reference_adamw(const AdamwArgs& args);

}  // namespace lathe::internal
