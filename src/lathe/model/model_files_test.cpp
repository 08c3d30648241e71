#include "lathe/model/model_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lathe/base/str.h"
#include "lathe/formats/gguf.h"
#include "lathe/formats/gguf_tokenizer.h"
#include "lathe/model/shapes.h"
#include "support/gguf_model.h"
#include "support/golden_file.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using testing::forward_on_cpu;
using testing::gguf_of;
using testing::GgufDraft;
using testing::golden_dir;
using testing::LatentForm;
using testing::random_ids;
using testing::TempDir;
namespace fs = std::filesystem;

constexpr const char* kMlaModels[] = {"v2-tiny", "v2lite-tiny", "v3-tiny"};
constexpr const char* kPlainModels[] = {"llama-gqa-tiny", "llama-mqa-tiny", "deepseek-moe-tiny"};

ModelFiles opened(const fs::path& path) {
  Result<ModelFiles> files = ModelFiles::open(path);
  EXPECT_TRUE(files.has_value()) << (files ? "" : files.error().message);
  return std::move(*files);
}

ParsedConfig config_of(const fs::path& path) {
  Result<ParsedConfig> parsed = opened(path).config();
  EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : parsed.error().message);
  return parsed ? *parsed : ParsedConfig{};
}

Checkpoint checkpoint_of(const fs::path& path) {
  Result<Checkpoint> checkpoint = opened(path).checkpoint();
  EXPECT_TRUE(checkpoint.has_value()) << (checkpoint ? "" : checkpoint.error().message);
  return std::move(*checkpoint);
}

std::string config_error(const fs::path& path) {
  const Result<ModelFiles> files = ModelFiles::open(path);
  if (!files) return files.error().message;
  const Result<ParsedConfig> parsed = files->config();
  return parsed ? "accepted" : parsed.error().message;
}

bool equal_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// What a converted file says of a configuration: multi-token prediction layers are left out, and the rows of q and k of
// plain attention are in adjacent pairs.
ModelConfig as_converted(ModelConfig config) {
  config.num_nextn_predict_layers = 0;
  config.rope_layout = RopeLayout::kInterleaved;
  return config;
}

TEST(ModelFiles, GgufConfigEqualsTheFolders) {
  const TempDir dir;
  for (const auto& names : {std::vector<const char*>(std::begin(kMlaModels), std::end(kMlaModels)),
                            std::vector<const char*>(std::begin(kPlainModels), std::end(kPlainModels))}) {
    for (const char* name : names) {
      for (const LatentForm form : {LatentForm::kJoint, LatentForm::kSplit}) {
        SCOPED_TRACE(name);
        gguf_of(golden_dir() / name, {.latent = form}).write(dir / "m.gguf");
        const ParsedConfig converted = config_of(dir / "m.gguf");
        const ModelConfig expected = as_converted(config_of(golden_dir() / name).config);
        EXPECT_TRUE(converted.config == expected);
        EXPECT_EQ(converted.config.rope_scaling.mscale_all_dim, expected.rope_scaling.mscale_all_dim);
        EXPECT_EQ(converted.config.rms_norm_eps, expected.rms_norm_eps);
        EXPECT_EQ(converted.config.topk_group, expected.topk_group);
        EXPECT_TRUE(converted.warnings.empty()) << converted.warnings.front();
      }
    }
  }
}

TEST(ModelFiles, GgufTensorsEqualTheFolders) {
  const TempDir dir;
  for (const char* name : kMlaModels) {
    for (const bool fused : {false, true}) {
      SCOPED_TRACE(name);
      gguf_of(golden_dir() / name, {.latent = LatentForm::kJoint, .fused_gate_up = fused}).write(dir / "m.gguf");
      const Checkpoint folder = checkpoint_of(golden_dir() / name);
      const Checkpoint converted = checkpoint_of(dir / "m.gguf");
      for (const ExpectedTensor& expected : expected_tensors(config_of(dir / "m.gguf").config)) {
        const StoredTensor* ours = converted.find(expected.name);
        const StoredTensor* theirs = folder.find(expected.name);
        ASSERT_NE(ours, nullptr) << expected.name;
        EXPECT_EQ(ours->shape, expected.shape) << expected.name;
        EXPECT_EQ(ours->dtype, theirs->dtype) << expected.name;
        EXPECT_TRUE(equal_bytes(ours->bytes, theirs->bytes)) << expected.name;
        EXPECT_EQ(converted.file_of(*ours), dir / "m.gguf");
      }
    }
  }
}

