// Passkey retrieval, "needle in a haystack" (paper, Figure 4): a long text of little interest, a sentence with a key
// somewhere in it, the question for the key at the end. Whether a model finds it at every length and depth shows what
// of its context it really uses. A prompt depends on the seed, length, depth and sample alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/runtime/engine.h"
#include "lathe/tokenizer/chat_template.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

// What prompts are made of.
struct NeedleOptions {
  uint64_t seed = 0;
  // Text to hide the key in; empty: sentences built in, in random order. A given text begins at a random sentence and
  // starts over at its end.
  std::string filler = {};
  // With a template: the text and question are a user's message. Without: the prompt ends inside the sentence whose
  // next word is the key. Not owned.
  const ChatTemplate* chat = nullptr;
};

// One prompt. prompt and `room` more tokens are at most the length asked for, and shorter by less than one sentence.
struct NeedlePrompt {
  std::string key;              // five digits
  std::string text;             // of the prompt without special tokens; a message's content in chat form
  std::vector<int32_t> prompt;  // ids
  std::vector<int32_t> answer;  // ids of the key as it would follow the prompt
  int64_t room = 0;             // tokens that may be generated
  double depth = 0.0;           // share of the filler's tokens that stands before the key
};

// Makes prompts for one tokenizer. Thread safe.
class NeedlePrompts {
 public:
  // kInvalidData for a filler without a word, or a template that refuses a user's message. `tokenizer` and the template
  // must outlive the object.
  static Result<NeedlePrompts> create(const Tokenizer& tokenizer, NeedleOptions options);

  // Tokens of the shortest prompt that has any filler, room included: what a length must be at least.
  int64_t shortest() const { return shortest_; }

  // `length` in tokens, room included, at least shortest(); `depth` from 0 (the key comes first) to 1 (right before the
  // question).
  Result<NeedlePrompt> make(int64_t length, double depth, int64_t sample) const;

 private:
  NeedlePrompts(const Tokenizer& tokenizer, NeedleOptions options)
      : tokenizer_(&tokenizer), options_(std::move(options)) {}

  std::string sentence(uint64_t stream, size_t first, size_t index) const;
  Result<NeedlePrompt> assemble(const std::vector<std::string>& filler, size_t before, const std::string& key) const;

  const Tokenizer* tokenizer_;
  NeedleOptions options_;
  std::vector<std::string> sentences_;
  int64_t shortest_ = 0;
};

// How a model did on one prompt.
struct NeedleScore {
  bool exact = false;            // the first number of the greedy answer is the key
  double reciprocal_rank = 0.0;  // mean over the key's tokens of 1 / rank among all tokens, given the right ones before
  double logprob = 0.0;          // mean over the key's tokens, in nats
  std::string text;              // the greedy answer
  int64_t computed = 0;          // tokens that went through the model
};

// Generates an answer; where it does not begin with the key, a second pass scores the key. `proceed` is asked between
// steps (may be empty); false ends with kCancelled.
Result<NeedleScore> score_needle(Engine& engine, const NeedlePrompt& prompt, const std::function<bool()>& proceed);

// The 12 lengths of the paper's figure (1K to 128K) scaled to `context`; those below `shortest` are left out, and
// `shortest` takes the place of the first of them.
std::vector<int64_t> needle_lengths(int64_t shortest, int64_t context);

// The figure's depths in percent: 0, 9, 18, ..., 100.
std::vector<int64_t> needle_depths();

// Whether the first run of digits in `text` is `key`.
bool names_key(std::string_view text, std::string_view key);

}  // namespace lathe
