#include "lathe/tokenizer/chat_template_encode.h"

namespace lathe {

std::vector<int32_t> encode_pieces(const Tokenizer& tokenizer, std::span<const RenderedPiece> pieces) {
  std::vector<TextPart> parts;
  parts.reserve(pieces.size());
  for (const RenderedPiece& piece : pieces) {
    parts.push_back({piece.text, piece.literal ? AddedTokens::kText : AddedTokens::kRecognise});
  }
  return tokenizer.encode(parts);
}

}  // namespace lathe