// Element (row, column) of a matrix.
std::span<const std::byte> element(const StoredTensor& tensor, int64_t row, int64_t column) {
  const auto size = static_cast<size_t>(dtype_size(tensor.dtype));
  return tensor.bytes.subspan(static_cast<size_t>(row * tensor.shape[1] + column) * size, size);
}

TEST(ModelFiles, SplitLatentMatricesHaveNamesOfTheirOwn) {
  const TempDir dir;
  const std::string p = "model.layers.1.self_attn.";
  for (const LatentForm form : {LatentForm::kSplit, LatentForm::kSplitFlat, LatentForm::kBoth}) {
    gguf_of(golden_dir() / "v2-tiny", {.latent = form}).write(dir / "m.gguf");
    const Checkpoint converted = checkpoint_of(dir / "m.gguf");
    const ModelConfig c = config_of(dir / "m.gguf").config;
    const Checkpoint folder = checkpoint_of(golden_dir() / "v2-tiny");
    const StoredTensor& joint = *folder.find(p + "kv_b_proj.weight");
    const StoredTensor* k = converted.find(p + "k_b_proj.weight");
    const StoredTensor* v = converted.find(p + "v_b_proj.weight");
    ASSERT_TRUE(k != nullptr && v != nullptr);
    EXPECT_EQ(converted.find(p + "kv_b_proj.weight") != nullptr, form == LatentForm::kBoth);
    const int64_t heads = c.num_attention_heads;
    EXPECT_EQ(k->shape, (std::vector<int64_t>{heads * c.kv_lora_rank, c.qk_nope_head_dim}));
    EXPECT_EQ(v->shape, (std::vector<int64_t>{heads * c.v_head_dim, c.kv_lora_rank}));
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t first = h * (c.qk_nope_head_dim + c.v_head_dim);
      for (int64_t r = 0; r < c.kv_lora_rank; ++r) {
        ASSERT_TRUE(equal_bytes(element(*k, h * c.kv_lora_rank + r, 5), element(joint, first + 5, r)));
        ASSERT_TRUE(
            equal_bytes(element(*v, h * c.v_head_dim + 3, r), element(joint, first + c.qk_nope_head_dim + 3, r)));
      }
    }
  }
}

