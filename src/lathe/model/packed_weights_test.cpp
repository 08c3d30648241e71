// Packing of whole checkpoints: what is planned, that the values are those of the quantised rows, and the file that
// later starts map.
#include "lathe/model/packed_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>

#include "lathe/formats/quant/quantise.h"
#include "lathe/tensor/panels.h"
#include "support/gguf_model.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using testing::TempDir;
using testing::TinyModel;

// Columns that are whole blocks of 32, heads that are whole panels.
Json block_config() {
  Json json = testing::tiny_v2_config();
  for (const auto& [name, value] : {std::pair{"hidden_size", 64},
                                    {"intermediate_size", 96},
                                    {"moe_intermediate_size", 32},
                                    {"q_lora_rank", 32},
                                    {"kv_lora_rank", 64},
                                    {"qk_nope_head_dim", 16},
                                    {"v_head_dim", 32}}) {
    json.set(name, value);
  }
  return json;
}

// The same with dense layers only: a router turns the smallest difference into another expert.
Json dense_config() {
  Json json = block_config();
  json.set("first_k_dense_replace", 3);
  return json;
}

struct Source {
  explicit Source(const Json& json, uint64_t seed = 3) : model(json, seed) { reopen(); }

  void reopen() {
    model.write(dir.path());
    config = load_config(dir.path()).value().config;
    checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(dir.path()).value());
  }

  Result<std::shared_ptr<const PackedWeights>> pack(std::optional<QuantType> type, const PackOptions& options = {}) {
    const auto pool = ThreadPool::create(2).value();
    LATHE_TRY(PackedPlan plan, plan_packing(config, *checkpoint, type));
    return PackedWeights::open(std::move(plan), *checkpoint, *pool, options);
  }

  std::vector<float> logits(const std::shared_ptr<const PackedWeights>& packed, int64_t expanded_until = 0) {
    const auto weights = ModelWeights::bind(config, checkpoint, packed).value();
    return testing::forward_on_cpu(*weights, testing::random_ids(config, 30, 9), expanded_until).logits;
  }

  TempDir dir;
  TinyModel model;
  ModelConfig config;
  std::shared_ptr<const Checkpoint> checkpoint;
};

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

TEST(PackedPlan, PlainWeightsWithoutATypeStayAsTheyAre) {
  Source source(block_config());
  EXPECT_EQ(plan_packing(source.config, *source.checkpoint, {}).value().bytes, 0u);
  EXPECT_EQ(source.pack({}).value(), nullptr);
}

TEST(PackedPlan, NamesEveryProjectionAndTheHeadInOrder) {
  Source source(block_config());
  const PackedPlan plan = plan_packing(source.config, *source.checkpoint, QuantType::kQ8_0).value();
  std::vector<std::string> names;
  uint64_t end = 0;
  for (const PackedEntry& entry : plan.entries) {
    names.push_back(entry.name);
    EXPECT_EQ(entry.offset, end) << entry.name;
    EXPECT_EQ(entry.offset % 64, 0u);
    end = entry.offset + entry.bytes;
  }
  EXPECT_EQ(end, plan.bytes);
  const std::vector<std::string> first(names.begin(), names.begin() + 9);
  const std::string p = "model.layers.0.";
  EXPECT_EQ(first,
            (std::vector<std::string>{p + "self_attn.q_a_proj.weight",
                                      p + "self_attn.q_b_proj.weight",
                                      p + "self_attn.kv_a_proj_with_mqa.weight",
                                      p + "self_attn.kv_b_proj.weight",
                                      p + "self_attn.kv_b_proj.uk",
                                      p + "self_attn.o_proj.weight",
                                      p + "mlp.gate_proj.weight",
                                      p + "mlp.up_proj.weight",
                                      p + "mlp.down_proj.weight"}));
  EXPECT_EQ(names.back(), "lm_head.weight");
  EXPECT_TRUE(std::ranges::none_of(names, [](const std::string& n) { return n.ends_with("mlp.gate.weight"); }));
  EXPECT_TRUE(std::ranges::none_of(names, [](const std::string& n) { return n.ends_with("embed_tokens.weight"); }));
}

