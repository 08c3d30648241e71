#include "lathe/model/synthetic_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "lathe/base/rng.h"
#include "lathe/base/scalar.h"
#include "lathe/base/str.h"
#include "lathe/model/packed_plan.h"
#include "lathe/model/shapes.h"

namespace lathe {
namespace {

constexpr double kDeviation = 0.02;
constexpr int kEmbeddingScale = 8;  // power of two: rows of deviation 5 outweigh what all blocks add
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr int64_t kAlignment = 32;     // values: a cache line
constexpr size_t kPeriod = 4'194'301;  // prime, so that rows of different matrices do not line up

// A tensor that is kept as BF16, and where its values lie.
struct Placed {
  ExpectedTensor tensor;
  int64_t first = 0;
  int64_t count = 0;
};

struct Layout {
  std::vector<Placed> tensors;
  int64_t values = 0;
};

// What is not among the packed matrices. Sizes are bounded by the configuration's checks (kMaxParameters).
Layout lay_out(const ModelConfig& config, const PackedPlan& packed) {
  std::unordered_set<std::string> elsewhere;
  for (const PackedEntry& entry : packed.entries) elsewhere.insert(entry.name);
  Layout out;
  for (ExpectedTensor& tensor : expected_tensors(config)) {
    if (tensor.optional || elsewhere.contains(tensor.name)) continue;
    int64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= extent;
    out.tensors.push_back({.tensor = std::move(tensor), .first = out.values, .count = count});
    out.values += (count + kAlignment - 1) / kAlignment * kAlignment;
  }
  return out;
}

PackedPlan packed_plan(const ModelConfig& config, std::optional<QuantType> type) {
  return type ? plan_synthetic(config, *type) : PackedPlan{};
}

// Value i is that of the table at i modulo its size.
void fill(uint16_t* values, int64_t count, uint64_t seed, ThreadPool& pool) {
  std::vector<uint16_t> table(std::min(kPeriod, static_cast<size_t>(count)));
  Rng rng(seed);
  for (uint16_t& value : table) value = float_to_bf16(static_cast<float>(kDeviation * rng.next_normal()));
  const auto period = static_cast<int64_t>(table.size());
  constexpr int64_t kGrain = int64_t{1} << 20;
  pool.run(count, kGrain, [&](int64_t begin, int64_t end, int) {
    while (begin < end) {
      const int64_t at = begin % period;
      const int64_t run = std::min(end - begin, period - at);
      std::memcpy(values + begin, table.data() + at, static_cast<size_t>(run) * sizeof(uint16_t));
      begin += run;
    }
  });
}

// What blocks add has a part that all tokens share (attention over random positions averages), and routers would choose
// the same experts for every token if it prevailed. So the embedding, which tells tokens apart, is made large.
void scale_embedding(uint16_t* values, int64_t count, ThreadPool& pool) {
  pool.run(count, int64_t{1} << 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      values[i] = float_to_bf16(std::ldexp(bf16_to_float(values[i]), kEmbeddingScale));
    }
  });
}

}  // namespace

Result<uint64_t> synthetic_weight_bytes(const ModelConfig& config, std::optional<QuantType> type) {
  const PackedPlan packed = packed_plan(config, type);
  const auto plain = static_cast<uint64_t>(lay_out(config, packed).values) * sizeof(uint16_t);
  if (packed.bytes > static_cast<uint64_t>(INT64_MAX) - plain) {
    return Error{Errc::kResourceExhausted, "made-up weights: expected less than 2^63 bytes, found more"};
  }
  return plain + packed.bytes;
}

Result<std::unique_ptr<const ModelWeights>> synthetic_weights(const ModelConfig& config,
                                                              std::optional<QuantType> type,
                                                              uint64_t seed,
                                                              ThreadPool& pool) {
  PackedPlan plan = packed_plan(config, type);
  const Layout layout = lay_out(config, plan);
  const uint64_t bytes = static_cast<uint64_t>(layout.values) * sizeof(uint16_t);
  const auto memory =
      std::make_shared<const AnonymousMemory>(std::max<uint64_t>(bytes, 1), AnonymousMemory::Commit::kOnUse);
  auto* const all = reinterpret_cast<uint16_t*>(memory->data());
  if (all == nullptr) {
    return Error{Errc::kResourceExhausted,
                 str("made-up weights: expected ", human_bytes(bytes), " of memory, found less")};
  }
  fill(all, layout.values, seed, pool);
  const uint16_t one = float_to_bf16(1.0F);
  std::vector<StoredTensor> tensors;
  for (const Placed& placed : layout.tensors) {
    uint16_t* values = all + placed.first;
    if (placed.tensor.shape.size() == 1) {
      std::fill_n(values, placed.count, placed.tensor.name.ends_with("norm.weight") ? one : uint16_t{0});
    }
    if (placed.tensor.name == kEmbedding) scale_embedding(values, placed.count, pool);
    tensors.push_back({.name = placed.tensor.name,
                       .dtype = DType::kBF16,
                       .shape = placed.tensor.shape,
                       .bytes = std::as_bytes(std::span(values, static_cast<size_t>(placed.count)))});
  }
  std::shared_ptr<const PackedWeights> packed;
  if (!plan.entries.empty()) {
    LATHE_TRY(packed, PackedWeights::synthetic(std::move(plan), seed, pool));
  }
  LATHE_TRY(Checkpoint checkpoint, Checkpoint::in_memory("made-up weights", std::move(tensors), memory));
  return ModelWeights::bind(config, std::make_shared<const Checkpoint>(std::move(checkpoint)), std::move(packed));
}

}  // namespace lathe
