// The multi-token prediction layer as drafter: its logits are the golden ones however its rows came into the cache, its
// guesses are those of the layer alone whatever shares the engine, and answers stay what they are without it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lathe/reference/reference_backend.h"
#include "lathe/runtime/engine.h"
#include "support/compare.h"
#include "support/gguf_model.h"
#include "support/golden_file.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace lathe {
namespace {

using testing::gguf_of;
using testing::golden_dir;
using testing::golden_models;
using testing::GoldenFile;
using testing::GoldenModel;
using ::testing::HasSubstr;
using testing::predictable_model;
using testing::TempDir;
using testing::TinyModel;

// Weights with the layer, a decoder over them and a cache for one sequence.
class LayerBench {
 public:
  LayerBench(const ModelWeights& weights, const KernelTable& table, int64_t tokens)
      : config_(weights.config()),
        layout_(with_mtp_layer({.format = CacheFormat::kF32,
                                .row_elements = config_.cache_row_elements(),
                                .layers = config_.num_hidden_layers},
                               config_)),
        pool_(ThreadPool::create(2).value()),
        backend_(CpuBackend::create(weights, layout_, *pool_, table, tokens).value()),
        decoder_(Decoder::create(config_, *backend_).value()) {
    const auto page = static_cast<size_t>(layout_.page_bytes());
    const auto count = static_cast<size_t>((tokens + kPageTokens - 1) / kPageTokens);
    memory_.resize(count * page, std::byte{0xff});  // NaN: a row that nobody wrote must not be read
    for (size_t i = 0; i < count; ++i) pages_.push_back(memory_.data() + i * page);
  }

  // The main model's final-normed rows [T, d].
  std::vector<float> run_main(std::span<const int32_t> ids) {
    const SequenceChunk chunk{.sequence = 1,
                              .first_row = 0,
                              .tokens = static_cast<int64_t>(ids.size()),
                              .position = 0,
                              .expanded_until = 0,
                              .pages = pages_};
    decoder_.forward({.token_ids = ids, .chunks = {&chunk, 1}, .logit_rows = {}}, nullptr, nullptr);
    std::vector<float> rows(ids.size() * static_cast<size_t>(config_.hidden_size));
    decoder_.read_normed(rows.data());
    return rows;
  }

  // The layer at positions [begin, end): only its cache rows, or logits [end - begin, V] too.
  std::vector<float> run_layer(
      std::span<const int32_t> ids, const std::vector<float>& rows, int64_t begin, int64_t end, bool logits) {
    const SequenceChunk chunk{
        .sequence = 1, .first_row = 0, .tokens = end - begin, .position = begin, .expanded_until = 0, .pages = pages_};
    std::vector<int64_t> wanted;
    for (int64_t i = 0; logits && i < end - begin; ++i) wanted.push_back(i);
    std::vector<float> out(wanted.size() * static_cast<size_t>(config_.vocab_size));
    const Step step{.token_ids = ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                    .chunks = {&chunk, 1},
                    .logit_rows = wanted};
    const float* hidden = rows.data() + (begin - 1) * config_.hidden_size;
    if (logits) {
      decoder_.forward_mtp(*backend_, step, hidden, out.data());
    } else {
      decoder_.store_mtp(*backend_, step, hidden);
    }
    return out;
  }

