// Recipes: which stored type each tensor of a model gets under a type that a user names ("q4_k_m"). The mixes are those
// that GGUF files of these names have: norms, router and biases stay exact, the head gets more bits, and in the *_k_m
// types so do the values and down projections of some layers. One thing is added: in the *_k_m types all that makes and
// reads latents gets more bits in every layer, a few thousandths of the weights that every cached token goes through.
// docs/formats.md has the table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/tensor/dtype.h"

namespace lathe {

// What --type names. The first three convert without quantising.
enum class QuantType { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K_M, kQ5_K_M, kQ6_K };

// "q4_k_m" -> kQ4_K_M, in small or capital letters; nothing for an unknown name.
std::optional<QuantType> quant_type_from_name(std::string_view name);
// "q4_k_m"
std::string_view quant_type_name(QuantType type);
// Every name, in the order of the enumerators: for messages and help.
const std::vector<std::string>& quant_type_names();
// general.file_type of a GGUF file of that type.
uint32_t gguf_file_type(QuantType type);

// What a recipe looks at. Stacked experts have the columns of one expert and the name of any of them, or the stacked
// name ("model.layers.3.mlp.experts.down_proj"). The halves of kv_b_proj, where they are stored apart, are called
// "self_attn.k_b_proj.weight" (columns: qk_nope_head_dim) and "self_attn.v_b_proj.weight".
struct RecipeTensor {
  std::string_view name;   // HuggingFace's, e.g. "model.layers.3.mlp.down_proj.weight"
  int64_t rows = 0;        // 0: a vector
  int64_t cols = 0;        // the dimension along which blocks lie
  int64_t layers = 0;      // num_hidden_layers
  int64_t experts = 0;     // n_routed_experts
  bool tied_head = false;  // the embedding is the head too
};

// The type to store the tensor in. Vectors, norms, biases and the router are F32 under every type. Where the columns
// are not whole blocks, the next best: Q4_K -> Q5_0, Q5_K -> Q5_1, Q6_K -> Q8_0, and F16 where 32 does not divide them.
DType format_of(QuantType type, const RecipeTensor& tensor);

}  // namespace lathe
