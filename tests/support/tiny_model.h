// TinyModel: a random checkpoint folder for any configuration, small enough to make and open within milliseconds.
// Tensors can be changed, removed and added before it is written.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/model/cpu_backend.h"
#include "lathe/model/decoder.h"
#include "lathe/model/shapes.h"
#include "lathe/model/weights.h"

namespace lathe::testing {

struct TinyTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<float> values;  // rounded to dtype when written

  std::vector<std::byte> bytes() const {
    std::vector<std::byte> out(values.size() * static_cast<size_t>(dtype_size(dtype)));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto put = [&](auto stored) { std::memcpy(out.data() + i * sizeof stored, &stored, sizeof stored); };
      if (dtype == DType::kF32) put(values[i]);
      if (dtype == DType::kBF16) put(float_to_bf16(values[i]));
      if (dtype == DType::kF16) put(float_to_f16(values[i]));
      if (dtype == DType::kF8E4M3) put(float_to_e4m3(values[i]));
      if (dtype == DType::kI32) put(static_cast<int32_t>(values[i]));
    }
    return out;
  }
};

// A configuration of the V2 kind with every feature on: query compression, groups, shared experts, YaRN, one dense
// layer. No two widths are equal, so that a transposed or misplaced one shows.
inline Json tiny_v2_config() {
  return parse_json(R"({
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "vocab_size": 40, "hidden_size": 26,
    "intermediate_size": 30, "moe_intermediate_size": 11, "num_hidden_layers": 3, "num_attention_heads": 3,
    "num_key_value_heads": 3, "q_lora_rank": 17, "kv_lora_rank": 14, "qk_nope_head_dim": 9, "qk_rope_head_dim": 4,
    "v_head_dim": 7, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 4,
    "topk_group": 2, "topk_method": "group_limited_greedy", "scoring_func": "softmax", "norm_topk_prob": false,
    "routed_scaling_factor": 3.0, "first_k_dense_replace": 1, "moe_layer_freq": 1, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 512,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 16, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707},
    "attention_bias": false, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})")
      .value();
}

// The same size as V3: sigmoid gate with correction bias, normalised and scaled weights.
inline Json tiny_v3_config() {
  Json json = tiny_v2_config();
  json.set("architectures", Json::list(std::vector<std::string>{"DeepseekV3ForCausalLM"}));
  json.set("model_type", "deepseek_v3");
  json.set("topk_method", "noaux_tc");
  json.set("scoring_func", "sigmoid");
  json.set("norm_topk_prob", true);
  json.set("n_shared_experts", 1);
  return json;
}

// Plain attention with query heads in groups.
inline Json tiny_llama_config() {
  return parse_json(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 24,
    "intermediate_size": 30, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000, "max_position_embeddings": 256,
    "attention_bias": false, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})")
      .value();
}

class TinyModel {
 public:
  // All tensors the configuration demands, optional ones and those of a multi-token prediction layer included, as
  // random F32.
  explicit TinyModel(Json json, uint64_t seed = 1) : json_(std::move(json)) {
    Rng rng(seed);
    std::vector<ExpectedTensor> all = expected_tensors(config());
    std::ranges::move(expected_mtp_tensors(config()), std::back_inserter(all));
    for (const ExpectedTensor& expected : all) {
      TinyTensor tensor{.dtype = DType::kF32, .shape = expected.shape, .values = {}};
      size_t size = 1;
      for (const int64_t extent : expected.shape) size *= static_cast<size_t>(extent);
      const bool is_norm = expected.name.ends_with("norm.weight");
      const bool is_vector = expected.shape.size() == 1;
      const double deviation = is_vector ? 0.2 : 1.3 / std::sqrt(static_cast<double>(expected.shape.back()));
      for (size_t i = 0; i < size; ++i) {
        tensor.values.push_back(static_cast<float>((is_norm ? 1.0 : 0.0) + deviation * rng.next_normal()));
      }
      tensors.emplace(expected.name, std::move(tensor));
    }
  }

  ModelConfig config() const {
    const Result<ParsedConfig> parsed = parse_config(json_);
    EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
    return parsed->config;
  }

  TinyTensor& at(const std::string& name) { return tensors.at(name); }

  // Makes a projection FP8: codes with a random scale per block of 128 x 128.
  void quantise(const std::string& name, uint64_t seed = 7) {
    TinyTensor& tensor = at(name);
    Rng rng(seed);
    const int64_t cols = tensor.shape[1];
    TinyTensor scales{.dtype = DType::kF32, .shape = {(tensor.shape[0] + 127) / 128, (cols + 127) / 128}, .values = {}};
    for (int64_t i = 0; i < scales.shape[0] * scales.shape[1]; ++i) {
      scales.values.push_back(static_cast<float>(0.01 + 0.02 * rng.next_uniform()));
    }
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      tensor.values[i] /= scales.values[static_cast<size_t>((at / cols / 128) * scales.shape[1] + at % cols / 128)];
    }
    tensor.dtype = DType::kF8E4M3;
    tensors.emplace(name + "_scale_inv", std::move(scales));
  }

  // config.json and model.safetensors.
  void write(const std::filesystem::path& folder) const {
    std::ofstream(folder / "config.json") << json_.dump(2);
    std::vector<std::vector<std::byte>> bytes;
    std::vector<StoredTensor> stored;
    for (const auto& [name, tensor] : tensors) {
      bytes.push_back(tensor.bytes());
      stored.push_back({.name = name, .dtype = tensor.dtype, .shape = tensor.shape, .bytes = bytes.back()});
    }
    const Status status = write_safetensors(folder / "model.safetensors", stored);
    EXPECT_TRUE(status.has_value()) << (status ? "" : status.error().message);
  }

  std::map<std::string, TinyTensor> tensors;

 private:
  Json json_;
};

