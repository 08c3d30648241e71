#include "lathe/formats/quant/recipe.h"

#include <array>

#include "lathe/base/ascii.h"
#include "lathe/base/check.h"
#include "lathe/formats/layer_name.h"

namespace lathe {

namespace {

struct TypeEntry {
  QuantType type;
  std::string_view name;
  DType base;          // of matrices that no rule singles out
  uint32_t file_type;  // general.file_type
};

constexpr std::array<TypeEntry, 11> kTypes{{{QuantType::kF32, "f32", DType::kF32, 0},
                                            {QuantType::kF16, "f16", DType::kF16, 1},
                                            {QuantType::kBF16, "bf16", DType::kBF16, 32},
                                            {QuantType::kQ8_0, "q8_0", DType::kQ8_0, 7},
                                            {QuantType::kQ4_0, "q4_0", DType::kQ4_0, 2},
                                            {QuantType::kQ4_1, "q4_1", DType::kQ4_1, 3},
                                            {QuantType::kQ5_0, "q5_0", DType::kQ5_0, 8},
                                            {QuantType::kQ5_1, "q5_1", DType::kQ5_1, 9},
                                            {QuantType::kQ4_K_M, "q4_k_m", DType::kQ4_K, 15},
                                            {QuantType::kQ5_K_M, "q5_k_m", DType::kQ5_K, 17},
                                            {QuantType::kQ6_K, "q6_k", DType::kQ6_K, 18}}};

// The table is indexed by the enumerator.
constexpr bool in_order() {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (static_cast<size_t>(kTypes[i].type) != i) return false;
  }
  return true;
}

static_assert(in_order());

const TypeEntry& entry(QuantType type) {
  const auto index = static_cast<size_t>(type);
  LATHE_CHECK(index < kTypes.size(), "quant type ", index);
  return kTypes[index];
}

enum class Role { kExact, kMatrix, kEmbedding, kHead, kKey, kValue, kLatent, kOutput, kDown };

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

Role role_of(const RecipeTensor& t) {
  const std::string_view name = t.name;
  if (t.rows <= 0 || name.ends_with(".bias") || name.ends_with("mlp.gate.weight") ||
      name.ends_with("e_score_correction_bias") || contains(name, "norm.weight")) {
    return Role::kExact;
  }
  if (name.ends_with("lm_head.weight")) return Role::kHead;
  if (name.ends_with("embed_tokens.weight")) return t.tied_head ? Role::kHead : Role::kEmbedding;
  if (contains(name, "down_proj")) return Role::kDown;
  if (contains(name, "self_attn.v_proj")) return Role::kValue;
  if (contains(name, "self_attn.kv_") || contains(name, "self_attn.k_b_") || contains(name, "self_attn.v_b_")) {
    return Role::kLatent;
  }
  if (contains(name, "self_attn.k_proj")) return Role::kKey;
  if (contains(name, "self_attn.o_proj")) return Role::kOutput;
  return Role::kMatrix;
}

// The first and last eighth of the layers, and every third between.
bool gets_more_bits(int64_t layer, int64_t layers) {
  if (layer < 0) return false;
  const int64_t eighth = layers / 8;
  return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
}

// Models of eight experts are large in their experts and small in their attention: it gets 8 bits.
constexpr int64_t kExpertsOfLargeExperts = 8;

DType wanted(QuantType type, DType base, Role role, const RecipeTensor& t) {
  const bool mixed = type == QuantType::kQ4_K_M || type == QuantType::kQ5_K_M;
  const bool more = mixed && gets_more_bits(split_layer_name(t.name).layer, t.layers);
  const bool few_experts = t.experts == kExpertsOfLargeExperts;
  switch (role) {
    case Role::kHead:
      return base == DType::kQ8_0 || t.cols % block_elements(base) != 0 ? DType::kQ8_0 : DType::kQ6_K;
    case Role::kValue:
      if (few_experts) return DType::kQ8_0;
      return more ? DType::kQ6_K : base;
    case Role::kLatent:
      if (few_experts) return DType::kQ8_0;
      return mixed ? DType::kQ6_K : base;
    case Role::kKey:
      return few_experts ? DType::kQ8_0 : base;
    case Role::kOutput:
      return few_experts && type == QuantType::kQ4_K_M ? DType::kQ5_K : base;
    case Role::kDown:
      return more ? DType::kQ6_K : base;
    case Role::kExact:
    case Role::kMatrix:
    case Role::kEmbedding:
      break;
  }
  return base;
}

// The next best type whose blocks divide a row.
DType fitting(DType format, int64_t cols) {
  if (cols % block_elements(format) == 0) return format;
  switch (format) {
    case DType::kQ4_K:
      format = DType::kQ5_0;
      break;
    case DType::kQ5_K:
      format = DType::kQ5_1;
      break;
    case DType::kQ6_K:
      format = DType::kQ8_0;
      break;
    default:
      break;
  }
  return cols % block_elements(format) == 0 ? format : DType::kF16;
}

}  // namespace

std::optional<QuantType> quant_type_from_name(std::string_view name) {
  const std::string small = ascii_lowered(name);
  for (const TypeEntry& e : kTypes) {
    if (e.name == small) return e.type;
  }
  return std::nullopt;
}

std::string_view quant_type_name(QuantType type) {
  return entry(type).name;
}

const std::vector<std::string>& quant_type_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const TypeEntry& e : kTypes) out.emplace_back(e.name);
    return out;
  }();
  return names;
}

uint32_t gguf_file_type(QuantType type) {
  return entry(type).file_type;
}

DType format_of(QuantType type, const RecipeTensor& tensor) {
  const Role role = role_of(tensor);
  if (role == Role::kExact) return DType::kF32;
  const DType base = entry(type).base;
  if (!is_block_format(base)) return base;
  return fitting(wanted(type, base, role, tensor), tensor.cols);
}

}  // namespace lathe