 private:
  const ModelConfig& config_;
  CacheLayout layout_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<CpuBackend> backend_;
  Decoder decoder_;
  std::vector<std::byte> memory_;
  std::vector<std::byte*> pages_;
};

TEST(MtpDrafter, LayerGivesTheGoldenLogits) {
  int compared = 0;
  for (const GoldenModel& model : golden_models()) {
    if (!model.name.starts_with("v3-")) continue;
    const auto weights = testing::open_weights(model.folder, MtpLayer::kUse).value();
    const GoldenFile expected(model.expected / "expected.safetensors");
    for (const std::string& prompt : model.prompts) {
      const std::vector<int32_t> ids = expected.ints(prompt + ".input_ids");
      const auto tokens = static_cast<int64_t>(ids.size());
      const std::vector<float> wanted = expected.floats(prompt + ".mtp_postnorm.logits");
      for (const KernelTable* table : all_kernels()) {
        SCOPED_TRACE(str(model.name, " ", prompt, " ", table->isa));
        LayerBench bench(*weights, *table, tokens);
        const std::vector<float> logits = bench.run_layer(ids, bench.run_main(ids), 1, tokens, true);
        ASSERT_EQ(logits.size(), wanted.size());
        double worst = 0.0;
        for (size_t i = 0; i < wanted.size(); ++i) {
          worst = std::max(worst, std::fabs(static_cast<double>(logits[i]) - wanted[i]));
        }
        EXPECT_LE(worst, testing::logit_tolerance(model, prompt));
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 6);
}

// Random weights, a sequence of several pages, in pieces: the layer's rows from the equations and from the kernels.
TEST(MtpDrafter, LayerMatchesTheEquations) {
  const TempDir folder;
  Json json = testing::tiny_v3_config();
  json.set("num_nextn_predict_layers", 1);
  TinyModel(json, 11).write(folder.path());
  const auto weights = testing::open_weights(folder.path(), MtpLayer::kUse).value();
  const ModelConfig& config = weights->config();
  const std::vector<int32_t> ids = testing::random_ids(config, 150, 4);
  LayerBench bench(*weights, kernels(), 150);
  const std::vector<float> rows = bench.run_main(ids);
  reference::ReferenceBackend equations(*weights);
  Decoder decoder = Decoder::create(config, equations).value();
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{1, 2}, {2, 70}, {70, 150}}) {
    const std::vector<float> logits = bench.run_layer(ids, rows, begin, end, true);
    const SequenceChunk chunk{.sequence = 1, .first_row = 0, .tokens = end - begin, .position = begin, .pages = {}};
    std::vector<int64_t> wanted;
    for (int64_t i = 0; i < end - begin; ++i) wanted.push_back(i);
    std::vector<float> expected(logits.size());
    decoder.forward_mtp(
        equations,
        {.token_ids = std::span(ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
         .chunks = {&chunk, 1},
         .logit_rows = wanted},
        rows.data() + (begin - 1) * config.hidden_size,
        expected.data());
    testing::expect_close(logits, expected, testing::tol::kF32Reduction);
  }
}

// As the drafter does it: rows stored without the rest of the layer, in pieces, then one row with logits.
TEST(MtpDrafter, StoredRowsAreThoseOfTheWholeLayer) {
  const GoldenFile expected(golden_dir() / "v3-tiny" / "expected.safetensors");
  const auto weights = testing::open_weights(golden_dir() / "v3-tiny", MtpLayer::kUse).value();
  const std::vector<int32_t> ids = expected.ints("long.input_ids");
  const auto tokens = static_cast<int64_t>(ids.size());
  const auto vocab = static_cast<size_t>(weights->config().vocab_size);
  LayerBench whole(*weights, kernels(), tokens);
  const std::vector<float> rows = whole.run_main(ids);
  const std::vector<float> all = whole.run_layer(ids, rows, 1, tokens, true);
  LayerBench pieces(*weights, kernels(), tokens);
  int64_t stored = 1;
  for (const int64_t position : {1, 2, 3, 63, 64, 65, 128, 190}) {
    for (; stored < position; stored = std::min<int64_t>(stored + 40, position)) {
      pieces.run_layer(ids, rows, stored, std::min<int64_t>(stored + 40, position), false);
    }
    const std::vector<float> one = pieces.run_layer(ids, rows, position, position + 1, true);
    testing::expect_same_bits(one, std::span(all).subspan(static_cast<size_t>(position - 1) * vocab, vocab));
  }
}

std::unique_ptr<Engine> open_or_fail(EngineOptions options) {
  options.threads = 2;
  Result<std::unique_ptr<Engine>> engine = Engine::open(options);
  EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
  return engine ? std::move(*engine) : nullptr;
}

Request request_of(std::vector<int32_t> prompt, int64_t max_tokens, double temperature = 0.0) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  request.sampling.temperature = temperature;
  request.sampling.seed = 5;
  request.sampling.logprobs = 1;
  return request;
}

Completion generate(Engine& engine, Request request) {
  Result<Completion> completion = engine.generate(std::move(request));
  EXPECT_TRUE(completion.has_value()) << (completion ? "" : completion.error().message);
  return completion ? std::move(*completion) : Completion{};
}

void expect_same_answer(const Completion& a, const Completion& b) {
  ASSERT_EQ(a.tokens.size(), b.tokens.size());
  for (size_t i = 0; i < a.tokens.size(); ++i) {
    ASSERT_EQ(a.tokens[i].id, b.tokens[i].id) << i;
    ASSERT_EQ(a.tokens[i].logprob, b.tokens[i].logprob) << i;
  }
}

TEST(MtpDrafter, GuessesOfALayerThatKnowsAreAllRight) {
  const TempDir folder;
  predictable_model(0.0).write(folder.path());
  const std::unique_ptr<Engine> plain = open_or_fail({.model = folder.path()});
  for (const CacheFormat cache : {CacheFormat::kF16, CacheFormat::kF32, CacheFormat::kQ8}) {
    const std::unique_ptr<Engine> engine =
        open_or_fail({.model = folder.path(), .cache_type = cache, .draft_tokens = 4, .drafter = DrafterKind::kMtp});
    const Completion drafted = generate(*engine, request_of({2, 9, 30}, 200));
    ASSERT_EQ(drafted.tokens.size(), 200u);
    EXPECT_EQ(drafted.tokens[0].id, (7 * 30 + 3) % 40);
    EXPECT_EQ(drafted.drafter, DrafterKind::kMtp);
    EXPECT_EQ(drafted.accepted_draft_tokens, drafted.draft_tokens);
    EXPECT_GT(drafted.accepted_draft_tokens, 150) << "four of five, but for the ends of pages";
    EXPECT_EQ(engine->stats().steps, 200 - drafted.accepted_draft_tokens);
    if (cache == CacheFormat::kF16) expect_same_answer(drafted, generate(*plain, request_of({2, 9, 30}, 200)));
  }
}

// Some guesses are right and some are not, greedy and sampled, at every length of drafts.
TEST(MtpDrafter, AnswersAreThoseWithoutIt) {
  const TempDir folder;
  predictable_model(0.1).write(folder.path());
  const std::unique_ptr<Engine> plain = open_or_fail({.model = folder.path()});
  const std::vector<int32_t> prompt = testing::random_ids(plain->config(), 270, 3);
  for (const double temperature : {0.0, 0.7}) {
    const Completion alone = generate(*plain, request_of(prompt, 150, temperature));
    for (const int64_t drafts : {1, 2, 7}) {
      SCOPED_TRACE(str(temperature, " ", drafts));
      const std::unique_ptr<Engine> engine = open_or_fail(
          {.model = folder.path(), .max_batch_tokens = 50, .draft_tokens = drafts, .drafter = DrafterKind::kMtp});
      const Completion drafted = generate(*engine, request_of(prompt, 150, temperature));
      expect_same_answer(drafted, alone);
      EXPECT_GT(drafted.accepted_draft_tokens, 10);
      EXPECT_LT(drafted.accepted_draft_tokens, drafted.draft_tokens);
    }
  }
}

struct Counts {
  int64_t drafts = 0;
  int64_t right = 0;

