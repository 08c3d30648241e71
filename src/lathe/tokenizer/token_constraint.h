// TokenConstraint: what decides, token by token, which ids a sequence may be continued with (grammar-constrained
// output). The sampler asks it for a mask before each choice and tells it what was chosen.
#pragma once

#include <cstdint>
#include <span>

namespace lathe {

// State of one sequence; not shared between sequences and not thread safe.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Sets bit id % 64 of mask[id / 64] for every id that may come next and clears all others; mask has
  // (vocab_size + 63) / 64 words. End-of-sequence ids are set exactly where the output may end. At least one bit is set
  // as long as every accepted id was allowed.
  virtual void allowed(std::span<uint64_t> mask) = 0;

  // Moves on by one chosen id. False, and no change, when it was not allowed.
  virtual bool accept(int32_t id) = 0;

  // The output is complete: nothing but an end-of-sequence id is allowed.
  virtual bool finished() const = 0;
};

}  // namespace lathe
