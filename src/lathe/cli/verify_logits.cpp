// The heart of `lathe verify`: the fast forms of the forward pass against the paper's equations in double, on the
// user's weights.
#include <algorithm>
#include <cmath>

#include "lathe/cli/verify_checks.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/cpu_backend.h"
#include "lathe/model/decoder.h"
#include "lathe/reference/reference_backend.h"
#include "lathe/runtime/page_pool.h"
#include "lathe/runtime/sampler.h"

namespace lathe::cli {

namespace {

constexpr int64_t kPromptTokens = 6;  // few, because the reference reads every weight element by element

struct Outcome {
  std::vector<float> logits;
  ForwardTrace trace;
};

Result<Outcome> forward(const ModelConfig& config,
                        Backend& backend,
                        const std::vector<int32_t>& ids,
                        bool expanded,
                        std::span<std::byte* const> pages) {
  LATHE_TRY(Decoder decoder, Decoder::create(config, backend));
  std::vector<int64_t> rows(ids.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
  const auto tokens = static_cast<int64_t>(ids.size());
  const SequenceChunk chunk{.sequence = 1,
                            .first_row = 0,
                            .tokens = tokens,
                            .position = 0,
                            .expanded_until = expanded ? tokens : 0,
                            .pages = pages};
  Outcome out;
  out.logits.resize(ids.size() * static_cast<size_t>(config.vocab_size));
  decoder.forward({.token_ids = ids, .chunks = {&chunk, 1}, .logit_rows = rows}, out.logits.data(), &out.trace);
  return out;
}

Result<Outcome> forward_on_cpu(const ModelWeights& weights,
                               ThreadPool& pool,
                               const std::vector<int32_t>& ids,
                               bool expanded) {
  const ModelConfig& config = weights.config();
  const CacheLayout layout{
      .format = CacheFormat::kF32, .row_elements = config.cache_row_elements(), .layers = config.num_hidden_layers};
  const auto tokens = static_cast<int64_t>(ids.size());
  LATHE_TRY(PagePool pages, PagePool::create(layout, pages_for(tokens)));
  SequenceCache cache(pages);
  if (!cache.reserve(tokens)) return Error{Errc::kInternal, "no cache page"};
  LATHE_TRY(const std::unique_ptr<CpuBackend> backend, CpuBackend::create(weights, layout, pool, kernels(), tokens));
  return forward(config, *backend, ids, expanded, cache.pages());
}

struct Difference {
  double worst = 0.0;
  double largest = 0.0;  // magnitude of the reference logits
  bool finite = true;
  int64_t routed = 0;    // router choices
  int64_t rerouted = 0;  // that differ
};

Difference compare(const Outcome& a, const Outcome& reference) {
  Difference d;
  for (size_t i = 0; i < reference.logits.size(); ++i) {
    d.finite = d.finite && std::isfinite(a.logits[i]) && std::isfinite(reference.logits[i]);
    d.worst = std::max(d.worst, std::fabs(static_cast<double>(a.logits[i]) - reference.logits[i]));
    d.largest = std::max(d.largest, std::fabs(static_cast<double>(reference.logits[i])));
  }
  for (size_t layer = 0; layer < reference.trace.routing.size(); ++layer) {
    const std::vector<int32_t>& wanted = reference.trace.routing[layer].experts;
    for (size_t i = 0; i < wanted.size(); ++i) {
      ++d.routed;
      d.rerouted += a.trace.routing[layer].experts[i] != wanted[i];
    }
  }
  return d;
}

// fp32 against double through all layers: far above rounding, far below what any wrong formula does.
constexpr double kExactLimit = 1e-3;
// Two forms on quantised weights, whose inputs are rounded to 8 bits in different places.
constexpr double kRoundedLimit = 0.1;

// `relative`: of the largest logit, or of 1.
void judge(std::string_view name, const Difference& d, double relative, VerifyReport& report) {
  const double limit = relative * std::max(1.0, d.largest);
  const std::string detail = str("largest difference ", fixed(d.worst, 7), " on logits up to ", fixed(d.largest, 2));
  if (!d.finite) {
    report.failed(name, "expected finite logits, found NaN or infinity");
  } else if (d.worst <= limit) {
    report.ok(name, detail);
  } else if (d.rerouted > 0 && d.rerouted * 100 <= d.routed) {
    report.warning(
        name, str(detail, "; ", d.rerouted, " of ", d.routed, " expert choices are near ties and fell the other way"));
  } else {
    report.failed(name, str("expected a difference of at most ", fixed(limit, 6), ", found ", detail));
  }
}

std::vector<int32_t> short_prompt(const ModelConfig& config, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids;
  if (tokenizer != nullptr) {
    if (tokenizer->bos_id()) ids.push_back(*tokenizer->bos_id());
    const std::vector<int32_t> text = tokenizer->encode("The capital of France is Paris.", AddedTokens::kText);
    ids.insert(ids.end(), text.begin(), text.end());
  }
  // Without a tokenizer: ids spread over the vocabulary.
  for (int64_t i = 1; static_cast<int64_t>(ids.size()) < kPromptTokens; ++i) {
    ids.push_back(static_cast<int32_t>(i * config.vocab_size / (kPromptTokens + 1)));
  }
  ids.resize(static_cast<size_t>(std::min(kPromptTokens, config.max_position_embeddings)));
  return ids;
}

// A model that says the same to everything has flat or identical logits.
void warn_if_flat(const ModelConfig& config, const Outcome& outcome, VerifyReport& report) {
  const auto vocab = static_cast<std::ptrdiff_t>(config.vocab_size);
  const auto [low, high] = std::minmax_element(outcome.logits.end() - vocab, outcome.logits.end());
  if (*high - *low < 1e-6F) report.warning("logits", "all tokens are equally likely: are these weights trained?");
}

// Quantised weights: the two forms against each other, since exact arithmetic gives other numbers than integers do.
void verify_rounded_logits(const ModelWeights& weights,
                           const std::vector<int32_t>& ids,
                           ThreadPool& pool,
                           VerifyReport& report) {
  const Result<Outcome> absorbed = forward_on_cpu(weights, pool, ids, false);
  const Result<Outcome> expanded = forward_on_cpu(weights, pool, ids, true);
  if (!absorbed || !expanded) {
    return report.failed("logits", !absorbed ? absorbed.error().message : expanded.error().message);
  }
  const bool is_mla = weights.config().attention == AttentionKind::kMla;
  judge(is_mla ? "absorbed = expanded" : "finite logits", compare(*absorbed, *expanded), kRoundedLimit, report);
  warn_if_flat(weights.config(), *absorbed, report);
}

}  // namespace

void verify_logits(const ModelWeights& weights, const Tokenizer* tokenizer, ThreadPool& pool, VerifyReport& report) {
  const ModelConfig& config = weights.config();
  const std::vector<int32_t> ids = short_prompt(config, tokenizer);
  if (weights.packed() != nullptr) return verify_rounded_logits(weights, ids, pool, report);
  reference::ReferenceBackend backend(weights);
  const Result<Outcome> reference = forward(config, backend, ids, false, {});
  const Result<Outcome> fast = forward_on_cpu(weights, pool, ids, false);
  if (!reference || !fast) {
    return report.failed("logits", !reference ? reference.error().message : fast.error().message);
  }
  const bool is_mla = config.attention == AttentionKind::kMla;
  judge(is_mla ? "absorbed = reference" : "fast = reference", compare(*fast, *reference), kExactLimit, report);
  if (is_mla) {
    const Result<Outcome> expanded = forward_on_cpu(weights, pool, ids, true);
    if (!expanded) return report.failed("logits", expanded.error().message);
    judge("expanded = reference", compare(*expanded, *reference), kExactLimit, report);
  }
  warn_if_flat(config, *fast, report);
}

}  // namespace lathe::cli