  friend bool operator==(const Counts&, const Counts&) = default;
};

std::ostream& operator<<(std::ostream& out, const Counts& counts) {
  return out << counts.right << " of " << counts.drafts;
}

Counts counts_of(const Completion& completion) {
  return {completion.draft_tokens, completion.accepted_draft_tokens};
}

// One guess a step: which are made and which are right depends on the request alone. A row of the layer that is missing
// or another's shows as another count.
TEST(MtpDrafter, GuessesDoNotDependOnChunksPrefixesOrCompany) {
  const TempDir folder;
  predictable_model(0.1).write(folder.path());
  const EngineOptions options{.model = folder.path(), .draft_tokens = 1, .drafter = DrafterKind::kMtp};
  std::vector<Request> requests;
  std::vector<Counts> alone;
  const std::unique_ptr<Engine> first = open_or_fail(options);
  for (const int64_t own : {1, 20, 63, 64, 65, 100}) {
    std::vector<int32_t> prompt = testing::random_ids(first->config(), 128, 1);
    const std::vector<int32_t> rest = testing::random_ids(first->config(), own, static_cast<uint64_t>(own));
    prompt.insert(prompt.end(), rest.begin(), rest.end());
    requests.push_back(request_of(std::move(prompt), 140));
    alone.push_back(counts_of(generate(*first, requests.back())));
    EXPECT_GT(alone.back().right, 20);
    EXPECT_LT(alone.back().right, alone.back().drafts - 10) << "else wrong rows would not show";
  }

  EngineOptions small = options;
  small.max_batch_tokens = 23;
  small.cache_tokens = 4096;
  small.prefix_cache = true;
  const std::unique_ptr<Engine> chunked = open_or_fail(small);
  for (size_t i = 0; i < requests.size(); ++i) {
    // The second time all is there but the last token, and, inside a page, the one before: the layer wants its row.
    const int64_t tokens = std::ssize(requests[i].prompt);
    for (const int64_t cached : {int64_t{i == 0 ? 0 : 128}, std::max((tokens - 1) / 64 * 64, tokens - 2)}) {
      const Completion completion = generate(*chunked, requests[i]);
      EXPECT_EQ(completion.cached_prompt_tokens, cached) << i;
      EXPECT_EQ(counts_of(completion), alone[i]) << i << " with a prefix of " << cached;
    }
  }

  EngineOptions many = options;
  many.max_batch_tokens = 512;
  many.cache_tokens = 4096;
  const std::unique_ptr<Engine> shared = open_or_fail(many);
  std::vector<Counts> together(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    // All prompts fit one step each, so that answers never lack rows for their guesses.
    while (shared->stats().waiting > 0) shared->step();
    ASSERT_TRUE(shared
                    ->submit(requests[i],
                             [&together, i](RequestId, Result<Completion> completion) {
                               ASSERT_TRUE(completion.has_value()) << completion.error().message;
                               together[i] = counts_of(*completion);
                             })
                    .has_value());
  }
  while (shared->step()) {
  }
  EXPECT_EQ(together, alone);
}

// Two requests with the same beginning and different ends, where the second takes over pages while the first is still
// running, and a later one that continues the first one's answer.
TEST(MtpDrafter, PagesOfAnswersServeThoseWhoContinueThem) {
  const TempDir folder;
  predictable_model(0.1).write(folder.path());
  const EngineOptions options{.model = folder.path(), .draft_tokens = 1, .drafter = DrafterKind::kMtp};
  EngineOptions caching = options;
  caching.cache_tokens = 2048;
  caching.prefix_cache = true;
  const std::unique_ptr<Engine> plain = open_or_fail(options);
  const std::unique_ptr<Engine> engine = open_or_fail(caching);
  Request request = request_of(testing::random_ids(plain->config(), 100, 8), 100);
  const Completion before = generate(*engine, request);
  EXPECT_EQ(counts_of(before), counts_of(generate(*plain, request)));
  for (const SampledToken& token : before.tokens) request.prompt.push_back(token.id);
  request.prompt.push_back(17);
  const Completion after = generate(*engine, request);
  EXPECT_EQ(after.cached_prompt_tokens, 192);
  const Completion alone = generate(*plain, request);
  expect_same_answer(after, alone);
  EXPECT_EQ(counts_of(after), counts_of(alone));
}

TEST(MtpDrafter, PackedWeightsAndGgufDraftToo) {
  const TempDir dir;
  const std::filesystem::path folder = golden_dir() / "v3-tiny";
  gguf_of(folder, {.mtp = true}).write(dir / "joint.gguf");
  gguf_of(folder, {.latent = testing::LatentForm::kSplit, .mtp = true}).write(dir / "split.gguf");
  const Request request = request_of({5, 17, 200, 31}, 40);
  std::vector<Counts> counts;
  for (const std::filesystem::path& model : {folder, dir / "joint.gguf", dir / "split.gguf"}) {
    SCOPED_TRACE(model.string());
    const Completion plain = generate(*open_or_fail({.model = model, .compute = Compute::kF32}), request);
    const Completion drafted = generate(
        *open_or_fail({.model = model, .compute = Compute::kF32, .draft_tokens = 2, .drafter = DrafterKind::kMtp}),
        request);
    expect_same_answer(drafted, plain);
    counts.push_back(counts_of(drafted));
    EXPECT_GT(counts.back().drafts, 0);
    EXPECT_EQ(counts.back(), counts.front());
  }
  for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ4_0}) {
    for (const Compute compute : {Compute::kAuto, Compute::kF32}) {
      const EngineOptions plain{.model = folder, .compute = compute, .weight_type = type};
      EngineOptions with_layer = plain;
      with_layer.draft_tokens = 2;
      with_layer.drafter = DrafterKind::kMtp;
      const std::unique_ptr<Engine> engine = open_or_fail(with_layer);
      const Completion drafted = generate(*engine, request);
      EXPECT_GT(drafted.draft_tokens, 0);
      EXPECT_TRUE(engine->weights().packed()->find("model.layers.3.self_attn.o_proj.weight").has_value());
      expect_same_answer(drafted, generate(*open_or_fail(plain), request));
    }
  }
}

