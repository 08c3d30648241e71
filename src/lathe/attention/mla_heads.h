// Products with one head's W^UK and W^UV, however they are stored: kv_b_proj, or the pair k_b_proj and v_b_proj, plain
// or packed. Internal to the two forms of MLA. Results depend on each row alone.
#pragma once

#include "lathe/attention/mla.h"

namespace lathe {

// Workspace floats of the scratch that one thread gives to these functions.
int64_t head_scratch_floats(const MlaShape& shape);

// One head of one layer's weights, and what to multiply with.
struct MlaHead {
  const KernelTable& kernels;
  const MlaWeights& weights;
  const MlaShape& shape;
  int64_t index = 0;
  float* scratch = nullptr;  // head_scratch_floats(), of this thread
};

// Rows `stride` floats apart.
struct StridedRows {
  float* data = nullptr;
  int64_t stride = 0;
};

// q~[t, d_c] = (W^UK)^T q^C[t, d_h]: Eq. 10 moved to the query side.
void absorb_query(const MlaHead& head, int64_t tokens, const float* q, int64_t q_stride, StridedRows out);

// o[t, d_v] = W^UV z[t, d_c]: Eq. 11 moved to the output side.
void project_value(const MlaHead& head, int64_t tokens, const float* z, int64_t z_stride, StridedRows out);

// Whether expand_latents reads the quantised latents.
bool reads_quantised_latents(const MlaWeights& weights);

// kv[s] = [k^C ; v] of one head, [d_h + d_v], for latents[s, d_c] (dense rows, and quantised where they are read):
// Eq. 10-11.
void expand_latents(
    const MlaHead& head, int64_t positions, const float* latents, const QuantisedRows& quantised, StridedRows kv);

}  // namespace lathe
