// From the model's configuration to the parameters of the position embedding.
#pragma once

#include "lathe/attention/rope.h"
#include "lathe/model/config.h"

namespace lathe {

// Frequencies and cos/sin factor of this model. MLA: rope.dim = qk_rope_head_dim, mscale fields as written. Plain
// attention: rope.dim = head_dim; transformers gives that family a temperature through cos and sin only, so that
// mscale and mscale_all_dim count when both are non-zero and are 1 and 0 otherwise (trap T11).
RopeParameters rope_parameters(const ModelConfig& config);

// The factor on attention scores: MLA (d_h + d_h^R)^-0.5 * g^2 with YaRN's g (traps T1, T2), else head_dim^-0.5.
double attention_scale(const ModelConfig& config);

}  // namespace lathe
