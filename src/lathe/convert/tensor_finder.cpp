#include "lathe/convert/tensor_finder.h"

#include <cmath>

#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/formats/layer_name.h"
#include "lathe/formats/quant/quantise.h"
#include "lathe/tensor/matrix.h"

namespace lathe::convert {

namespace {

std::string shape_text(int64_t rows, int64_t cols) {
  return rows == 0 ? str("[", cols, "]") : str("[", rows, ", ", cols, "]");
}

}  // namespace

Result<std::shared_ptr<const std::vector<float>>> TensorFinder::fp8_scales(const StoredTensor& tensor) const {
  const std::string name = tensor.name + "_scale_inv";
  const StoredTensor* scales = checkpoint_.find(name);
  if (scales == nullptr) {
    log_warning(tensor.name, ": F8_E4M3 without ", name, ", taken with scale 1");
    return std::shared_ptr<const std::vector<float>>();
  }
  const int64_t cols = columns_of(tensor);
  const int64_t rows = tensor.elements() / std::max<int64_t>(cols, 1);
  const std::vector<int64_t> expected{(rows + kFp8Block - 1) / kFp8Block, (cols + kFp8Block - 1) / kFp8Block};
  const bool plain = scales->dtype == DType::kF32 || scales->dtype == DType::kBF16 || scales->dtype == DType::kF16;
  if (scales->shape != expected || !plain) {
    return Error{Errc::kInvalidData,
                 str(name,
                     ": expected ",
                     expected,
                     " of F32, F16 or BF16, found ",
                     scales->shape,
                     " of ",
                     dtype_name(scales->dtype))};
  }
  auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(scales->elements()));
  decode_row(scales->dtype, scales->bytes.data(), *values);
  for (size_t i = 0; i < values->size(); ++i) {
    const float value = (*values)[i];
    if (std::isfinite(value) && value >= 0.0F) continue;
    return Error{Errc::kInvalidData,
                 str(name, ": expected finite scales, not negative, found ", value, " at block ", i)};
  }
  return std::shared_ptr<const std::vector<float>>(std::move(values));
}

Result<Part> TensorFinder::part(const StoredTensor& tensor) const {
  Part out;
  out.tensor = &tensor;
  out.count = tensor.elements() / std::max<int64_t>(columns_of(tensor), 1);
  if (tensor.dtype == DType::kF8E4M3) {
    LATHE_TRY(out.scales, fp8_scales(tensor));
  }
  return out;
}

Result<Part> TensorFinder::part(const std::string& name, int64_t rows, int64_t cols) const {
  const StoredTensor* tensor = checkpoint_.find(name);
  if (tensor == nullptr) {
    return Error{Errc::kNotFound,
                 str(checkpoint_.folder(), ": expected tensor ", name, " of ", shape_text(rows, cols), ", found none")};
  }
  const std::vector<int64_t> expected = rows == 0 ? std::vector{cols} : std::vector{rows, cols};
  if (tensor->shape != expected) {
    return Error{Errc::kInvalidData,
                 str(checkpoint_.file_of(*tensor), ": ", name, ": expected ", expected, ", found ", tensor->shape)};
  }
  return part(*tensor);
}

Result<RowsPtr> TensorFinder::whole(const StoredTensor& tensor) const {
  LATHE_TRY(Part all, part(tensor));
  return stacked_rows({std::move(all)});
}

Result<RowsPtr> TensorFinder::joined_kv_b(const std::string& prefix) const {
  const ModelConfig& c = config_;
  const int64_t heads = c.num_attention_heads;
  LATHE_TRY(Part k, part(prefix + "k_b_proj.weight", heads * c.kv_lora_rank, c.qk_nope_head_dim));
  LATHE_TRY(Part v, part(prefix + "v_b_proj.weight", heads * c.v_head_dim, c.kv_lora_rank));
  LATHE_TRY(RowsPtr k_rows, stacked_rows({std::move(k)}));
  LATHE_TRY(RowsPtr v_rows, stacked_rows({std::move(v)}));
  RowsPtr keys = transposed_heads(std::move(k_rows),
                                  {.heads = heads, .stride = c.kv_lora_rank, .offset = 0, .count = c.kv_lora_rank});
  return interleaved_heads(std::move(keys), c.qk_nope_head_dim, std::move(v_rows), c.v_head_dim, heads);
}

