// Sums of products that come from a file: exact, or known to have overflowed. Internal to model/.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "lathe/model/shapes.h"

namespace lathe {

// Adds products of non-negative factors; remembers an overflow instead of wrapping.
class CheckedSum {
 public:
  CheckedSum& add(std::initializer_list<int64_t> factors);
  CheckedSum& add(const CheckedSum& other, int64_t times = 1);

  // nullopt after an overflow.
  std::optional<int64_t> value() const { return overflow_ ? std::nullopt : std::optional<int64_t>(sum_); }

 private:
  int64_t sum_ = 0;
  bool overflow_ = false;
};

// count_parameters for a config whose size was not checked yet; nullopt when a count does not fit int64_t.
std::optional<ParameterCounts> checked_parameter_counts(const ModelConfig& config);

}  // namespace lathe
