#include "lathe/train/spike_guard.h"

#include <algorithm>
#include <cmath>

namespace lathe::train {
namespace {

constexpr double kMemory = 0.98;  // of the running mean: about the last 50 steps

}  // namespace

bool SpikeGuard::is_bad(double loss, double gradient_norm) {
  bool bad = !std::isfinite(loss) || !std::isfinite(gradient_norm);
  if (!bad && count_ >= recipe_.after_steps && count_ > 0) {
    const double limit = std::max(recipe_.margin, recipe_.deviations * std::sqrt(variance_));
    bad = loss - mean_ > limit;
  }
  if (recipe_.action == GuardAction::kOff) bad = false;
  if (bad) {
    ++in_a_row_;
    ++bad_steps_;
    return true;
  }
  in_a_row_ = 0;
  if (!std::isfinite(loss)) return false;
  // Plain mean at first, so that the early steps count alike.
  const double keep = std::min(kMemory, static_cast<double>(count_) / static_cast<double>(count_ + 1));
  const double apart = loss - mean_;
  mean_ += (1.0 - keep) * apart;
  variance_ = keep * (variance_ + (1.0 - keep) * apart * apart);
  ++count_;
  return false;
}

Json SpikeGuard::state() const {
  Json out = Json::object();
  out.set("count", count_);
  out.set("mean", mean_);
  out.set("variance", variance_);
  out.set("in_a_row", in_a_row_);
  out.set("bad_steps", bad_steps_);
  return out;
}

Status SpikeGuard::restore(const Json& state) {
  const Json* count = state.find("count");
  const Json* mean = state.find("mean");
  const Json* variance = state.find("variance");
  const Json* in_a_row = state.find("in_a_row");
  const Json* bad_steps = state.find("bad_steps");
  if (count == nullptr || !count->is_int() || mean == nullptr || !mean->is_number() || variance == nullptr ||
      !variance->is_number() || in_a_row == nullptr || !in_a_row->is_int() || bad_steps == nullptr ||
      !bad_steps->is_int()) {
    return Error{Errc::kInvalidData, "guard: expected its counts, found others"};
  }
  count_ = count->as_int();
  mean_ = mean->as_double();
  variance_ = variance->as_double();
  in_a_row_ = in_a_row->as_int();
  bad_steps_ = bad_steps->as_int();
  return {};
}

}  // namespace lathe::train