Result<RowsPtr> TensorFinder::find(const std::string& name, int64_t rows, int64_t cols) const {
  constexpr std::string_view kJoined = "kv_b_proj.weight";
  if (name.ends_with(kJoined) && !has(name)) {
    const std::string prefix = name.substr(0, name.size() - kJoined.size());
    if (has(prefix + "k_b_proj.weight")) return joined_kv_b(prefix);
  }
  // model.layers.I.mlp.experts.E.PROJ.weight where experts are stacked
  const size_t at = name.find(".mlp.experts.");
  if (at != std::string::npos && !has(name)) {
    const size_t begin = at + std::string_view(".mlp.experts.").size();
    const size_t dot = name.find('.', begin);
    int64_t expert = -1;
    const int64_t layer = split_layer_name(name).layer;
    if (dot != std::string::npos && layer >= 0 && name.ends_with(".weight") &&
        parse_int(name.substr(begin, dot - begin), expert)) {
      const std::string projection = name.substr(dot + 1, name.size() - dot - 1 - std::string_view(".weight").size());
      const std::string stack = str(layer_prefix(layer), "mlp.experts.", projection == "down_proj" ? "" : "gate_up_");
      if (has(stack + (projection == "down_proj" ? "down_proj" : "proj")) && expert < config_.n_routed_experts) {
        LATHE_TRY(RowsPtr all, experts(layer, projection, rows, cols));
        std::vector<int64_t> order(static_cast<size_t>(rows));
        for (int64_t r = 0; r < rows; ++r) order[static_cast<size_t>(r)] = expert * rows + r;
        return reordered_rows(std::move(all), std::move(order));
      }
    }
  }
  LATHE_TRY(Part one, part(name, rows, cols));
  return stacked_rows({std::move(one)});
}

Result<RowsPtr> TensorFinder::experts(int64_t layer, const std::string& projection, int64_t rows, int64_t cols) const {
  const std::string prefix = layer_prefix(layer) + "mlp.experts.";
  const int64_t count = config_.n_routed_experts;
  const bool down = projection == "down_proj";
  const StoredTensor* stack = checkpoint_.find(prefix + (down ? "down_proj" : "gate_up_proj"));
  std::vector<Part> parts;
  if (stack == nullptr) {
    parts.reserve(static_cast<size_t>(count));
    for (int64_t e = 0; e < count; ++e) {
      LATHE_TRY(Part one, part(str(prefix, e, ".", projection, ".weight"), rows, cols));
      parts.push_back(std::move(one));
    }
    return stacked_rows(std::move(parts));
  }
  const std::vector<int64_t> expected{count, down ? rows : 2 * rows, cols};
  if (stack->shape != expected) {
    return Error{Errc::kInvalidData, str(stack->name, ": expected ", expected, ", found ", stack->shape)};
  }
  LATHE_TRY(const Part all, part(*stack));
  for (int64_t e = 0; e < count; ++e) {
    Part one = all;
    one.first = down ? e * rows : e * 2 * rows + (projection == "up_proj" ? rows : 0);
    one.count = rows;
    parts.push_back(std::move(one));
  }
  return stacked_rows(std::move(parts));
}

Result<RowsPtr> TensorFinder::key_half(int64_t layer) const {
  const ModelConfig& c = config_;
  const std::string prefix = layer_prefix(layer) + "self_attn.";
  const int64_t heads = c.num_attention_heads;
  if (has(prefix + "k_b_proj.weight")) {
    return find(prefix + "k_b_proj.weight", heads * c.kv_lora_rank, c.qk_nope_head_dim);
  }
  const int64_t stride = c.qk_nope_head_dim + c.v_head_dim;
  LATHE_TRY(RowsPtr both, find(prefix + "kv_b_proj.weight", heads * stride, c.kv_lora_rank));
  return transposed_heads(std::move(both),
                          {.heads = heads, .stride = stride, .offset = 0, .count = c.qk_nope_head_dim});
}

Result<RowsPtr> TensorFinder::value_half(int64_t layer) const {
  const ModelConfig& c = config_;
  const std::string prefix = layer_prefix(layer) + "self_attn.";
  const int64_t heads = c.num_attention_heads;
  if (has(prefix + "v_b_proj.weight")) {
    return find(prefix + "v_b_proj.weight", heads * c.v_head_dim, c.kv_lora_rank);
  }
  const int64_t stride = c.qk_nope_head_dim + c.v_head_dim;
  LATHE_TRY(RowsPtr both, find(prefix + "kv_b_proj.weight", heads * stride, c.kv_lora_rank));
  std::vector<int64_t> order;
  order.reserve(static_cast<size_t>(heads * c.v_head_dim));
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t v = 0; v < c.v_head_dim; ++v) order.push_back(h * stride + c.qk_nope_head_dim + v);
  }
  return reordered_rows(std::move(both), std::move(order));
}

}  // namespace lathe::convert
