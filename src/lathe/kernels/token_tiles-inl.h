// Cutting tokens into tiles whose size the compiler knows; see vec16-inl.h.
#pragma once

#include "lathe/kernels/vec16-inl.h"

namespace lathe {
namespace {

// Calls body.template operator()<n>(token) for tiles of n tokens, at most kTile <= 6, that cover [begin, end), large
// ones first.
template <int kTile, class Body>
LATHE_INLINE void for_token_tiles(int64_t begin, int64_t end, const Body& body) {
  int64_t token = begin;
  for (; end - token >= kTile; token += kTile) body.template operator()<kTile>(token);
  if constexpr (kTile > 3) {
    if (end - token >= 3) {
      body.template operator()<3>(token);
      token += 3;
    }
  }
  if (end - token >= 2) {
    body.template operator()<2>(token);
    token += 2;
  }
  if (end > token) body.template operator()<1>(token);
}

}  // namespace
}  // namespace lathe
