// Counter-based random numbers (Philox 4x32-10): a value depends on (key, counter) alone, so that sampling a token
// depends on its request's seed and position and on nothing else that runs.
#pragma once

#include <array>
#include <cstdint>

namespace lathe {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1) with 53 random bits, for the `index`-th draw of `stream` under `seed`.
double uniform(uint64_t seed, uint64_t stream, uint64_t index);

// A sequential generator on top of it, for tests and synthetic weights.
class Rng {
 public:
  explicit Rng(uint64_t seed) : seed_(seed) {}

  double next_uniform() { return uniform(seed_, 0, index_++); }

  double next_normal();                         // mean 0, deviation 1
  int64_t next_int(int64_t low, int64_t high);  // both ends included

 private:
  uint64_t seed_;
  uint64_t index_ = 0;
};

}  // namespace lathe