TEST(PackedPlan, ColumnsThatAreNotWholeBlocksStayAsTheyAre) {
  Source source(testing::tiny_v2_config());  // no width is a multiple of 32
  EXPECT_EQ(plan_packing(source.config, *source.checkpoint, QuantType::kQ8_0).value().bytes, 0u);
}

TEST(PackedWeights, HoldTheQuantisedRows) {
  Source source(block_config());
  const auto packed = source.pack(QuantType::kQ8_0).value();
  ASSERT_NE(packed, nullptr);
  const std::string name = "model.layers.1.mlp.experts.5.up_proj.weight";
  const WeightMatrix matrix = packed->find(name).value();
  EXPECT_TRUE(matrix.packed);
  const testing::TinyTensor& tensor = source.model.at(name);
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(DType::kQ8_0, matrix.cols)));
  for (int64_t r = 0; r < matrix.rows; ++r) {
    const std::span<const float> values(tensor.values.data() + r * matrix.cols, static_cast<size_t>(matrix.cols));
    quantise_row(DType::kQ8_0, values, row.data());
    for (int64_t b = 0; b < matrix.cols / kBlock; ++b) {
      EXPECT_EQ(read_packed_block(matrix, r, b).q, read_block(DType::kQ8_0, row.data(), b).q);
      EXPECT_EQ(read_packed_block(matrix, r, b).d, read_block(DType::kQ8_0, row.data(), b).d);
    }
  }
  EXPECT_FALSE(packed->find("model.layers.1.mlp.gate.weight").has_value());
  EXPECT_FALSE(packed->find("none").has_value());
}

TEST(PackedWeights, GiveNearlyTheLogitsOfPlainOnesInBothForms) {
  for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ6_K, QuantType::kQ5_0, QuantType::kQ4_0}) {
    SCOPED_TRACE(quant_type_name(type));
    Source source(dense_config());
    const auto packed = source.pack(type).value();
    // Weights at random do not reward that the scales of 4 bits favour the large ones.
    const bool fine = type == QuantType::kQ8_0 || type == QuantType::kQ6_K;
    const double tolerance = fine ? 0.12 : type == QuantType::kQ5_0 ? 0.5 : 0.6;
    for (const int64_t expanded : {0, 30}) {
      const std::vector<float> plain = source.logits(nullptr, expanded);
      const double distance = relative_distance(source.logits(packed, expanded), plain);
      EXPECT_LT(distance, tolerance);
      EXPECT_GT(distance, 0.0);
    }
    // The two forms differ by what is quantised on the way; a wrong head or transpose would be off by all of it.
    EXPECT_LT(relative_distance(source.logits(packed, 0), source.logits(packed, 30)), 0.12);
  }
}

// GGUF files with k_b and v_b: W^UK is packed a second time with blocks along the latents, for the expanded form.
TEST(PackedWeights, SplitLatentsGetBlocksInBothDirections) {
  Json json = dense_config();
  json.set("qk_nope_head_dim", 32);
  Source source(json);
  testing::gguf_of(source.dir.path(), {.latent = testing::LatentForm::kSplit}).write(source.dir / "m.gguf");
  source.checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(source.dir / "m.gguf").value());
  const auto packed = source.pack(QuantType::kQ8_0).value();
  const ModelConfig& c = source.config;
  const std::string p = "model.layers.1.self_attn.";
  EXPECT_TRUE(packed->find(p + "k_b_proj.weight").value().packed);
  const WeightMatrix uk = packed->find(p + "kv_b_proj.uk").value();
  ASSERT_TRUE(uk.packed);
  ASSERT_EQ(uk.rows, c.num_attention_heads * c.qk_nope_head_dim);
  ASSERT_EQ(uk.cols, c.kv_lora_rank);
  // kv_b_proj of the model it was made from has W^UK row by row.
  const testing::TinyTensor& kv_b = source.model.at(p + "kv_b_proj.weight");
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(DType::kQ8_0, uk.cols)));
  for (int64_t r = 0; r < uk.rows; ++r) {
    const int64_t from = r / c.qk_nope_head_dim * (c.qk_nope_head_dim + c.v_head_dim) + r % c.qk_nope_head_dim;
    const std::span<const float> values(kv_b.values.data() + from * uk.cols, static_cast<size_t>(uk.cols));
    quantise_row(DType::kQ8_0, values, row.data());
    for (int64_t b = 0; b < uk.cols / kBlock; ++b) {
      EXPECT_EQ(read_packed_block(uk, r, b).q, read_block(DType::kQ8_0, row.data(), b).q) << r;
      EXPECT_EQ(read_packed_block(uk, r, b).d, read_block(DType::kQ8_0, row.data(), b).d) << r;
    }
  }
  EXPECT_LT(relative_distance(source.logits(packed, 0), source.logits(nullptr, 0)), 0.12);
  EXPECT_LT(relative_distance(source.logits(packed, 30), source.logits(nullptr, 30)), 0.12);
}

