// All shared kernels as one table: what every ISA unit is made of. See vec16-inl.h for what may be included here.
#pragma once

#include "lathe/kernels/attention-inl.h"
#include "lathe/kernels/attention_q8-inl.h"
#include "lathe/kernels/attention_values_q8-inl.h"
#include "lathe/kernels/gemm-inl.h"
#include "lathe/kernels/gemm_transposed-inl.h"
#include "lathe/kernels/isa_tables.h"
#include "lathe/kernels/ops-inl.h"
#include "lathe/kernels/panel_gemm-inl.h"
#include "lathe/kernels/training-inl.h"

namespace lathe::internal {
namespace {

// The functions of this unit under the name of its instruction set.
consteval KernelTable make_table(std::string_view isa) {
  return {
      .isa = isa,
      .gemm = gemm,
      .gemm_transposed = gemm_transposed,
      .panel_gemm = panel_gemm,
      .quantise = quantise,
      .rms_norm = rms_norm,
      .silu_mul = silu_mul,
      .softmax_step = softmax_step,
      .scale = scale_in_place,
      .axpy = axpy,
      .add = add_in_place,
      .rope_interleaved = rope_interleaved,
      .rope_half_split = rope_half_split,
      .to_float = to_float,
      .from_float = from_float,
      .load_strip = load_strip,
      .lane_scores = lane_scores,
      .lane_quantise = lane_quantise,
      .lane_scores_q8 = lane_scores_q8,
      .lane_softmax = lane_softmax,
      .lane_values = lane_values,
      .lane_values_q8 = lane_values_q8,
      .cache_to_float = cache_to_float,
      .encode_q8 = encode_q8,
      .rows_to_lanes = rows_to_lanes,
      .lanes_to_rows = lanes_to_rows,
      .sgemm = sgemm,
      .sgemm_pack = sgemm_pack,
      .rms_norm_backward = rms_norm_backward,
      .silu_mul_backward = silu_mul_backward,
      .softmax_backward = softmax_backward,
      .adamw = adamw,
  };
}

}  // namespace
}  // namespace lathe::internal
