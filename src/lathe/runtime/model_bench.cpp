#include "lathe/runtime/model_bench.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "lathe/base/clock.h"
#include "lathe/base/sha256.h"
#include "lathe/base/str.h"

namespace lathe {
namespace {

// The signature's run: long enough for both forms of MLA and for several cache pages.
constexpr int64_t kSignaturePrompt = kExpandedBlock + 17;
constexpr int64_t kSignatureTokens = 4;
constexpr uint64_t kSignatureSeed = 20240506;

int32_t random_id(Rng& rng, const ModelConfig& config) {
  return static_cast<int32_t>(rng.next_int(0, config.vocab_size - 1));
}

int64_t signature_positions(const ModelConfig& config) {
  return std::min(kSignaturePrompt + kSignatureTokens, config.max_position_embeddings);
}

Status check(const ModelConfig& config, const BenchSettings& settings) {
  if (settings.repeats < 1) {
    return Error{Errc::kInvalidArgument, str("bench: expected at least 1 repeat, found ", settings.repeats)};
  }
  if (settings.batch_tokens < 1) {
    return Error{Errc::kInvalidArgument, str("bench: expected a batch of at least 1, found ", settings.batch_tokens)};
  }
  const int64_t most = config.max_position_embeddings;
  for (const BenchCase& one : settings.cases) {
    if (one.tokens < 1 || one.depth < 0) {
      return Error{Errc::kInvalidArgument,
                   str("bench: expected at least 1 token and depth 0, found ", one.tokens, " at depth ", one.depth)};
    }
    if (one.depth > most || one.tokens > most - one.depth) {
      return Error{Errc::kInvalidArgument,
                   str("bench: expected at most max_position_embeddings ",
                       most,
                       " positions, found ",
                       one.tokens,
                       " tokens at depth ",
                       one.depth)};
    }
  }
  return {};
}

}  // namespace

std::string_view name_of(BenchKind kind) {
  return kind == BenchKind::kPrompt ? "prompt" : "gen";
}

BenchRow::Rate BenchRow::tokens_per_second() const {
  std::vector<double> sorted = seconds;
  std::ranges::sort(sorted);
  const auto tokens = static_cast<double>(measured.tokens);
  const size_t n = sorted.size();
  const double middle = 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]);
  return {.median = tokens / middle, .min = tokens / sorted.back(), .max = tokens / sorted.front()};
}

int64_t ModelBench::positions(const ModelConfig& config, const std::vector<BenchCase>& cases) {
  int64_t out = signature_positions(config);
  for (const BenchCase& one : cases) out = std::max(out, one.depth + one.tokens);
  return out;
}

ModelBench::ModelBench(const ModelWeights& weights, BenchSettings settings, PagePool pages)
    : weights_(weights),
      settings_(std::move(settings)),
      pages_(std::move(pages)),
      cache_(std::make_unique<SequenceCache>(pages_)),
      logits_(static_cast<size_t>(weights.config().vocab_size)),
      rng_(settings_.seed) {}

Result<std::unique_ptr<ModelBench>> ModelBench::create(const ModelWeights& weights,
                                                       ThreadPool& pool,
                                                       const KernelTable& kernels,
                                                       BenchSettings settings) {
  const ModelConfig& config = weights.config();
  LATHE_TRY(check(config, settings));
  const int64_t needed = positions(config, settings.cases);
  const int64_t batch = std::min(settings.batch_tokens, needed);
  const CacheLayout layout{
      .format = settings.cache_type, .row_elements = config.cache_row_elements(), .layers = config.num_hidden_layers};
  LATHE_TRY(PagePool pages, PagePool::create(layout, pages_for(needed)));
  std::unique_ptr<ModelBench> bench(new ModelBench(weights, std::move(settings), std::move(pages)));
  bench->settings_.batch_tokens = batch;
  if (!bench->cache_->reserve(needed)) {
    return Error{Errc::kResourceExhausted, str("no memory for a cache of ", needed, " positions")};
  }
  LATHE_TRY(bench->backend_, CpuBackend::create(weights, layout, pool, kernels, batch));
  LATHE_TRY(Decoder decoder, Decoder::create(config, *bench->backend_));
  bench->decoder_ = std::make_unique<Decoder>(std::move(decoder));
  bench->fill_cache(kernels);
  return bench;
}