TEST(PackedWeights, HeadsThatAreNotWholePanelsBecomeRows) {
  Json json = dense_config();
  json.set("qk_nope_head_dim", 12);
  json.set("v_head_dim", 20);
  json.set("num_attention_heads", 8);
  json.set("num_key_value_heads", 8);
  Source source(json);
  const auto packed = source.pack(QuantType::kQ8_0).value();
  const WeightMatrix kv_b = packed->find("model.layers.0.self_attn.kv_b_proj.weight").value();
  EXPECT_FALSE(kv_b.packed);
  EXPECT_EQ(kv_b.dtype, DType::kF32);
  EXPECT_LT(relative_distance(source.logits(packed), source.logits(nullptr)), 0.12);
}

TEST(PackedWeights, DecodedRowsHoldTheSameValues) {
  Source source(dense_config());
  const auto pool = ThreadPool::create(1).value();
  PackedPlan plan = plan_packing(source.config, *source.checkpoint, QuantType::kQ4_0, PackLayout::kDecoded).value();
  const auto decoded = PackedWeights::open(std::move(plan), *source.checkpoint, *pool, {}).value();
  const auto panels = source.pack(QuantType::kQ4_0).value();
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const WeightMatrix rows = decoded->find(name).value();
  ASSERT_EQ(rows.dtype, DType::kF32);
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(DType::kQ4_0, rows.cols)));
  std::vector<float> values(static_cast<size_t>(rows.cols));
  quantise_row(DType::kQ4_0, std::span(source.model.at(name).values).first(values.size()), row.data());
  decode_blocks(DType::kQ4_0, row.data(), values.data(), rows.cols);
  EXPECT_EQ(std::memcmp(rows.data, values.data(), values.size() * sizeof(float)), 0);
  // Only the activations are quantised beside that.
  EXPECT_LT(relative_distance(source.logits(panels), source.logits(decoded)), 0.1);
}

TEST(PackedWeights, AFileGivesTheSameAndIsMappedTheSecondTime) {
  Source source(block_config());
  const TempDir cache;
  uint64_t reports = 0;
  const PackOptions options{
      .cache_folder = cache.path(), .smallest_file = 0, .on_progress = [&](uint64_t, uint64_t) { ++reports; }};
  const auto in_memory = source.pack(QuantType::kQ4_0).value();
  const auto first = source.pack(QuantType::kQ4_0, options).value();
  EXPECT_FALSE(in_memory->is_mapped());
  EXPECT_TRUE(first->is_mapped());
  EXPECT_GT(reports, 0u);
  reports = 0;
  const auto second = source.pack(QuantType::kQ4_0, options).value();
  EXPECT_TRUE(second->is_mapped());
  EXPECT_EQ(reports, 0u);
  EXPECT_EQ(source.logits(first), source.logits(in_memory));
  EXPECT_EQ(source.logits(second), source.logits(in_memory));
}

