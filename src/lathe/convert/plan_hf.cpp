// Which tensors a folder in HuggingFace layout gets.
#include <array>

#include "lathe/base/str.h"
#include "lathe/convert/plan.h"
#include "lathe/convert/tensor_finder.h"
#include "lathe/model/shapes.h"

namespace lathe::convert {

namespace {

bool is_correction_bias(std::string_view name) {
  return name.ends_with("e_score_correction_bias");
}

// The inverse of what GGUF files do to the rows of q and k of plain attention: adjacent pairs to first and second
// halves of each head.
RowsPtr halves_of_pairs(RowsPtr rows, int64_t head_dim) {
  std::vector<int64_t> order;
  order.reserve(static_cast<size_t>(rows->rows()));
  for (int64_t head = 0; head < rows->rows(); head += head_dim) {
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t i = 0; i < head_dim / 2; ++i) order.push_back(head + 2 * i + half);
    }
  }
  return reordered_rows(std::move(rows), std::move(order));
}

}  // namespace

DType usual_dtype(const Checkpoint& checkpoint) {
  constexpr std::array<DType, 3> kPlain{DType::kF32, DType::kF16, DType::kBF16};
  std::array<int64_t, 3> counts{};
  int64_t others = 0;
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    bool plain = false;
    for (size_t i = 0; i < kPlain.size(); ++i) {
      if (tensor->dtype != kPlain[i]) continue;
      counts[i] += tensor->elements();
      plain = true;
    }
    if (!plain) others += tensor->elements();
  }
  for (size_t i = 0; i < kPlain.size(); ++i) {
    if (counts[i] > others && counts[i] > counts[(i + 1) % 3] && counts[i] > counts[(i + 2) % 3]) return kPlain[i];
  }
  return DType::kBF16;
}

Result<std::vector<OutputTensor>> plan_hf(const Checkpoint& checkpoint,
                                          const ModelConfig& config,
                                          bool from_gguf,
                                          DType dtype) {
  const TensorFinder finder(checkpoint, config);
  const bool pairs = from_gguf && config.attention == AttentionKind::kGqa;
  std::vector<OutputTensor> out;
  const auto type_of = [&](std::string_view name) { return is_correction_bias(name) ? DType::kF32 : dtype; };
  if (!from_gguf) {
    constexpr std::string_view kScales = "_scale_inv";
    for (const StoredTensor* tensor : checkpoint.tensors()) {
      const std::string& name = tensor->name;
      if (name.ends_with("rotary_emb.inv_freq")) continue;
      if (name.ends_with(kScales) &&
          checkpoint.find(std::string_view(name).substr(0, name.size() - kScales.size())) != nullptr) {
        continue;
      }
      LATHE_TRY(RowsPtr rows, finder.whole(*tensor));
      out.push_back({name, type_of(name), tensor->shape, std::move(rows)});
    }
    return out;
  }
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    if (expected.optional && !finder.has(expected.name)) continue;
    const bool is_matrix = expected.shape.size() == 2;
    LATHE_TRY(RowsPtr rows, finder.find(expected.name, is_matrix ? expected.shape[0] : 0, expected.shape.back()));
    if (pairs && is_matrix &&
        (expected.name.ends_with("self_attn.q_proj.weight") || expected.name.ends_with("self_attn.k_proj.weight"))) {
      rows = halves_of_pairs(std::move(rows), config.head_dim);
    }
    out.push_back({expected.name, type_of(expected.name), expected.shape, std::move(rows)});
  }
  return out;
}

}  // namespace lathe::convert