// Latents come out of a norm, so that normal values are of their size. A few tiles of rows are made and copied in turn.
void ModelBench::fill_cache(const KernelTable& kernels) {
  constexpr size_t kTiles = 7;
  const CacheLayout& layout = pages_.layout();
  const auto tile_bytes = static_cast<size_t>(layout.layer_bytes());
  std::vector<std::byte> tiles(kTiles * tile_bytes);
  std::vector<float> values(static_cast<size_t>(layout.row_elements));
  for (size_t tile = 0; tile < kTiles; ++tile) {
    std::byte* const page = tiles.data() + tile * tile_bytes;
    const CacheView view{.format = layout.format, .row_elements = layout.row_elements, .pages = {&page, 1}};
    for (int64_t position = 0; position < kPageTokens; ++position) {
      for (float& value : values) value = static_cast<float>(rng_.next_normal());
      view.store(kernels, position, values.data());
    }
  }
  size_t next = 0;
  for (std::byte* page : cache_->pages()) {
    for (int64_t layer = 0; layer < layout.layers; ++layer) {
      std::memcpy(page + layer * layout.layer_bytes(), tiles.data() + next * tile_bytes, tile_bytes);
      next = (next + 1) % kTiles;
    }
  }
}

void ModelBench::forward(std::span<const int32_t> ids, int64_t position, int64_t expanded_until) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const SequenceChunk chunk{.sequence = 1,
                            .first_row = 0,
                            .tokens = tokens,
                            .position = position,
                            .expanded_until = expanded_until,
                            .pages = cache_->pages()};
  const int64_t last = tokens - 1;
  decoder_->forward({.token_ids = ids, .chunks = {&chunk, 1}, .logit_rows = {&last, 1}}, logits_.data(), nullptr);
}

std::string ModelBench::signature() {
  const ModelConfig& config = weights_.config();
  const int64_t positions = signature_positions(config);
  const int64_t prompt = std::max<int64_t>(positions - kSignatureTokens, 1);
  Rng rng(kSignatureSeed);
  ids_.resize(static_cast<size_t>(prompt));
  for (int32_t& id : ids_) id = random_id(rng, config);
  Hasher hasher(Hasher::Kind::kSha256);
  const auto hash_logits = [&] {
    hasher.update({reinterpret_cast<const char*>(logits_.data()), logits_.size() * sizeof(float)});
  };
  const int64_t expanded_until = canonical_expanded_until(prompt);
  for (int64_t at = 0; at < prompt; at += settings_.batch_tokens) {
    const int64_t tokens = std::min(settings_.batch_tokens, prompt - at);
    forward(std::span(ids_).subspan(static_cast<size_t>(at), static_cast<size_t>(tokens)), at, expanded_until);
  }
  hash_logits();
  for (int64_t position = prompt; position < positions; ++position) {
    const auto best = static_cast<int32_t>(std::ranges::max_element(logits_) - logits_.begin());
    hasher.update({reinterpret_cast<const char*>(&best), sizeof best});
    forward({&best, 1}, position, expanded_until);
    hash_logits();
  }
  return hasher.hex_digest().substr(0, 16);
}

double ModelBench::measure(const BenchCase& one) {
  const ModelConfig& config = weights_.config();
  ids_.resize(static_cast<size_t>(one.tokens));
  for (int32_t& id : ids_) id = random_id(rng_, config);
  const bool is_prompt = one.kind == BenchKind::kPrompt;
  const int64_t expanded_until = canonical_expanded_until(is_prompt ? one.depth + one.tokens : one.depth);
  const int64_t at_once = is_prompt ? settings_.batch_tokens : 1;
  const double start = now_seconds();
  for (int64_t at = 0; at < one.tokens; at += at_once) {
    const int64_t tokens = std::min(at_once, one.tokens - at);
    forward(
        std::span(ids_).subspan(static_cast<size_t>(at), static_cast<size_t>(tokens)), one.depth + at, expanded_until);
  }
  return now_seconds() - start;
}

PassCost ModelBench::cost_of(const BenchCase& one) const {
  const bool is_prompt = one.kind == BenchKind::kPrompt;
  const int64_t expanded_until = canonical_expanded_until(is_prompt ? one.depth + one.tokens : one.depth);
  const int64_t at_once = is_prompt ? settings_.batch_tokens : 1;
  PassCost sum;
  for (int64_t at = 0; at < one.tokens; at += at_once) {
    sum += pass_cost(weights_,
                     layout(),
                     {.tokens = std::min(at_once, one.tokens - at),
                      .position = one.depth + at,
                      .expanded_until = expanded_until,
                      .logit_rows = 1});
  }
  return sum;
}

std::vector<BenchRow> ModelBench::run(const BenchProgress& progress) {
  std::vector<BenchRow> rows;
  for (const BenchCase& one : settings_.cases) rows.push_back({.measured = one, .seconds = {}, .cost = cost_of(one)});
  const auto total = static_cast<int64_t>(rows.size()) * settings_.repeats;
  int64_t done = 0;
  for (int repeat = 0; repeat < settings_.repeats; ++repeat) {
    for (BenchRow& row : rows) {
      row.seconds.push_back(std::max(measure(row.measured), 1e-9));
      if (progress) progress(++done, total, row.measured);
    }
  }
  return rows;
}

}  // namespace lathe