TEST(PackedWeights, AFileOfOtherWeightsOrADamagedOneIsNotUsed) {
  Source source(block_config());
  const TempDir cache;
  const PackOptions options{.cache_folder = cache.path(), .smallest_file = 0, .on_progress = {}};
  const std::vector<float> before = source.logits(source.pack(QuantType::kQ8_0, options).value());
  const auto files = [&] {
    std::vector<std::filesystem::path> out;
    for (const auto& entry : std::filesystem::directory_iterator(cache.path() / "packed")) out.push_back(entry.path());
    return out;
  };
  ASSERT_EQ(files().size(), 1u);
  // Cut short: made anew under the same name.
  std::filesystem::resize_file(files().front(), 5000);
  EXPECT_EQ(source.logits(source.pack(QuantType::kQ8_0, options).value()), before);
  // Other contents of the header: made anew too.
  std::fstream(files().front(), std::ios::in | std::ios::out | std::ios::binary) << "something else";
  EXPECT_EQ(source.logits(source.pack(QuantType::kQ8_0, options).value()), before);
  // Another checkpoint in the same place has another name, and takes the place of the one before.
  const std::filesystem::path first = files().front();
  source.model = TinyModel(block_config(), 4);
  source.reopen();
  std::filesystem::last_write_time(source.dir.path() / "model.safetensors",
                                   std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_NE(source.logits(source.pack(QuantType::kQ8_0, options).value()), before);
  ASSERT_EQ(files().size(), 1u);
  EXPECT_NE(files().front(), first);
}

TEST(PackedWeights, FilesOfOtherTypesModelsAndProgramsStay) {
  Source source(block_config());
  Source other(block_config());
  const TempDir cache;
  const PackOptions options{.cache_folder = cache.path(), .smallest_file = 0, .on_progress = {}};
  const std::filesystem::path folder = cache.path() / "packed";
  std::filesystem::create_directories(folder);
  for (const char* name : {"notes.panels", "empty.panels"}) std::ofstream(folder / name) << std::string(name, 5);
  ASSERT_TRUE(source.pack(QuantType::kQ8_0, options));
  ASSERT_TRUE(source.pack(QuantType::kQ4_0, options));
  ASSERT_TRUE(other.pack(QuantType::kQ8_0, options));
  const auto count = [&] {
    return std::ranges::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
  };
  EXPECT_EQ(count(), 5);
  // What another version packed of the same model, with this header, goes when this one is made anew.
  std::filesystem::path own;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.file_size() > 4096) own = entry.path();
  }
  std::filesystem::copy_file(own, folder / "older.panels");
  std::filesystem::remove(own);
  for (Source* each : {&source, &other}) {
    for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ4_0}) ASSERT_TRUE(each->pack(type, options));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "older.panels"));
  EXPECT_EQ(count(), 6);
}

TEST(PackedWeights, AFolderThatCannotBeWrittenMeansMemory) {
  Source source(block_config());
  const TempDir cache;
  std::ofstream(cache.path() / "packed") << "a file where the folder should be";
  const PackOptions options{.cache_folder = cache.path(), .smallest_file = 0, .on_progress = {}};
  const auto packed = source.pack(QuantType::kQ8_0, options).value();
  EXPECT_FALSE(packed->is_mapped());
}

TEST(PackedWeights, ValuesThatAreNotFiniteAreNamed) {
  Source source(block_config());
  const std::string name = "model.layers.2.mlp.experts.1.down_proj.weight";
  source.model.at(name).values[40] = std::numeric_limits<float>::infinity();
  source.reopen();
  const auto packed = source.pack(QuantType::kQ8_0);
  ASSERT_FALSE(packed.has_value());
  EXPECT_EQ(packed.error().message, name + ": expected finite values, found another in row 1");
}

TEST(PackedWeights, Fp8WeightsAreQuantisedWithTheirScales) {
  Source source(dense_config());
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  source.model.quantise(name);
  source.reopen();
  const std::vector<float> plain = source.logits(nullptr);
  const auto packed = source.pack(QuantType::kQ8_0).value();
  EXPECT_LT(relative_distance(source.logits(packed), plain), 0.12);
  const auto weights = ModelWeights::bind(source.config, source.checkpoint, packed).value();
  EXPECT_TRUE(weights->unused_tensors().empty());
}

}  // namespace
}  // namespace lathe
