#include "lathe/train/parameters.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "lathe/base/str.h"
#include "lathe/model/mtp.h"

namespace lathe {
namespace {

constexpr std::string_view kGate = "gate_proj.weight";
constexpr std::string_view kUp = "up_proj.weight";
constexpr std::string_view kEmbedding = "embed_tokens.weight";
constexpr std::string_view kHead = "lm_head.weight";

}  // namespace

Result<ParameterSet> ParameterSet::create(std::vector<Parameter> list) {
  ParameterSet set;
  set.list_ = std::move(list);
  for (const Parameter& p : set.list_) {
    set.size_ = std::max(set.size_, Workspace::padded(p.offset + p.size));
    set.count_ += p.size;
  }
  LATHE_TRY(set.memory_, Workspace::create(2 * set.size_));
  set.values_ = set.memory_.take(set.size_);
  set.gradients_ = set.memory_.take(set.size_);
  std::fill_n(set.values_, 2 * set.size_, 0.0F);
  set.by_name_.resize(set.list_.size());
  std::iota(set.by_name_.begin(), set.by_name_.end(), int64_t{0});
  std::ranges::sort(
      set.by_name_, {}, [&](int64_t i) -> const std::string& { return set.list_[static_cast<size_t>(i)].name; });
  return set;
}

int64_t ParameterSet::find(std::string_view name) const {
  const auto name_of = [&](int64_t i) -> std::string_view { return list_[static_cast<size_t>(i)].name; };
  const auto found = std::ranges::lower_bound(by_name_, name, {}, name_of);
  return found != by_name_.end() && name_of(*found) == name ? *found : -1;
}

void ParameterSet::zero_gradients(ThreadPool& pool) {
  constexpr int64_t kGrain = 1 << 16;
  pool.run(
      size_, kGrain, [&](int64_t begin, int64_t end, int) { std::fill(gradients_ + begin, gradients_ + end, 0.0F); });
}

std::vector<Parameter> model_parameters(const ModelConfig& config) {
  std::vector<Parameter> out;
  int64_t end = 0;
  std::vector<ExpectedTensor> tensors = expected_tensors(config);
  std::ranges::move(expected_mtp_tensors(config), std::back_inserter(tensors));
  for (ExpectedTensor& tensor : tensors) {
    if (tensor.optional) continue;
    Parameter p;
    p.shape = std::move(tensor.shape);
    p.size = std::accumulate(p.shape.begin(), p.shape.end(), int64_t{1}, std::multiplies<>());
    const bool joined = tensor.name.ends_with(kUp) && !out.empty() && out.back().name.ends_with(kGate);
    p.offset = joined ? end : Workspace::padded(end);
    p.decay = p.shape.size() > 1;
    p.hidden = p.shape.size() == 2 && !tensor.name.ends_with(kEmbedding) && !tensor.name.ends_with(kHead);
    p.name = std::move(tensor.name);
    end = p.offset + p.size;
    out.push_back(std::move(p));
  }
  return out;
}

}  // namespace lathe
