// Conversions end to end, on random models of every architecture.
#include "lathe/convert/convert.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>

#include "lathe/base/scalar.h"
#include "lathe/base/str.h"
#include "lathe/convert/hf_folder.h"
#include "lathe/formats/gguf.h"
#include "lathe/formats/quant/quantise.h"
#include "lathe/model/model_files.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe::convert {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;
using testing::TinyModel;

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int64_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), {});
}

fs::path write_model(const TempDir& dir, const TinyModel& model, const std::string& name = "model") {
  fs::create_directory(dir / name);
  model.write(dir / name);
  return dir / name;
}

Report must_convert(Options options) {
  options.threads = std::max(options.threads, 1);
  const Result<Report> report = convert(options);
  EXPECT_TRUE(report.has_value()) << (report ? "" : report.error().message);
  return report ? *report : Report{};
}

std::string message_of(const Options& options) {
  const Result<Report> report = convert(options);
  return report ? "converted" : report.error().message;
}

// V2 with rows of whole blocks, so that every format finds a matrix.
Json blocky_config() {
  Json json = testing::tiny_v2_config();
  json.set("vocab_size", 64);
  json.set("hidden_size", 256);
  json.set("intermediate_size", 256);
  json.set("moe_intermediate_size", 64);
  json.set("q_lora_rank", 96);
  json.set("kv_lora_rank", 256);
  json.set("qk_nope_head_dim", 32);
  json.set("v_head_dim", 32);
  return json;
}

const StoredTensor& stored(const Checkpoint& checkpoint, const std::string& name) {
  const StoredTensor* tensor = checkpoint.find(name);
  EXPECT_NE(tensor, nullptr) << name;
  static const StoredTensor kNone;
  return tensor == nullptr ? kNone : *tensor;
}

std::vector<float> values_of(const StoredTensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.elements()));
  decode_row(tensor.dtype, tensor.bytes.data(), out);
  return out;
}

void expect_same_tensors(const TinyModel& model, const fs::path& folder) {
  const Result<Checkpoint> checkpoint = Checkpoint::open(folder);
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  for (const ExpectedTensor& expected : expected_tensors(model.config())) {
    const StoredTensor& tensor = stored(*checkpoint, expected.name);
    EXPECT_EQ(tensor.shape, expected.shape) << expected.name;
    EXPECT_EQ(values_of(tensor), model.tensors.at(expected.name).values) << expected.name;
  }
}

ModelConfig comparable(ModelConfig config) {
  config.dtype.clear();
  return config;
}

TEST(Convert, RoundTripKeepsTensorsAndConfiguration) {
  Json moe = testing::tiny_llama_config();
  moe.set("architectures", Json::list(std::vector<std::string>{"DeepseekForCausalLM"}));
  moe.set("model_type", "deepseek");
  for (const auto& [key, value] : {std::pair{"n_routed_experts", 4},
                                   {"n_shared_experts", 1},
                                   {"num_experts_per_tok", 2},
                                   {"moe_intermediate_size", 10},
                                   {"first_k_dense_replace", 1}}) {
    moe.set(key, value);
  }
  moe.set("norm_topk_prob", false);
  moe.set("scoring_func", "softmax");
  Json tied = testing::tiny_llama_config();
  tied.set("tie_word_embeddings", true);
  Json direct = testing::tiny_v2_config();
  direct.set("q_lora_rank", Json());
  for (const Json& json :
       {testing::tiny_v2_config(), testing::tiny_v3_config(), testing::tiny_llama_config(), moe, tied, direct}) {
    SCOPED_TRACE(json.dump());
    const TempDir dir;
    const TinyModel model(json);
    const fs::path source = write_model(dir, model);
    must_convert({.source = source, .destination = dir / "m.gguf", .target = Target::kGguf});
    must_convert({.source = dir / "m.gguf", .destination = dir / "back", .target = Target::kHf});
    expect_same_tensors(model, dir / "back");
    const Result<ParsedConfig> config = load_config(dir / "back");
    ASSERT_TRUE(config.has_value()) << config.error().message;
    EXPECT_EQ(comparable(config->config), comparable(model.config()));
  }
}