// Weights packed with the layer are another file than those without.
TEST(MtpDrafter, PackedFilesWithAndWithoutTheLayerLieSideBySide) {
  const TempDir dir;
  const std::filesystem::path folder = golden_dir() / "v3-tiny";
  const auto pack = [&](MtpLayer mtp) {
    const ModelConfig config = load_config(folder).value().config;
    const Checkpoint checkpoint = Checkpoint::open(folder).value();
    const std::unique_ptr<ThreadPool> pool = ThreadPool::create(2).value();
    PackedPlan plan = plan_packing(config, checkpoint, QuantType::kQ8_0, PackLayout::kPanels, mtp).value();
    return PackedWeights::open(
               std::move(plan), checkpoint, *pool, {.cache_folder = dir.path(), .smallest_file = 0, .on_progress = {}})
        .value();
  };
  const auto without = pack(MtpLayer::kSkip);
  const auto with = pack(MtpLayer::kUse);
  EXPECT_GT(with->bytes(), without->bytes());
  EXPECT_EQ(with->is_mapped(), without->is_mapped());
  constexpr const char* kOfTheLayer = "model.layers.3.mlp.experts.0.up_proj.weight";
  EXPECT_TRUE(with->find(kOfTheLayer).has_value());
  EXPECT_FALSE(without->find(kOfTheLayer).has_value());
  EXPECT_TRUE(pack(MtpLayer::kUse)->find(kOfTheLayer).has_value());
}

