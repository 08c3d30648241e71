#include "lathe/train/report.h"

#include <gtest/gtest.h>

#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/train/model_setup.h"
#include "lathe/train/run_log.h"
#include "lathe/train/toml.h"
#include "support/temp_dir.h"

namespace lathe::train {
namespace {

TEST(RunLog, KeepsWholeLinesOfStepsBeforeTheCheckpoint) {
  testing::TempDir folder;
  const auto line = [](int64_t step) { return Json(Json::Object{{"step", step}, {"loss", 1.5}}); };
  {
    Result<RunLog> log = RunLog::open(folder / "m", 0);
    ASSERT_TRUE(log);
    for (int64_t step = 1; step <= 5; ++step) ASSERT_TRUE(log->add(line(step)));
  }
  // A kill in the middle of a line.
  ASSERT_TRUE(write_file_atomically(folder / "m", *read_file(folder / "m") + "{\"step\": 6, \"lo"));
  EXPECT_EQ(read_run_log(folder / "m")->size(), 5u);
  {
    Result<RunLog> log = RunLog::open(folder / "m", 3);
    ASSERT_TRUE(log);
    ASSERT_TRUE(log->add(line(4)));
  }
  const Result<std::vector<Json>> lines = read_run_log(folder / "m");
  ASSERT_TRUE(lines);
  ASSERT_EQ(lines->size(), 4u);
  EXPECT_EQ(lines->back(), line(4));
  EXPECT_EQ(read_run_log(folder / "none").error().code, Errc::kNotFound);
}

ReportRun made_up(const std::string& name) {
  ReportRun run{
      .name = name, .recipe = Json::object(), .config = {}, .parameters = 12345, .statistics = Json(), .lines = {}};
  const Result<Json> json = parse_toml(
      "[model]\nhidden_size = 16\nnum_hidden_layers = 2\nnum_attention_heads = 2\n"
      "kv_lora_rank = 8\nqk_nope_head_dim = 8\nqk_rope_head_dim = 4\nv_head_dim = 8\n"
      "n_routed_experts = 4\nnum_experts_per_tok = 2\nmoe_intermediate_size = 8\n",
      "");
  EXPECT_TRUE(json);
  const Result<Recipe> recipe = parse_recipe(*json);
  EXPECT_TRUE(recipe);
  const Result<ModelSetup> setup = set_up_model(*recipe, nullptr);
  EXPECT_TRUE(setup) << setup.error().message;
  run.config = setup->config;
  for (int64_t step = 1; step <= 20; ++step) {
    Json line = Json(Json::Object{{"step", step},
                                  {"loss", 5.0 / static_cast<double>(step)},
                                  {"lr", 0.1},
                                  {"grad_norm", 1.0},
                                  {"load_ratio", 1.5}});
    if (step % 5 == 0) {
      line.set("expert_load",
               Json(Json::Array{Json::list(std::vector<int64_t>{4, 0, 2, 2}),
                                Json::list(std::vector<int64_t>{2, 2, 2, 2})}));
      line.set("valid_loss", 1.25);
    }
    run.lines.push_back(std::move(line));
  }
  return run;
}

TEST(Report, HasThePlotsOfARunAndTheTableOfSeveral) {
  const ReportRun one = made_up("one");
  const std::string single = html_report("title", std::span(&one, 1));
  EXPECT_NE(single.find("Loss, nats per token"), std::string::npos);
  EXPECT_NE(single.find("Expert load, MoE layer 1"), std::string::npos);
  // Twice the mean is the fullest expert of layer 0.
  EXPECT_NE(single.find("expert 0, step 5: 2.00<"), std::string::npos);
  // What was never anything but 0 or absent has no plot.
  EXPECT_EQ(single.find("Share of assignments dropped"), std::string::npos);
  EXPECT_EQ(single.find("<script"), std::string::npos);
  const std::vector<ReportRun> runs{one, made_up("two & more")};
  const std::string both = html_report("title", runs);
  EXPECT_NE(both.find("<td>two &amp; more</td>"), std::string::npos);
  EXPECT_NE(both.find(">1.2500</td>"), std::string::npos);
  EXPECT_NE(both.find(">24</td>"), std::string::npos);  // cache: 2 layers of 8 + 4
}

Result<ModelSetup> setup_of(const std::string& text) {
  LATHE_TRY(const Json json, parse_toml(text, ""));
  LATHE_TRY(const Recipe recipe, parse_recipe(json));
  return set_up_model(recipe, nullptr);
}

TEST(ModelSetup, WritesOutWhatARecipeLeavesOpen) {
  const std::string sizes =
      "hidden_size = 16\nnum_hidden_layers = 3\nnum_attention_heads = 2\nkv_lora_rank = 8\n"
      "qk_nope_head_dim = 8\nqk_rope_head_dim = 4\nv_head_dim = 8\nintermediate_size = 40\n";
  const std::string experts = "n_routed_experts = 4\nnum_experts_per_tok = 2\nmoe_intermediate_size = 8\n";
  const Result<ModelSetup> v2 =
      setup_of(str("[model]\n", sizes, experts, "n_group = 2\n[balance]\nexpert = 0.5\nscope = \"batch\"\n"));
  ASSERT_TRUE(v2) << v2.error().message;
  EXPECT_EQ(v2->config.vocab_size, 4096);
  EXPECT_EQ(v2->config.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(v2->config.aux_loss_alpha, 0.5);
  EXPECT_FALSE(v2->config.seq_aux);
  EXPECT_EQ(v2->config.max_position_embeddings, 256);
  EXPECT_EQ(parse_config(v2->json)->config, v2->config);
  EXPECT_TRUE(parse_config(v2->json)->warnings.empty());
  for (const char* type : {"llama", "deepseek", "deepseek_v3"}) {
    const Result<ModelSetup> other = setup_of(str("[model]\nmodel_type = \"", type, "\"\n", sizes, experts));
    ASSERT_TRUE(other) << other.error().message;
    EXPECT_TRUE(parse_config(other->json)->warnings.empty()) << parse_config(other->json)->warnings.front();
    EXPECT_EQ(other->config.attention == AttentionKind::kMla, std::string(type) == "deepseek_v3");
  }
  const Result<ModelSetup> dense = setup_of(str("[model]\n", sizes));
  ASSERT_TRUE(dense) << dense.error().message;
  EXPECT_FALSE(dense->config.is_moe_layer(2));
  EXPECT_EQ(dense->json.find("first_k_dense_replace")->as_int(), 3);
  const Result<ModelSetup> bad = setup_of("[model]\nhidden_size = 0\n");
  ASSERT_FALSE(bad);
  EXPECT_TRUE(bad.error().message.starts_with("model: hidden_size: expected ")) << bad.error().message;
  const Result<ModelSetup> longer = setup_of(str("[model]\n", sizes, "max_position_embeddings = 100\n"));
  ASSERT_FALSE(longer);
  EXPECT_EQ(longer.error().message,
            "train.sequence_length: expected at most model.max_position_embeddings 100, found 256");
}

}  // namespace
}  // namespace lathe::train
