#include "lathe/base/rng.h"

#include <cmath>
#include <numbers>

#include "lathe/base/check.h"

namespace lathe {
namespace {

uint64_t join(uint32_t low, uint32_t high) {
  return low | (static_cast<uint64_t>(high) << 32);
}

std::array<uint32_t, 4> draw(uint64_t seed, uint64_t stream, uint64_t index) {
  return philox4x32({static_cast<uint32_t>(index),
                     static_cast<uint32_t>(index >> 32),
                     static_cast<uint32_t>(stream),
                     static_cast<uint32_t>(stream >> 32)},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

}  // namespace

// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC11), ten rounds.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xd2511f53u;
  constexpr uint64_t kMultiplier1 = 0xcd9e8d57u;
  constexpr uint32_t kWeyl0 = 0x9e3779b9u;
  constexpr uint32_t kWeyl1 = 0xbb67ae85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

double uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  const std::array<uint32_t, 4> words = draw(seed, stream, index);
  return static_cast<double>(join(words[0], words[1]) >> 11) * 0x1p-53;
}

double Rng::next_normal() {
  // Box-Muller from one draw's 128 bits. The first uniform lies in (0, 1], so that its logarithm is finite.
  const std::array<uint32_t, 4> words = draw(seed_, 0, index_++);
  const double radius = static_cast<double>((join(words[0], words[1]) >> 11) + 1) * 0x1p-53;
  const double angle = static_cast<double>(join(words[2], words[3]) >> 11) * 0x1p-53;
  return std::sqrt(-2.0 * std::log(radius)) * std::cos(2.0 * std::numbers::pi * angle);
}

int64_t Rng::next_int(int64_t low, int64_t high) {
  LATHE_CHECK(low <= high, "low ", low, ", high ", high);
  const uint64_t span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;  // 0: all 2^64 values
  const uint64_t reject_below = span == 0 ? 0 : (0 - span) % span;  // what is left is a multiple of span
  while (true) {
    const std::array<uint32_t, 4> words = draw(seed_, 0, index_++);
    const uint64_t bits = join(words[0], words[1]);
    if (bits < reject_below) continue;
    return static_cast<int64_t>(static_cast<uint64_t>(low) + (span == 0 ? bits : bits % span));
  }
}

}  // namespace lathe
