// Rendered prompts as token ids.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lathe/tokenizer/chat_template.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

// The ids of the joined pieces, without a BOS of its own: special tokens only where the template wrote them, everything
// else as if the text were one, so that a label and the content behind it are tokenized together.
std::vector<int32_t> encode_pieces(const Tokenizer& tokenizer, std::span<const RenderedPiece> pieces);

}  // namespace lathe