TEST(Convert, GgufFilesScoreLikeTheirSource) {
  for (const Json& json : {testing::tiny_v2_config(), testing::tiny_v3_config(), testing::tiny_llama_config()}) {
    const TempDir dir;
    const TinyModel model(json);
    const fs::path source = write_model(dir, model);
    must_convert({.source = source, .destination = dir / "m.gguf", .target = Target::kGguf});
    const Result<std::unique_ptr<const ModelWeights>> before = testing::open_weights(source);
    ASSERT_TRUE(before.has_value()) << before.error().message;
    const Result<ModelFiles> files = ModelFiles::open(dir / "m.gguf");
    ASSERT_TRUE(files.has_value()) << files.error().message;
    const Result<ParsedConfig> config = files->config();
    ASSERT_TRUE(config.has_value()) << config.error().message;
    Result<Checkpoint> checkpoint = files->checkpoint();
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    const Result<std::unique_ptr<const ModelWeights>> after =
        ModelWeights::bind(config->config, std::make_shared<const Checkpoint>(std::move(*checkpoint)));
    ASSERT_TRUE(after.has_value()) << after.error().message;
    const std::vector<int32_t> ids = testing::random_ids(model.config(), 20, 3);
    const testing::Forward a = testing::forward_on_cpu(**before, ids);
    const testing::Forward b = testing::forward_on_cpu(**after, ids);
    ASSERT_EQ(a.logits.size(), b.logits.size());
    for (size_t i = 0; i < a.logits.size(); ++i) EXPECT_NEAR(a.logits[i], b.logits[i], 2e-4F) << json.dump();
  }
}

TEST(Convert, StackedExpertsAreTheSame) {
  const TempDir dir;
  const TinyModel model(testing::tiny_v2_config());
  TinyModel stacked = model;
  const ModelConfig config = model.config();
  const int64_t d = config.hidden_size;
  const int64_t width = config.moe_intermediate_size;
  for (int64_t layer = config.first_k_dense_replace; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = str("model.layers.", layer, ".mlp.experts.");
    testing::TinyTensor up{.dtype = DType::kF32, .shape = {config.n_routed_experts, 2 * width, d}, .values = {}};
    testing::TinyTensor down{.dtype = DType::kF32, .shape = {config.n_routed_experts, d, width}, .values = {}};
    for (int64_t e = 0; e < config.n_routed_experts; ++e) {
      for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
        const std::string key = str(prefix, e, ".", name, ".weight");
        std::vector<float>& target = std::string_view(name) == "down_proj" ? down.values : up.values;
        const std::vector<float>& from = stacked.at(key).values;
        target.insert(target.end(), from.begin(), from.end());
        stacked.tensors.erase(key);
      }
    }
    stacked.tensors.emplace(prefix + "gate_up_proj", std::move(up));
    stacked.tensors.emplace(prefix + "down_proj", std::move(down));
  }
  const fs::path source = write_model(dir, stacked);
  must_convert({.source = source, .destination = dir / "m.gguf", .target = Target::kGguf});
  must_convert({.source = dir / "m.gguf", .destination = dir / "back", .target = Target::kHf});
  expect_same_tensors(model, dir / "back");
}

TEST(Convert, Fp8GetsItsScalesAndLosesThem) {
  const TempDir dir;
  TinyModel model(testing::tiny_v2_config());
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  model.quantise(name);
  const fs::path source = write_model(dir, model);
  must_convert({.source = source, .destination = dir / "hf", .target = Target::kHf, .dtype = DType::kBF16});
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir / "hf");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->find(name + "_scale_inv"), nullptr);
  const std::vector<float> values = values_of(stored(*checkpoint, name));
  const float scale = model.at(name + "_scale_inv").values[0];
  const std::vector<std::byte> codes = model.at(name).bytes();
  for (size_t i = 0; i < values.size(); ++i) {
    const float exact = e4m3_to_float(static_cast<uint8_t>(codes[i])) * scale;
    EXPECT_EQ(values[i], bf16_to_float(float_to_bf16(exact)));
  }
}

