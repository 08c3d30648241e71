// Byte-level BPE from a HuggingFace tokenizer.json: added tokens, Sequence/Split/Digits/ByteLevel pre-tokenizers,
// merges. tokenizer_class is ignored on purpose (spec checkpoints.md section 3); what tokenizer.json says is what
// happens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/utf8.h"

namespace lathe {

enum class AddedTokens {
  kRecognise,  // text of added tokens becomes their id: for rendered templates
  // For text of users, which must not forge special tokens, but is to be read as the model learnt it: of the added
  // tokens only single letters are recognised (DeepSeek's older vocabularies have thirteen, such as "ü"). Never one
  // that is marked special or is longer than one character.
  kText,
  kPlain,  // no added token at all
};

// Part of a text and how its added tokens are treated.
struct TextPart {
  std::string_view text;
  AddedTokens added_tokens = AddedTokens::kPlain;
};

class Tokenizer {
 public:
  struct State;  // internal: tokenizer_state.h

  // Reads folder/tokenizer.json and, where present, folder/tokenizer_config.json.
  static Result<Tokenizer> open(const std::filesystem::path& folder);
  // From the texts of the two files (the second may be empty); the entry point that is fuzzed.
  static Result<Tokenizer> parse(std::string_view tokenizer_json, std::string_view tokenizer_config_json);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Token ids of `text`, without BOS. Time is near linear in the text for every vocabulary and pattern. Bytes that are
  // not UTF-8 are encoded one by one, as U+FFFD where the vocabulary has no token for them; valid characters for which
  // it has none are left out, as the original library does without unk_token. Thread safe.
  std::vector<int32_t> encode(std::string_view text, AddedTokens added_tokens) const;
  // Token ids of one text that comes in parts: added tokens are only recognised inside one part, as it says, but all
  // other tokens may span parts. So "User: " and "Hi" give the ids of "User: Hi", and nobody forges a special token.
  std::vector<int32_t> encode(std::span<const TextPart> parts) const;

  // The exact bytes of the ids (may be invalid UTF-8); ids outside the vocabulary yield nothing. Special tokens are
  // left out when skip_special is set.
  std::string decode_bytes(std::span<const int32_t> ids, bool skip_special) const;
  // The same as text: invalid UTF-8 replaced by U+FFFD (maximal-subpart rule).
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;
  std::string token_bytes(int32_t id) const;  // bytes of one token, special tokens as their text

  int32_t vocabulary_size() const;  // one more than the highest id of model.vocab and added_tokens
  bool contains(int32_t id) const;  // false for holes in the numbering
  bool is_special(int32_t id) const;
  // An added token that AddedTokens::kText does not recognise: a marker rather than text, special or not.
  bool is_marker(int32_t id) const;
  // By content, not in the byte-level alphabet (" the", not "Ġthe"); added tokens first.
  std::optional<int32_t> find(std::string_view token_text) const;

  std::optional<int32_t> bos_id() const;  // from tokenizer_config.json's bos_token, eos_token, pad_token
  std::optional<int32_t> eos_id() const;
  std::string_view bos_text() const;  // empty when there is none
  std::string_view eos_text() const;
  bool add_bos() const;  // add_bos_token; true when the field is absent and a BOS exists
  // From chat_template.jinja or tokenizer_config.json ("default" of a list); empty when absent.
  const std::string& chat_template() const;

 private:
  Tokenizer();
  std::unique_ptr<State> state_;
};

// Incremental decoding for streams: text appears as soon as its characters are whole.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special) : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // Text that became whole with this token.
  std::string push(int32_t id);
  // The held back rest, repaired.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  Utf8Stream utf8_;
};

}  // namespace lathe
