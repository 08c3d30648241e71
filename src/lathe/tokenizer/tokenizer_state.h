// What a Tokenizer is made of; filled by tokenizer_load.cpp, used by tokenizer.cpp.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/tokenizer/bpe.h"
#include "lathe/tokenizer/pretokenizer.h"
#include "lathe/tokenizer/tokenizer.h"
#include "lathe/tokenizer/tokenizer_added.h"
#include "lathe/tokenizer/tokenizer_vocabulary.h"

namespace lathe {

// tokenizer_config.json, as far as it is used.
struct TokenizerConfig {
  std::string bos_text;
  std::string eos_text;
  bool add_bos = false;
  std::string chat_template;
};

struct Tokenizer::State {
  // Whether byte-pair merging of a token's own bytes gives that token; found out on first use (any thread may, all find
  // the same).
  enum class Whole : uint8_t { kUnknown, kYes, kNo };

  Vocabulary vocabulary;
  BpeMerges merges;
  std::array<int32_t, 256> byte_ids{};  // kNoToken where the vocabulary lacks a byte
  bool ignore_merges = false;
  std::unique_ptr<std::atomic<Whole>[]> whole;  // by id

  Pretokenizer pretokenizer;
  AddedTokenMatcher raw_added;         // `normalized` false: matched first
  AddedTokenMatcher normalized_added;  // matched in what is left
  AddedTokenMatcher letters;           // those of both that AddedTokens::kText recognises
  std::vector<bool> special;           // by id

  TokenizerConfig config;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;

  // The id of a content, added tokens first.
  std::optional<int32_t> find(std::string_view text) const;
};

// Fills vocabulary, merges, added tokens and pre-tokenizer. Errors name the field or the token.
Status load_tokenizer_json(const Json& json, Tokenizer::State& state);
// Fills `config`; null: everything stays at its default.
Status load_tokenizer_config(const Json& json, TokenizerConfig& config);
// Looks up the special tokens that `config` names.
Status resolve_special_tokens(Tokenizer::State& state);

}  // namespace lathe