TEST(Convert, QuantisedTensorsFollowTheRecipeAndTheReport) {
  const TempDir dir;
  const TinyModel model(blocky_config());
  const fs::path source = write_model(dir, model);
  for (const std::string& name : quant_type_names()) {
    SCOPED_TRACE(name);
    const fs::path path = dir / (name + ".gguf");
    const Report report = must_convert(
        {.source = source, .destination = path, .target = Target::kGguf, .type = quant_type_from_name(name)});
    EXPECT_EQ(report.file_bytes, fs::file_size(path));
    const Result<std::shared_ptr<const GgufModel>> file = GgufModel::open(path);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    for (const TensorReport& tensor : report.tensors) {
      const StoredTensor* found = (*file)->find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      EXPECT_EQ(found->dtype, tensor.dtype) << tensor.name;
      EXPECT_EQ(found->bytes.size(), tensor.bytes) << tensor.name;
      EXPECT_LT(tensor.relative_rms, 0.12) << tensor.name;
    }
    // One matrix, measured by hand.
    const std::vector<float>& exact = model.tensors.at("model.layers.0.mlp.up_proj.weight").values;
    const std::vector<float> kept = values_of(*(*file)->find("blk.0.ffn_up.weight"));
    double errors = 0.0;
    double squares = 0.0;
    for (size_t i = 0; i < exact.size(); ++i) {
      errors += std::pow(static_cast<double>(exact[i]) - kept[i], 2);
      squares += std::pow(static_cast<double>(exact[i]), 2);
    }
    const auto reported = std::find_if(report.tensors.begin(), report.tensors.end(), [](const TensorReport& t) {
      return t.name == "blk.0.ffn_up.weight";
    });
    EXPECT_NEAR(reported->relative_rms, std::sqrt(errors / squares), 1e-6);
  }
}

TEST(Convert, ThreadsDoNotChangeTheFile) {
  const TempDir dir;
  const fs::path source = write_model(dir, TinyModel(blocky_config()));
  for (const int threads : {1, 3}) {
    must_convert({.source = source,
                  .destination = dir / str(threads, ".gguf"),
                  .target = Target::kGguf,
                  .type = QuantType::kQ4_K_M,
                  .threads = threads});
  }
  EXPECT_EQ(contents(dir / "1.gguf"), contents(dir / "3.gguf"));
}

TEST(Convert, QuantisesAgainOnlyWithLeave) {
  const TempDir dir;
  const fs::path source = write_model(dir, TinyModel(blocky_config()));
  const fs::path first = dir / "q8.gguf";
  must_convert({.source = source, .destination = first, .target = Target::kGguf, .type = QuantType::kQ8_0});
  Options again{.source = first, .destination = dir / "q4.gguf", .target = Target::kGguf, .type = QuantType::kQ4_0};
  again.threads = 1;
  EXPECT_NE(message_of(again).find("--allow-requantize"), std::string::npos) << message_of(again);
  EXPECT_FALSE(fs::exists(dir / "q4.gguf"));
  again.allow_requantise = true;
  EXPECT_EQ(message_of(again), "converted");
  // To the same type nothing is lost: the tensors are copied.
  const Report same = must_convert(
      {.source = first, .destination = dir / "q8b.gguf", .target = Target::kGguf, .type = QuantType::kQ8_0});
  EXPECT_EQ(same.relative_rms, 0.0);
  const auto a = GgufModel::open(first).value();
  const auto b = GgufModel::open(dir / "q8b.gguf").value();
  for (const StoredTensor* tensor : a->tensors()) {
    const StoredTensor* copy = b->find(tensor->name);
    ASSERT_NE(copy, nullptr) << tensor->name;
    EXPECT_TRUE(std::ranges::equal(tensor->bytes, copy->bytes)) << tensor->name;
  }
}

TEST(Convert, ValuesThatAreNotFiniteAreRefusedByName) {
  const TempDir dir;
  TinyModel model(blocky_config());
  model.at("model.layers.1.mlp.experts.2.up_proj.weight").values[5] = std::numeric_limits<float>::infinity();
  const fs::path source = write_model(dir, model);
  std::ofstream(dir / "m.gguf") << "before";
  const std::string message = message_of({.source = source,
                                          .destination = dir / "m.gguf",
                                          .target = Target::kGguf,
                                          .type = QuantType::kQ4_K_M,
                                          .threads = 1});
  EXPECT_NE(message.find("blk.1.ffn_up_exps.weight: expected finite values"), std::string::npos) << message;
  EXPECT_EQ(contents(dir / "m.gguf"), "before");
  EXPECT_EQ(entries(dir.path()), 2);
}

TEST(Convert, CancelledConversionsLeaveNothingBehind) {
  const TempDir dir;
  const fs::path source = write_model(dir, TinyModel(testing::tiny_v2_config()));
  for (const Target target : {Target::kGguf, Target::kHf}) {
    Options options{.source = source, .destination = dir / "out", .target = target};
    options.threads = 1;
    options.progress = [](const Progress&) { return false; };
    const Result<Report> report = convert(options);
    ASSERT_FALSE(report.has_value());
    EXPECT_EQ(report.error().code, Errc::kCancelled) << report.error().message;
    EXPECT_EQ(entries(dir.path()), 1);
  }
}

