#include "lathe/model/memory_plan.h"

#include <algorithm>
#include <cmath>

#include "lathe/base/str.h"
#include "lathe/model/shapes.h"
#include "lathe/model/shapes_counts.h"

namespace lathe {
namespace {

constexpr int64_t kFp8Block = 128;
constexpr int64_t kFloatBytes = 4;

Status check_range(std::string_view name, int64_t value, int64_t greatest) {
  if (value >= 1 && value <= greatest) return {};
  return Error{Errc::kInvalidArgument, str(name, ": expected from 1 to ", greatest, ", found ", value)};
}

Status check_input(const MemoryPlanInput& input) {
  LATHE_TRY(check_range("context", input.context, int64_t{1} << 31));
  LATHE_TRY(check_range("cache page", input.cache_page_tokens, 65536));
  LATHE_TRY(check_range("batch tokens", input.max_batch_tokens, int64_t{1} << 20));
  LATHE_TRY(check_range("threads", input.threads, 4096));
  if (input.scratch_floats && *input.scratch_floats < 0) {
    return Error{Errc::kInvalidArgument, str("scratch floats: expected at least 0, found ", *input.scratch_floats)};
  }
  return {};
}

int64_t blocks(int64_t size) {
  return (size + kFp8Block - 1) / kFp8Block;
}

std::optional<int64_t> cache_bytes(const ModelConfig& config, const MemoryPlanInput& input) {
  CacheLayout layout{
      .format = input.cache_format, .row_elements = config.cache_row_elements(), .layers = config.num_hidden_layers};
  if (input.mtp == MtpLayer::kUse) layout = with_mtp_layer(layout, config);
  const int64_t row = cache_row_bytes(layout.format, layout.row_elements);
  const int64_t pages = (input.context + input.cache_page_tokens - 1) / input.cache_page_tokens;
  return CheckedSum().add({pages, input.cache_page_tokens, layout.layers, row}).add({pages, layout.tail_bytes}).value();
}

Error too_large(std::string_view what) {
  return {Errc::kResourceExhausted, str(what, ": expected a size below 2^63 bytes, found more")};
}

}  // namespace

uint64_t assumed_weight_bytes(const ModelConfig& config) {
  const int64_t wide = config.dtype == "float32" ? 4 : config.dtype == "float64" ? 8 : 2;
  CheckedSum bytes;  // cannot overflow: kMaxParameters elements of 8 bytes are 2^53
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    if (tensor.optional) continue;
    if (tensor.shape.size() == 1) {
      const bool bias = tensor.name.ends_with(".e_score_correction_bias");
      bytes.add({tensor.shape[0], bias ? kFloatBytes : wide});
    } else if (config.fp8 && tensor.quantisable) {
      bytes.add({tensor.shape[0], tensor.shape[1]});
      bytes.add({blocks(tensor.shape[0]), blocks(tensor.shape[1]), kFloatBytes});
    } else {
      bytes.add({tensor.shape[0], tensor.shape[1], wide});
    }
  }
  return static_cast<uint64_t>(bytes.value().value_or(0));
}

std::optional<int64_t> scratch_floats(const ModelConfig& c, const MemoryPlanInput& input) {
  const int64_t H = c.num_attention_heads;
  const int64_t page = input.cache_page_tokens;
  CheckedSum token;  // floats per token of the batch
  token.add({3, c.hidden_size});
  int64_t expanded = 0;  // k and v of one head and token
  if (c.attention == AttentionKind::kMla) {
    const int64_t latent = c.kv_lora_rank + c.qk_rope_head_dim;
    token.add({H, c.qk_head_dim()}).add({2, H, latent}).add({H, c.v_head_dim}).add({c.q_lora_rank}).add({latent});
    expanded = c.qk_head_dim() + c.v_head_dim;
  } else {
    token.add({2, H, c.head_dim}).add({2, c.num_key_value_heads, c.head_dim});
    expanded = 2 * c.head_dim;
  }
  const int64_t dense = 2 * c.intermediate_size;
  const int64_t expert = 2 * c.moe_intermediate_size + c.hidden_size;
  const int64_t moe =
      c.n_routed_experts + c.num_experts_per_tok * expert + 2 * c.n_shared_experts * c.moe_intermediate_size;
  token.add({std::max(dense, moe)});

  CheckedSum sum;
  sum.add(token, input.max_batch_tokens);
  sum.add({input.threads, page, expanded}).add({input.threads, 2, H, page});
  sum.add({2, c.vocab_size});
  return sum.value();
}

Result<MemoryPlan> plan_memory(const ModelConfig& config, const MemoryPlanInput& input) {
  LATHE_TRY(check_input(input));
  MemoryPlan plan;
  plan.weights = input.weight_bytes ? *input.weight_bytes : assumed_weight_bytes(config);

  const std::optional<int64_t> cache = cache_bytes(config, input);
  if (!cache) return too_large("cache");
  plan.cache = static_cast<uint64_t>(*cache);

  const std::optional<int64_t> floats = input.scratch_floats ? input.scratch_floats : scratch_floats(config, input);
  std::optional<int64_t> scratch;
  if (floats) scratch = CheckedSum().add({*floats, kFloatBytes}).value();
  if (!scratch) return too_large("scratch");
  plan.scratch = static_cast<uint64_t>(*scratch);

  if (__builtin_add_overflow(plan.weights, plan.cache, &plan.total) ||
      __builtin_add_overflow(plan.total, plan.scratch, &plan.total)) {
    return too_large("total");
  }
  return plan;
}

}  // namespace lathe
