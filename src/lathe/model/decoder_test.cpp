// The layer loop: the order of operations, what the trace records, which logits come back.
#include "lathe/model/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "support/compare.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using ::testing::ElementsAre;
using testing::TempDir;
using testing::TinyModel;

// One number per activation, written down symbolically.
class Formula final : public Activations {
 public:
  std::string text;
};

std::string& text(Activations& x) {
  return static_cast<Formula&>(x).text;
}

const std::string& text(const Activations& x) {
  return static_cast<const Formula&>(x).text;
}

// Writes what the decoder computes as a formula.
class FormulaBackend final : public Backend {
 public:
  Result<std::unique_ptr<Activations>> allocate() override {
    if (fail) return Error{Errc::kResourceExhausted, "no memory for activations"};
    return std::unique_ptr<Activations>(std::make_unique<Formula>());
  }

  int64_t max_tokens() const override { return 4; }

  void begin_step(const Step& step) override { tokens = step.token_ids.size(); }

  void embed(Activations& x) override { text(x) = "E"; }

  void input_norm(int64_t layer, const Activations& x, Activations& y) override {
    text(y) = str("n", layer, "(", text(x), ")");
  }

  void post_attention_norm(int64_t layer, const Activations& x, Activations& y) override {
    text(y) = str("p", layer, "(", text(x), ")");
  }

  void attention(int64_t layer, const Activations& x, Activations& y) override {
    text(y) = str("a", layer, "(", text(x), ")");
  }

  void dense_ffn(int64_t layer, const Activations& x, Activations& y) override {
    text(y) = str("f", layer, "(", text(x), ")");
  }

  void moe(int64_t layer, const Activations& x, Activations& y, MoeTrace* trace) override {
    text(y) = str("m", layer, "(", text(x), ")");
    if (trace != nullptr) trace->experts = {static_cast<int32_t>(layer)};
  }

  void add(Activations& x, const Activations& y) override { text(x) += "+" + text(y); }

  void final_norm(const Activations& x, Activations& y) override { text(y) = "N(" + text(x) + ")"; }

  void head(const Activations& x, float*) override { logits = text(x); }

  void read(const Activations& x, float* out) override { out[0] = static_cast<float>(text(x).size()); }

  bool fail = false;
  size_t tokens = 0;
  std::string logits;
};

TEST(Decoder, EachSubLayerReadsTheNormedStreamAndAddsToTheStreamItself) {
  ModelConfig config;
  config.hidden_size = 1;
  config.num_hidden_layers = 2;
  config.n_routed_experts = 4;
  config.first_k_dense_replace = 1;
  FormulaBackend backend;
  Result<Decoder> decoder = Decoder::create(config, backend);
  ASSERT_TRUE(decoder.has_value());
  const std::vector<int32_t> ids{1};
  ForwardTrace trace;
  decoder->forward({.token_ids = ids, .chunks = {}, .logit_rows = {}}, nullptr, &trace);
  const std::string x1 = "E+a0(n0(E))";
  const std::string x2 = x1 + "+f0(p0(" + x1 + "))";
  const std::string x3 = x2 + "+a1(n1(" + x2 + "))";
  const std::string x4 = x3 + "+m1(p1(" + x3 + "))";
  EXPECT_EQ(backend.logits, "N(" + x4 + ")");
  // Hidden states: after the embedding and after each block, never between attention and FFN.
  ASSERT_EQ(trace.hidden.size(), 3u);
  EXPECT_EQ(trace.hidden[0][0], 1.0F);
  EXPECT_EQ(trace.hidden[1][0], static_cast<float>(x2.size()));
  EXPECT_EQ(trace.hidden[2][0], static_cast<float>(x4.size()));
  EXPECT_EQ(trace.final_norm[0], static_cast<float>(x4.size() + 3));
  ASSERT_EQ(trace.routing.size(), 2u);
  EXPECT_TRUE(trace.routing[0].experts.empty());
  EXPECT_THAT(trace.routing[1].experts, ElementsAre(1));
}

TEST(Decoder, FailsWhenTheBackendHasNoMemory) {
  const ModelConfig config;
  FormulaBackend backend;
  backend.fail = true;
  const Result<Decoder> decoder = Decoder::create(config, backend);
  ASSERT_FALSE(decoder.has_value());
  EXPECT_EQ(decoder.error().code, Errc::kResourceExhausted);
  EXPECT_EQ(decoder.error().message, "no memory for activations");
}

TEST(Decoder, ExpandedFormCoversWholeBlocksOfThePrompt) {
  EXPECT_EQ(canonical_expanded_until(1), 0);
  EXPECT_EQ(canonical_expanded_until(255), 0);
  EXPECT_EQ(canonical_expanded_until(256), 256);
  EXPECT_EQ(canonical_expanded_until(600), 512);
}