TEST(Convert, FoldersInUseAreRefused) {
  const TempDir dir;
  const fs::path source = write_model(dir, TinyModel(testing::tiny_llama_config()));
  const Options onto{.source = source, .destination = source, .target = Target::kHf, .threads = 1};
  EXPECT_NE(message_of(onto).find("expected a new or empty folder"), std::string::npos) << message_of(onto);
  fs::create_directory(dir / "empty");
  EXPECT_EQ(message_of({.source = source, .destination = dir / "empty", .target = Target::kHf, .threads = 1}),
            "converted");
  EXPECT_TRUE(fs::exists(dir / "empty" / "config.json"));
}

// A limit on file sizes fails writes as a full disk does.
TEST(Convert, FullDisksLeaveNothingBehind) {
  const TempDir dir;
  const fs::path source = write_model(dir, TinyModel(blocky_config()));

  struct rlimit before {};

  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // NOLINT(concurrency-mt-unsafe)
  struct rlimit small = before;
  small.rlim_cur = 100'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string gguf = message_of({.source = source,
                                       .destination = dir / "m.gguf",
                                       .target = Target::kGguf,
                                       .type = QuantType::kQ8_0,
                                       .threads = 1});
  const std::string hf = message_of({.source = source, .destination = dir / "hf", .target = Target::kHf, .threads = 1});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);  // NOLINT(concurrency-mt-unsafe)
  EXPECT_NE(gguf, "converted");
  EXPECT_NE(hf, "converted");
  EXPECT_EQ(gguf.find('\n'), std::string::npos);
  EXPECT_EQ(entries(dir.path()), 1);
}

TEST(Convert, WhatGgufCannotSayIsRefused) {
  const TempDir dir;
  const auto verdict = [&](const std::string& name, Json json) {
    const fs::path source = write_model(dir, TinyModel(std::move(json)), name);
    return message_of({.source = source, .destination = dir / (name + ".gguf"), .target = Target::kGguf, .threads = 1});
  };
  Json bias = testing::tiny_llama_config();
  bias.set("attention_bias", true);
  EXPECT_NE(verdict("bias", bias).find("attention_bias true cannot be written"), std::string::npos);
  Json yarn = testing::tiny_v2_config();
  Json scaling = *yarn.find("rope_scaling");
  scaling.set("mscale", 1.0);
  yarn.set("rope_scaling", scaling);
  EXPECT_NE(verdict("yarn", yarn).find("mscale 1 and mscale_all_dim 0.707"), std::string::npos);
}

TEST(Convert, MissingTensorsAreNamed) {
  const TempDir dir;
  TinyModel model(testing::tiny_v2_config());
  model.tensors.erase("model.layers.2.self_attn.o_proj.weight");
  const fs::path source = write_model(dir, model);
  const std::string message =
      message_of({.source = source, .destination = dir / "m.gguf", .target = Target::kGguf, .threads = 1});
  EXPECT_NE(message.find("expected tensor model.layers.2.self_attn.o_proj.weight"), std::string::npos) << message;
}