// A model with a multi-token prediction layer in which token t is followed by 7 t + 3, as the layer says too: always
// where `noise` is 0, the less often the more all else (attention, feed-forward, h in the layer) has a say.
inline TinyModel predictable_model(double noise, uint64_t seed = 1) {
  Json json = tiny_v3_config();
  json.set("num_nextn_predict_layers", 1);
  TinyModel model(json, seed);
  const ModelConfig config = model.config();
  const auto d = static_cast<size_t>(config.hidden_size);
  const auto vocab = static_cast<size_t>(config.vocab_size);
  for (auto& [name, tensor] : model.tensors) {
    if (name.ends_with("norm.weight")) std::ranges::fill(tensor.values, 1.0F);
    if (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") || name.ends_with("eh_proj.weight")) {
      for (float& value : tensor.values) value *= static_cast<float>(noise);
    }
  }
  std::vector<float>& embedding = model.at("model.embed_tokens.weight").values;
  std::vector<float>& head = model.at("lm_head.weight").values;
  for (size_t id = 0; id < vocab; ++id) {
    const std::span<float> row(embedding.data() + id * d, d);
    double squares = 0.0;
    for (const float value : row) squares += static_cast<double>(value) * value;
    for (float& value : row) value /= static_cast<float>(std::sqrt(squares));
    std::ranges::copy(row, head.begin() + static_cast<int64_t>((7 * id + 3) % vocab * d));
  }
  // The embedding half of W^eh is what it is without noise: one.
  std::vector<float>& joined = model.at(str("model.layers.", config.num_hidden_layers, ".eh_proj.weight")).values;
  for (size_t i = 0; i < d; ++i) joined[i * 2 * d + i] += 1.0F;
  return model;
}

// The weights of a checkpoint folder, bound to its configuration.
inline Result<std::unique_ptr<const ModelWeights>> open_weights(const std::filesystem::path& folder,
                                                                MtpLayer mtp = MtpLayer::kSkip) {
  LATHE_TRY(const ParsedConfig parsed, load_config(folder));
  LATHE_TRY(Checkpoint checkpoint, Checkpoint::open(folder));
  return ModelWeights::bind(parsed.config, std::make_shared<const Checkpoint>(std::move(checkpoint)), nullptr, mtp);
}

struct Forward {
  std::vector<float> logits;  // [T, V]
  ForwardTrace trace;
};

// One step over `ids` as a fresh sequence through any backend. `pages` may be empty for backends without a cache.
inline Forward forward_once(const ModelConfig& config,
                            Backend& backend,
                            std::span<const int32_t> ids,
                            std::span<std::byte* const> pages,
                            int64_t expanded_until = 0) {
  Result<Decoder> decoder = Decoder::create(config, backend);
  std::vector<int64_t> rows;
  for (size_t i = 0; i < ids.size(); ++i) rows.push_back(static_cast<int64_t>(i));
  const SequenceChunk chunk{.sequence = 1,
                            .first_row = 0,
                            .tokens = static_cast<int64_t>(ids.size()),
                            .position = 0,
                            .expanded_until = expanded_until,
                            .pages = pages};
  Forward out;
  out.logits.resize(ids.size() * static_cast<size_t>(config.vocab_size));
  decoder->forward({.token_ids = ids, .chunks = {&chunk, 1}, .logit_rows = rows}, out.logits.data(), &out.trace);
  return out;
}

// The same on the CPU with an F32 cache of its own.
inline Forward forward_on_cpu(const ModelWeights& weights, std::span<const int32_t> ids, int64_t expanded_until = 0) {
  const ModelConfig& config = weights.config();
  const CacheLayout layout{
      .format = CacheFormat::kF32, .row_elements = config.cache_row_elements(), .layers = config.num_hidden_layers};
  const size_t count = (ids.size() + 63) / 64;
  std::vector<std::byte> memory(count * static_cast<size_t>(layout.page_bytes()));
  std::vector<std::byte*> pages;
  for (size_t i = 0; i < count; ++i) pages.push_back(memory.data() + i * static_cast<size_t>(layout.page_bytes()));
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(2).value();
  const std::unique_ptr<CpuBackend> backend =
      CpuBackend::create(weights, layout, *pool, kernels(), static_cast<int64_t>(ids.size())).value();
  return forward_once(config, *backend, ids, pages, expanded_until);
}

// Random ids of the model's vocabulary.
inline std::vector<int32_t> random_ids(const ModelConfig& config, int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(rng.next_int(0, config.vocab_size - 1)));
  return ids;
}

}  // namespace lathe::testing