TEST(ForwardTrace, ChunksAreJoinedInOrder) {
  ForwardTrace all;
  append(all, {.hidden = {{1.0F}, {2.0F}}, .final_norm = {3.0F}, .routing = {{}, {.experts = {4}, .weights = {0.5F}}}});
  append(all,
         {.hidden = {{5.0F}, {6.0F}}, .final_norm = {7.0F}, .routing = {{}, {.experts = {8}, .weights = {0.25F}}}});
  EXPECT_THAT(all.hidden, ElementsAre(ElementsAre(1.0F, 5.0F), ElementsAre(2.0F, 6.0F)));
  EXPECT_THAT(all.final_norm, ElementsAre(3.0F, 7.0F));
  ASSERT_EQ(all.routing.size(), 2u);
  EXPECT_TRUE(all.routing[0].experts.empty());
  EXPECT_THAT(all.routing[1].experts, ElementsAre(4, 8));
  EXPECT_THAT(all.routing[1].weights, ElementsAre(0.5F, 0.25F));
}

struct OpenModel {
  TempDir folder;
  std::unique_ptr<const ModelWeights> weights;
};

void open(OpenModel& model, const TinyModel& tiny) {
  tiny.write(model.folder.path());
  model.weights = testing::open_weights(model.folder.path()).value();
}

TEST(Decoder, LogitsOfSomeRowsAreThoseRowsOfAll) {
  OpenModel model;
  open(model, TinyModel(testing::tiny_v2_config()));
  const ModelConfig& config = model.weights->config();
  const std::vector<int32_t> ids = testing::random_ids(config, 9, 2);
  const testing::Forward all = testing::forward_on_cpu(*model.weights, ids);

  const CacheLayout layout{
      .format = CacheFormat::kF32, .row_elements = config.cache_row_elements(), .layers = config.num_hidden_layers};
  std::vector<std::byte> page(static_cast<size_t>(layout.page_bytes()));
  std::byte* const pages[] = {page.data()};
  const std::unique_ptr<ThreadPool> pool = ThreadPool::create(1).value();
  const std::unique_ptr<CpuBackend> backend = CpuBackend::create(*model.weights, layout, *pool, kernels(), 9).value();
  Decoder decoder = Decoder::create(config, *backend).value();
  const SequenceChunk chunk{
      .sequence = 1, .first_row = 0, .tokens = 9, .position = 0, .expanded_until = 0, .pages = pages};
  const std::vector<int64_t> rows{3, 8};
  const auto vocab = static_cast<size_t>(config.vocab_size);
  std::vector<float> logits(2 * vocab);
  decoder.forward({.token_ids = ids, .chunks = {&chunk, 1}, .logit_rows = rows}, logits.data(), nullptr);
  testing::expect_same_bits(std::span(logits).first(vocab), std::span(all.logits).subspan(3 * vocab, vocab));
  testing::expect_same_bits(std::span(logits).subspan(vocab), std::span(all.logits).subspan(8 * vocab, vocab));
  // A prompt chunk that wants no logits at all.
  decoder.forward({.token_ids = ids, .chunks = {&chunk, 1}, .logit_rows = {}}, nullptr, nullptr);
}

TEST(Decoder, TracesHaveOneRowPerTokenAndKExpertsPerMoeLayer) {
  OpenModel model;
  open(model, TinyModel(testing::tiny_v3_config()));
  const testing::Forward out =
      testing::forward_on_cpu(*model.weights, testing::random_ids(model.weights->config(), 70, 3));
  ASSERT_EQ(out.trace.hidden.size(), 4u);
  for (const std::vector<float>& rows : out.trace.hidden) EXPECT_EQ(rows.size(), 70u * 26u);
  ASSERT_EQ(out.trace.routing.size(), 3u);
  EXPECT_TRUE(out.trace.routing[0].experts.empty());
  std::vector<int64_t> loads(8, 0);
  for (size_t layer = 1; layer < 3; ++layer) {
    ASSERT_EQ(out.trace.routing[layer].experts.size(), 70u * 3u);
    ASSERT_EQ(out.trace.routing[layer].weights.size(), 70u * 3u);
    for (const int32_t expert : out.trace.routing[layer].experts) ++loads[static_cast<size_t>(expert)];
    for (size_t t = 0; t < 70; ++t) {
      const float* w = out.trace.routing[layer].weights.data() + t * 3;
      EXPECT_NEAR(w[0] + w[1] + w[2], 3.0F, 1e-5F) << "normalised, times routed_scaling_factor";
    }
  }
  EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), int64_t{0}), 2 * 70 * 3) << "sum of loads = T * K per layer";
}

}  // namespace
}  // namespace lathe