TEST(Convert, TokenizerAndSamplingGoAlong) {
  const TempDir dir;
  const fs::path source = write_model(dir, TinyModel(testing::tiny_llama_config()));
  const std::string tokenizer = R"({"added_tokens": [
    {"id": 30, "content": "<|bos|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": [["a", "b"]]}})";
  std::ofstream(source / "tokenizer.json") << tokenizer;
  std::ofstream(source / "tokenizer_config.json") << R"({"bos_token": "<|bos|>", "chat_template": "{{ bos_token }}"})";
  std::ofstream(source / "generation_config.json") << R"({
    "do_sample": true, "temperature": 0.5, "top_p": 0.75, "dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3})";
  must_convert({.source = source, .destination = dir / "m.gguf", .target = Target::kGguf});
  const auto model = GgufModel::open(dir / "m.gguf").value();
  const auto* tokens = model->header().find("tokenizer.ggml.tokens")->array();
  ASSERT_NE(tokens, nullptr);
  ASSERT_EQ(tokens->texts.size(), 40U);
  EXPECT_EQ(tokens->texts[2], "ab");
  EXPECT_EQ(tokens->texts[10], "[PAD10]");
  EXPECT_EQ(tokens->texts[30], "<|bos|>");
  const auto* types = model->header().find("tokenizer.ggml.token_type")->array();
  EXPECT_EQ(element_of(*types, 2).integer(), 1);
  EXPECT_EQ(element_of(*types, 10).integer(), 5);
  EXPECT_EQ(element_of(*types, 30).integer(), 3);
  EXPECT_EQ(model->header().find("tokenizer.ggml.merges")->array()->texts.front(), "a b");
  EXPECT_EQ(model->header().find("tokenizer.ggml.bos_token_id")->integer(), 30);

  const Result<ModelFiles> files = ModelFiles::open(dir / "m.gguf");
  ASSERT_TRUE(files.has_value()) << files.error().message;
  const Result<Tokenizer> read = files->tokenizer();
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(read->encode("ab a", AddedTokens::kPlain), (std::vector<int32_t>{2, 3, 0}));
  EXPECT_EQ(read->chat_template(), "{{ bos_token }}");
  const Result<GenerationDefaults> defaults = files->generation_defaults();
  ASSERT_TRUE(defaults.has_value());
  EXPECT_TRUE(defaults->do_sample);
  EXPECT_EQ(defaults->temperature, 0.5);
  EXPECT_EQ(defaults->top_p, 0.75);
  EXPECT_EQ(defaults->dry_multiplier, 0.8);
  EXPECT_EQ(defaults->dry_base, 2.0);
  EXPECT_EQ(defaults->dry_allowed_length, 3);

  must_convert({.source = dir / "m.gguf", .destination = dir / "back", .target = Target::kHf});
  EXPECT_EQ(contents(dir / "back" / "tokenizer.json"), tokenizer);
}

TEST(Convert, ModelsAreCalledAsTheirFolders) {
  const TempDir dir;
  const TinyModel model(testing::tiny_llama_config());
  fs::create_directories(dir / "models--org--Some-Model" / "snapshots");
  for (const auto& [folder, name] :
       {std::pair{"plain", "plain"}, {"models--org--Some-Model/snapshots/0123abc", "Some-Model"}}) {
    const fs::path source = write_model(dir, model, folder);
    must_convert({.source = source / "", .destination = dir / "m.gguf", .target = Target::kGguf});
    const auto file = GgufModel::open(dir / "m.gguf").value();
    EXPECT_EQ(file->header().find("general.name")->text(), name);
  }
}

TEST(Convert, ShardsAreCutAtTheLimit) {
  const TempDir dir;
  const fs::path source = write_model(dir, TinyModel(testing::tiny_llama_config()));
  const Result<ModelFiles> files = ModelFiles::open(source);
  ASSERT_TRUE(files.has_value());
  const Checkpoint checkpoint = files->checkpoint().value();
  const std::vector<OutputTensor> tensors =
      plan_hf(checkpoint, files->config().value().config, false, DType::kF32).value();
  EXPECT_EQ(plan_shards(tensors).size(), 1U);
  EXPECT_EQ(plan_shards(tensors).front().name, "model.safetensors");
  constexpr uint64_t kLimit = 6000;
  const std::vector<Shard> shards = plan_shards(tensors, kLimit);
  ASSERT_GT(shards.size(), 1U);
  size_t count = 0;
  for (const Shard& shard : shards) {
    uint64_t bytes = 0;
    for (const OutputTensor& tensor : shard.tensors) bytes += tensor.bytes();
    EXPECT_EQ(bytes, shard.bytes);
    EXPECT_TRUE(bytes <= kLimit || shard.tensors.size() == 1) << shard.name;
    const std::string header = shard_header(shard);
    EXPECT_EQ(header.size() % 8, 0U);
    const Result<SafetensorsHeader> parsed = parse_safetensors_header(std::string_view(header).substr(8), bytes);
    ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
    EXPECT_EQ(parsed->entries.size(), shard.tensors.size());
    count += shard.tensors.size();
  }
  EXPECT_EQ(count, tensors.size());
  EXPECT_EQ(shards.front().name, str("model-00001-of-0000", shards.size(), ".safetensors"));
  const Json index = parse_json(shard_index(shards)).value();
  EXPECT_EQ(index.find("weight_map")->as_object().size(), tensors.size());
}

}  // namespace
}  // namespace lathe::convert
