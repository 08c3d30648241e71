// tokenizer.json, zero byte, tokenizer_config.json, zero byte, a text to encode. Ids stay inside the vocabulary, and
// decoding the ids of a text gives back the text when no added token took part and the vocabulary has every byte.
#include <vector>

#include "fuzz.h"
#include "lathe/tokenizer/tokenizer.h"

using lathe::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const std::string_view json = lathe::fuzz::take_part(rest);
  const std::string_view config = lathe::fuzz::take_part(rest);
  const std::string_view text = rest.substr(0, 4096);

  const lathe::Result<lathe::Tokenizer> tokenizer = lathe::Tokenizer::parse(json, config);
  if (!tokenizer) {
    lathe::fuzz::require_clean_message(tokenizer.error().message);
    return 0;
  }
  for (const lathe::AddedTokens added : {lathe::AddedTokens::kRecognise, lathe::AddedTokens::kPlain}) {
    const std::vector<int32_t> ids = tokenizer->encode(text, added);
    require(ids.size() <= 2 * text.size() + 1, "more tokens than bytes");  // a prefix space per piece at most
    for (const int32_t id : ids) {
      require(id >= 0 && id < tokenizer->vocabulary_size() && tokenizer->contains(id), "id outside the vocabulary");
    }
    std::string streamed;
    lathe::StreamDecoder decoder(*tokenizer, false);
    for (const int32_t id : ids) streamed += decoder.push(id);
    streamed += decoder.finish();
    require(streamed == tokenizer->decode(ids, false), "streamed text differs from decoded text");
  }
  const int32_t strange[] = {-1, 0, tokenizer->vocabulary_size(), INT32_MAX, INT32_MIN};
  require(lathe::is_valid_utf8(tokenizer->decode(strange, false)), "decoded text is not UTF-8");
  return 0;
}