TEST(MtpDrafter, IsChosenWhereThereIsALayer) {
  const TempDir with;
  const TempDir without;
  predictable_model(0.0).write(with.path());
  TinyModel stripped = predictable_model(0.0);  // as many conversions leave it: the configuration still counts it
  std::erase_if(stripped.tensors, [](const auto& entry) { return entry.first.starts_with("model.layers.3."); });
  stripped.write(without.path());
  EXPECT_EQ(open_or_fail({.model = with.path()})->stats().drafter, DrafterKind::kText);
  EXPECT_EQ(open_or_fail({.model = with.path(), .drafter = std::nullopt})->stats().drafter, DrafterKind::kMtp);
  EXPECT_EQ(open_or_fail({.model = without.path(), .drafter = std::nullopt})->stats().drafter, DrafterKind::kText);
  const Result<std::unique_ptr<Engine>> refused = Engine::open({.model = without.path(), .drafter = DrafterKind::kMtp});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(refused.error().message,
            str("drafter mtp: expected a model with a multi-token prediction layer, found none in ", without.path()));

  TinyModel broken = predictable_model(0.0);
  broken.tensors.erase("model.layers.3.shared_head.norm.weight");
  const TempDir third;
  broken.write(third.path());
  const Result<std::unique_ptr<Engine>> incomplete =
      Engine::open({.model = third.path(), .drafter = DrafterKind::kMtp});
  ASSERT_FALSE(incomplete.has_value());
  EXPECT_THAT(incomplete.error().message,
              HasSubstr("model.layers.3.shared_head.norm.weight: expected [26], found no such tensor"));
}

TEST(MtpDrafter, ThePlanCountsTheLayer) {
  const TempDir folder;
  const TinyModel model = predictable_model(0.0);
  model.write(folder.path());
  const EngineOptions options{.model = folder.path(), .ctx_size = 256};
  EngineOptions with_layer = options;
  with_layer.drafter = DrafterKind::kMtp;
  const std::unique_ptr<Engine> without = open_or_fail(options);
  const std::unique_ptr<Engine> with = open_or_fail(with_layer);
  uint64_t layer_bytes = 0;
  for (const ExpectedTensor& tensor : expected_mtp_tensors(model.config())) {
    layer_bytes += 4 * static_cast<uint64_t>(tensor.shape[0] * (tensor.shape.size() > 1 ? tensor.shape[1] : 1));
  }
  EXPECT_EQ(with->plan().weights, without->plan().weights + layer_bytes);
  // Four pages: 64 rows of 18 halves, and one row of 26 floats in whole cache lines.
  EXPECT_EQ(with->plan().cache, without->plan().cache + uint64_t{4} * (64 * 18 * 2 + 128));
  EXPECT_GT(with->plan().scratch, without->plan().scratch);
}

}  // namespace
}  // namespace lathe