std::vector<float> logits_of(const fs::path& path, std::span<const int32_t> ids) {
  const ModelConfig config = config_of(path).config;
  Result<std::unique_ptr<const ModelWeights>> weights =
      ModelWeights::bind(config, std::make_shared<const Checkpoint>(checkpoint_of(path)));
  EXPECT_TRUE(weights.has_value()) << (weights ? "" : weights.error().message);
  return weights ? forward_on_cpu(**weights, ids).logits : std::vector<float>();
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float most = a.size() == b.size() ? 0.0F : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

TEST(ModelFiles, GgufModelsGiveTheSameLogits) {
  const TempDir dir;
  for (const char* name : kMlaModels) {
    SCOPED_TRACE(name);
    const std::vector<int32_t> ids = random_ids(config_of(golden_dir() / name).config, 20, 3);
    const std::vector<float> expected = logits_of(golden_dir() / name, ids);
    gguf_of(golden_dir() / name).write(dir / "m.gguf");
    EXPECT_EQ(largest_difference(logits_of(dir / "m.gguf", ids), expected), 0.0F);
    for (const LatentForm form : {LatentForm::kSplit, LatentForm::kBoth}) {
      gguf_of(golden_dir() / name, {.latent = form}).write(dir / "m.gguf");
      EXPECT_LE(largest_difference(logits_of(dir / "m.gguf", ids), expected), 2e-4F);
    }
  }
  for (const char* name : kPlainModels) {  // sums over a head's dimensions run in another order
    SCOPED_TRACE(name);
    const std::vector<int32_t> ids = random_ids(config_of(golden_dir() / name).config, 20, 3);
    gguf_of(golden_dir() / name).write(dir / "m.gguf");
    EXPECT_LE(largest_difference(logits_of(dir / "m.gguf", ids), logits_of(golden_dir() / name, ids)), 2e-4F);
  }
}

TEST(ModelFiles, ReadsAModelInSeveralFiles) {
  const TempDir dir;
  GgufDraft draft = gguf_of(golden_dir() / "v2lite-tiny");
  const size_t n = draft.tensors.size();
  const auto part_keys = [&](uint16_t part) {
    std::vector<std::pair<std::string, GgufValue>> keys;
    if (part == 0) keys = draft.metadata;
    keys.emplace_back("split.no", part);
    keys.emplace_back("split.count", uint16_t{3});
    keys.emplace_back("split.tensors.count", static_cast<int32_t>(n));
    return keys;
  };
  draft.write_part(dir / "m-00001-of-00003.gguf", 0, 0, part_keys(0));
  draft.write_part(dir / "m-00002-of-00003.gguf", 0, n / 2, part_keys(1));
  draft.write_part(dir / "m-00003-of-00003.gguf", n / 2, n, part_keys(2));
  const Checkpoint split = checkpoint_of(dir / "m-00001-of-00003.gguf");
  const Checkpoint folder = checkpoint_of(golden_dir() / "v2lite-tiny");
  for (const ExpectedTensor& expected : expected_tensors(config_of(dir / "m-00001-of-00003.gguf").config)) {
    ASSERT_NE(split.find(expected.name), nullptr) << expected.name;
    EXPECT_TRUE(equal_bytes(split.find(expected.name)->bytes, folder.find(expected.name)->bytes)) << expected.name;
  }
  EXPECT_EQ(split.file_of(*split.find("lm_head.weight")).filename(), "m-00002-of-00003.gguf");

  EXPECT_NE(config_error(dir / "m-00002-of-00003.gguf").find("found part 2"), std::string::npos);
  fs::rename(dir / "m-00003-of-00003.gguf", dir / "other");
  EXPECT_NE(config_error(dir / "m-00001-of-00003.gguf").find("expected part 3 of 3"), std::string::npos);
  draft.write_part(dir / "m-00003-of-00003.gguf", n / 2 - 1, n, part_keys(2));
  EXPECT_NE(config_error(dir / "m-00001-of-00003.gguf").find("is stored in two files"), std::string::npos);
  draft.write_part(dir / "m-00003-of-00003.gguf", n / 2, n, part_keys(1));
  EXPECT_NE(config_error(dir / "m-00001-of-00003.gguf").find("expected 2 of 3, found 1 of 3"), std::string::npos);
  draft.write_part(dir / "m-00003-of-00003.gguf", n / 2, n - 1, part_keys(2));
  EXPECT_NE(config_error(dir / "m-00001-of-00003.gguf").find("split.tensors.count"), std::string::npos);
  fs::rename(dir / "m-00001-of-00003.gguf", dir / "renamed.gguf");
  EXPECT_NE(config_error(dir / "renamed.gguf").find("expected a name that ends in"), std::string::npos);
}

TEST(ModelFiles, MissingKeysMeanWhatTheFilesOfTheirTimeMeant) {
  const TempDir dir;
  GgufDraft draft = gguf_of(golden_dir() / "v2lite-tiny");
  for (const char* key : {"vocab_size", "expert_weights_norm", "rope.freq_base", "rope.scaling.yarn_log_multiplier"}) {
    draft.erase(std::string("deepseek2.") + key);
  }
  draft.write(dir / "m.gguf");
  const ParsedConfig parsed = config_of(dir / "m.gguf");
  const ModelConfig& c = parsed.config;
  EXPECT_EQ(c.vocab_size, 384);  // the rows of the embedding
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_EQ(c.rope_scaling.mscale, 0.0);
  EXPECT_EQ(c.rope_scaling.mscale_all_dim, 0.0);
  EXPECT_FALSE(c.norm_topk_prob);
  EXPECT_TRUE(parsed.warnings.empty());

  for (const auto& [experts, groups, kept] : {std::array{160, 8, 3}, std::array{256, 8, 4}, std::array{64, 1, 1}}) {
    draft.set("deepseek2.expert_count", static_cast<uint32_t>(experts));
    draft.write(dir / "m.gguf");
    const ModelConfig many = config_of(dir / "m.gguf").config;
    EXPECT_EQ(many.n_group, groups);
    EXPECT_EQ(many.topk_group, kept);
    EXPECT_EQ(many.topk_method, groups > 1 ? TopkMethod::kGroupLimitedGreedy : TopkMethod::kGreedy);
  }
}

TEST(ModelFiles, KeysThatChangeTheModelAreNotIgnored) {
  const TempDir dir;
  const auto message = [&](const char* model, const std::string& key, GgufValue value) {
    GgufDraft draft = gguf_of(golden_dir() / model);
    draft.set(key, std::move(value));
    draft.write(dir / "m.gguf");
    return config_error(dir / "m.gguf");
  };
  const std::string file = (dir / "m.gguf").string() + ": ";
  EXPECT_EQ(message("v2-tiny", "general.architecture", std::string("qwen2")),
            file + "key \"general.architecture\": expected deepseek2, deepseek or llama, found \"qwen2\"");
  EXPECT_EQ(message("v2-tiny", "general.type", std::string("adapter")),
            file + "key \"general.type\": expected model, found \"adapter\"");
  EXPECT_EQ(message("v2-tiny", "deepseek2.block_count", std::string("3")),
            file + "key \"deepseek2.block_count\": expected an integer, found string \"3\"");
  EXPECT_EQ(message("v2-tiny", "deepseek2.block_count", uint32_t{0}),
            file + "num_hidden_layers: expected an integer from 1 to 1000, found 0");
  EXPECT_EQ(message("v2-tiny", "deepseek2.expert_gating_func", uint32_t{3}),
            file + "key \"deepseek2.expert_gating_func\": expected 1 (softmax) or 2 (sigmoid), found 3");
  EXPECT_EQ(message("v3-tiny", "deepseek2.expert_gating_func", uint32_t{1}),
            file +
                "key \"deepseek2.expert_gating_func\": expected 2 (sigmoid) beside exp_probs_b tensors, found 1 "
                "(softmax) or none");
  EXPECT_EQ(message("v2-tiny", "deepseek2.rope.scaling.type", std::string("longrope")),
            file + "key \"deepseek2.rope.scaling.type\": expected none, linear or yarn, found \"longrope\"");
  EXPECT_EQ(message("v2-tiny", "deepseek2.rope.scaling.attn_factor", 1.5F),
            file + "key \"deepseek2.rope.scaling.attn_factor\": expected 1, found 1.5");
  EXPECT_EQ(
      message("v2-tiny", "deepseek2.attention.key_length", uint32_t{32}),
      file + "key \"deepseek2.attention.key_length\": expected more than the rope.dimension_count of 32, found 32");
  EXPECT_EQ(message("llama-gqa-tiny", "llama.rope.dimension_count", uint32_t{8}),
            file + "key \"llama.rope.dimension_count\": expected the head's 16 dimensions, found 8");
  EXPECT_EQ(message("llama-gqa-tiny", "llama.expert_count", uint32_t{8}),
            file + "key \"llama.expert_count\": expected 0 for llama, found 8");
  EXPECT_EQ(message("llama-gqa-tiny", "llama.attention.head_count_kv", std::vector<uint32_t>{2, 2, 1, 2}),
            file +
                "key \"llama.attention.head_count_kv\": expected the same integer for all layers, found array of 4 "
                "uint32");
  EXPECT_EQ(message("llama-gqa-tiny", "llama.attention.head_count_kv", std::vector<uint32_t>{2, 2, 2, 2}), "accepted");
  EXPECT_EQ(message("deepseek-moe-tiny", "deepseek.expert_weights_scale", 2.0F),
            file + "key \"deepseek.expert_weights_scale\": expected 1, found 2");

  GgufDraft draft = gguf_of(golden_dir() / "llama-gqa-tiny");
  draft.set("llama.attention.sliding_window", uint32_t{512});
  draft.write(dir / "m.gguf");
  EXPECT_EQ(config_of(dir / "m.gguf").warnings,
            std::vector<std::string>{"unknown field \"llama.attention.sliding_window\" is ignored"});
}

TEST(ModelFiles, UnknownTensorsAreRefused) {
  const TempDir dir;
  const auto message = [&](const std::string& name, std::vector<int64_t> shape) {
    GgufDraft draft = gguf_of(golden_dir() / "v2lite-tiny");
    int64_t elements = 1;
    for (const int64_t extent : shape) elements *= extent;
    draft.add(name, DType::kF32, std::move(shape), std::vector<std::byte>(static_cast<size_t>(4 * elements)));
    draft.write(dir / "m.gguf");
    const Result<Checkpoint> checkpoint = opened(dir / "m.gguf").checkpoint();
    return checkpoint ? "accepted" : checkpoint.error().message.substr((dir / "m.gguf").string().size() + 2);
  };
  const std::string other = ": expected a tensor of deepseek2, deepseek or llama, found another";
  EXPECT_EQ(message("blk.0.attn_q_norm.weight", {4}), "tensor \"blk.0.attn_q_norm.weight\"" + other);
  EXPECT_EQ(message("blk.00.attn_q.weight", {4}), "tensor \"blk.00.attn_q.weight\"" + other);
  EXPECT_EQ(message("blk.-1.attn_q.weight", {4}), "tensor \"blk.-1.attn_q.weight\"" + other);
  EXPECT_EQ(message("rope_freqs.weight", {4}),
            "tensor \"rope_freqs.weight\": rotation frequencies of its own are not supported (expected none)");
  EXPECT_EQ(message("blk.9.ffn_up_exps.weight", {4, 4}),
            "tensor \"blk.9.ffn_up_exps.weight\": expected 3 dimensions, found shape [4, 4]");
  EXPECT_EQ(
      message("blk.9.ffn_gate_up_exps.weight", {2, 3, 4}),
      "tensor \"blk.9.ffn_gate_up_exps.weight\": expected an even number of rows per expert, found shape [2, 3, 4]");
  EXPECT_EQ(message("blk.9.ffn_up_exps.weight", {65537, 1, 1}),
            "tensor \"blk.9.ffn_up_exps.weight\": expected at most 65536 experts, found shape [65537, 1, 1]");
  EXPECT_EQ(message("blk.0.attn_k_b.weight", {4}),
            "tensor \"blk.0.attn_k_b.weight\": expected 2 or 3 dimensions, found shape [4]");
  EXPECT_EQ(message("blk.5.nextn.eh_proj.weight", {4, 8}), "accepted");
}

TEST(ModelFiles, SamplingDefaultsAreGreedyUnlessTheFileSays) {
  const TempDir dir;
  GgufDraft draft = gguf_of(golden_dir() / "v2lite-tiny");
  draft.write(dir / "m.gguf");
  EXPECT_FALSE(opened(dir / "m.gguf").generation_defaults()->do_sample);
  draft.set("general.sampling.temp", 0.3F);
  draft.set("general.sampling.top_p", 0.95F);
  draft.set("general.sampling.top_k", int32_t{40});
  draft.write(dir / "m.gguf");
  const GenerationDefaults defaults = *opened(dir / "m.gguf").generation_defaults();
  EXPECT_TRUE(defaults.do_sample);
  EXPECT_EQ(defaults.temperature, 0.3);
  EXPECT_EQ(defaults.top_p, 0.95);
  EXPECT_EQ(defaults.top_k, 40);
  EXPECT_EQ(defaults.dry_multiplier, 0.0);
  draft.set("lathe.sampling.dry_multiplier", 0.8F);
  draft.set("lathe.sampling.dry_allowed_length", int32_t{0});
  draft.write(dir / "m.gguf");
  const Result<GenerationDefaults> wrong = opened(dir / "m.gguf").generation_defaults();
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().message,
            str((dir / "m.gguf").string(), ": dry_allowed_length: expected an integer from 1 to 1048576, found 0"));
}

}  // namespace
}  // namespace lathe
