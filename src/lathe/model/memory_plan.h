// How many bytes a model needs before anything is loaded: weights, latent cache and scratch, by arithmetic from the
// config. What does not fit is refused with these numbers.
#pragma once

#include <cstdint>
#include <optional>

#include "lathe/base/result.h"
#include "lathe/kernels/cache_rows.h"
#include "lathe/model/config.h"
#include "lathe/model/mtp.h"

namespace lathe {

struct MemoryPlan {
  uint64_t weights = 0;  // bytes, likewise below
  uint64_t cache = 0;
  uint64_t scratch = 0;
  uint64_t total = 0;

  friend bool operator==(const MemoryPlan&, const MemoryPlan&) = default;
};

struct MemoryPlanInput {
  int64_t context = 4096;  // cached tokens over all sequences
  CacheFormat cache_format = CacheFormat::kF16;
  int64_t cache_page_tokens = 64;  // the cache grows by whole pages
  MtpLayer mtp = MtpLayer::kSkip;  // kUse: what with_mtp_layer() adds to the cache
  int64_t max_batch_tokens = 512;  // tokens of one forward pass
  int64_t threads = 1;
  // Bytes of the stored weights. Without it they follow from the config: 1 byte per element of every projection of an
  // FP8 model and 4 per 128x128 block of it, F32 for the routing correction bias, otherwise the config's dtype (4 bytes
  // for float32, 8 for float64, else 2).
  std::optional<uint64_t> weight_bytes = std::nullopt;
  // Floats of scratch, when the workspace that will be used is known. Without it, see scratch_floats below.
  std::optional<int64_t> scratch_floats = std::nullopt;
};

// Errors: kInvalidArgument names an input out of range (context 1 .. 2^31, page 1 .. 65536,
// batch 1 .. 2^20, threads 1 .. 4096); kResourceExhausted when a size does not fit 63 bits.
Result<MemoryPlan> plan_memory(const ModelConfig& config, const MemoryPlanInput& input);

// Bytes of the weights by the rule above.
uint64_t assumed_weight_bytes(const ModelConfig& config);

// Floats that one forward pass of T tokens works in, fp32 activations, buffers not shared between stages:
//   3 T d                                             residual, normed input, block output
// + T (q rows + 2 H (r + d_r) + H d_v + r_q + r + d_r)  MLA: q, absorbed q and latent output, o, both latents
//   or T (2 H d_h + 2 n_kv d_h)                       plain attention: q, o, k, v
// + T max(2 d_f, N_r + K (2 d_e + d) + 2 N_s d_e)     dense or MoE feed-forward, whichever is larger
// + threads (P (d_n + d_r + d_v) + 2 H P)             per thread: one expanded page of P tokens, scores of every head
// + 2 V                                               logits and probabilities of one row
// nullopt when it does not fit 63 bits.
std::optional<int64_t> scratch_floats(const ModelConfig& config, const MemoryPlanInput& input);

}  // namespace lathe
