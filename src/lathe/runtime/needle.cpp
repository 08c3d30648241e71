#include "lathe/runtime/needle.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lathe/base/rng.h"
#include "lathe/runtime/prompt.h"

namespace lathe {

namespace {

constexpr int64_t kChatRoom = 24;         // tokens of a chat's answer: the key, and a few words around it
constexpr size_t kLongestSentence = 400;  // bytes, so that a text without full stops is cut too
constexpr int64_t kPaperLengths = 12;

constexpr std::array<std::string_view, 24> kSentences = {
    "The river runs slowly past the old mill.",
    "A grey cat sleeps on the warm stone wall.",
    "In the garden the apples are almost ripe.",
    "The baker opens his shop early in the morning.",
    "Two boys carry a basket of wood up the hill.",
    "The wind moves the tall grass beside the road.",
    "An old woman tells a story by the fire.",
    "The ship came back to the harbour in the evening.",
    "Snow lies on the roofs of the little town.",
    "The miller's daughter sings while she works.",
    "A brown horse stands quietly under the tree.",
    "The children walk home across the bridge.",
    "Far away a bell rings in the tower.",
    "The farmer mends the gate before the rain comes.",
    "Many birds fly over the wide green field.",
    "The king's garden has roses of every colour.",
    "A lamp burns in the window of the small house.",
    "The fisherman dries his nets in the sun.",
    "There is fresh bread and honey on the table.",
    "The path through the forest is long and dark.",
    "A shepherd counts his sheep at the gate.",
    "The moon rises late behind the mountains.",
    "Some men sit in front of the inn and talk.",
    "The water of the well is cold and clear.",
};

constexpr std::string_view kPlainIntroduction = "There is a passkey hidden in this text. Remember the passkey.\n\n";
constexpr std::string_view kChatIntroduction =
    "Somewhere in the following text a passkey is hidden. Find it and remember it.\n\n";
constexpr std::string_view kPlainQuestion = "\n\nWhat is the passkey? The passkey is";
constexpr std::string_view kChatQuestion = "\n\nWhat is the passkey? Answer with the number alone.";

std::string needle_sentence(const std::string& key) {
  return str("The passkey is ", key, ". Remember that ", key, " is the passkey.");
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// Sentences with single spaces between words.
std::vector<std::string> split_sentences(std::string_view text) {
  std::vector<std::string> out;
  std::string current;
  const auto end_sentence = [&] {
    if (!current.empty()) out.push_back(std::exchange(current, {}));
  };
  for (size_t i = 0; i < text.size();) {
    while (i < text.size() && is_space(text[i])) ++i;
    size_t end = i;
    while (end < text.size() && !is_space(text[end])) ++end;
    if (end == i) break;
    const std::string_view word = text.substr(i, end - i);
    i = end;
    if (!current.empty()) current += ' ';
    current += word;
    const size_t last = word.find_last_not_of("\"')");
    const bool stop =
        last != std::string_view::npos && std::string_view(".!?").find(word[last]) != std::string_view::npos;
    if (stop || current.size() > kLongestSentence) end_sentence();
  }
  end_sentence();
  return out;
}

// The stream of random numbers of one prompt.
uint64_t stream_of(int64_t length, double depth, int64_t sample) {
  const auto thousandths = static_cast<uint64_t>(std::llround(depth * 1000.0));
  return static_cast<uint64_t>(length) << 32U ^ thousandths << 20U ^ static_cast<uint64_t>(sample);
}

size_t draw(uint64_t seed, uint64_t stream, uint64_t index, size_t count) {
  return std::min(static_cast<size_t>(uniform(seed, stream, index) * static_cast<double>(count)), count - 1);
}

int64_t size_of(const std::vector<int32_t>& ids) {
  return static_cast<int64_t>(ids.size());
}

// Runs the request to its end unless `proceed` says no.
Result<Completion> generate(Engine& engine, Request request, const std::function<bool()>& proceed) {
  std::optional<Result<Completion>> outcome;
  LATHE_TRY(const RequestId id, engine.submit(std::move(request), [&](RequestId, Result<Completion> result) {
    outcome.emplace(std::move(result));
  }));
  while (!outcome) {
    if (proceed && !proceed()) engine.cancel(id);
    if (!outcome && !engine.step() && !outcome) return Error{Errc::kInternal, "the engine is idle"};
  }
  if (*outcome && (*outcome)->finish_reason == FinishReason::kCancelled) {
    return Error{Errc::kCancelled, "needle: interrupted"};
  }
  return *std::move(outcome);
}

// Rank 1 is the most likely token; ties to the lower id.
int64_t rank_of(std::span<const float> logits, int32_t id) {
  const float value = logits[static_cast<size_t>(id)];
  int64_t rank = 1;
  for (size_t i = 0; i < logits.size(); ++i) {
    rank += logits[i] > value || (logits[i] == value && i < static_cast<size_t>(id)) ? 1 : 0;
  }
  return rank;
}

// Fills in rank and log-probability of the key's tokens by a pass over prompt and key.
Status score_key(Engine& engine, const NeedlePrompt& prompt, const std::function<bool()>& proceed, NeedleScore& score) {
  std::vector<int32_t> ids = prompt.prompt;
  ids.insert(ids.end(), prompt.answer.begin(), prompt.answer.end() - 1);
  const int64_t first_row = size_of(prompt.prompt) - 1;  // its logits predict the first token of the key
  const auto vocab = static_cast<size_t>(engine.config().vocab_size);
  bool stopped = false;
  bool finite = true;
  LATHE_TRY(engine.score(ids, [&](int64_t first, int64_t rows, const float* logits) {
    stopped = proceed && !proceed();
    for (int64_t i = std::max<int64_t>(0, first_row - first); i < rows; ++i) {
      const std::span<const float> row(logits + static_cast<size_t>(i) * vocab, vocab);
      const int32_t wanted = prompt.answer[static_cast<size_t>(first + i - first_row)];
      const double logprob = row[static_cast<size_t>(wanted)] - log_sum_exp(row);
      finite = finite && std::isfinite(logprob);
      score.logprob += logprob;
      score.reciprocal_rank += 1.0 / static_cast<double>(rank_of(row, wanted));
    }
    return !stopped && finite;
  }));
  if (stopped) return Error{Errc::kCancelled, "needle: interrupted"};
  if (!finite) return Error{Errc::kInvalidData, "logits: expected finite values, found others"};
  score.logprob /= static_cast<double>(prompt.answer.size());
  score.reciprocal_rank /= static_cast<double>(prompt.answer.size());
  score.computed += size_of(ids);
  return {};
}

}  // namespace

bool names_key(std::string_view text, std::string_view key) {
  constexpr std::string_view kDigits = "0123456789";
  const size_t begin = text.find_first_of(kDigits);
  if (begin == std::string_view::npos) return false;
  const size_t end = std::min(text.find_first_not_of(kDigits, begin), text.size());
  return text.substr(begin, end - begin) == key;
}

std::vector<int64_t> needle_depths() {
  std::vector<int64_t> depths;
  for (int64_t i = 0; i < kPaperLengths; ++i) {
    depths.push_back(std::llround(100.0 * static_cast<double>(i) / (kPaperLengths - 1)));
  }
  return depths;
}

std::vector<int64_t> needle_lengths(int64_t shortest, int64_t context) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < kPaperLengths; ++i) {
    // The figure: 1K + i * 127K / 11 of 128K.
    const double share = (1.0 + 127.0 * static_cast<double>(i) / (kPaperLengths - 1)) / 128.0;
    const int64_t length =
        std::max(std::llround(static_cast<double>(context) * share), static_cast<long long>(shortest));
    if (length <= context && (lengths.empty() || lengths.back() < length)) lengths.push_back(length);
  }
  return lengths;
}

Result<NeedlePrompts> NeedlePrompts::create(const Tokenizer& tokenizer, NeedleOptions options) {
  NeedlePrompts prompts(tokenizer, std::move(options));
  if (prompts.options_.filler.empty()) {
    prompts.sentences_.assign(kSentences.begin(), kSentences.end());
  } else {
    prompts.sentences_ = split_sentences(prompts.options_.filler);
    if (prompts.sentences_.empty()) return Error{Errc::kInvalidData, "expected a text to hide a key in, found no word"};
  }
  // The longest sentence, twice, so that every length from here on has filler on both sides of the key.
  const auto longest = std::ranges::max_element(prompts.sentences_, {}, &std::string::size);
  LATHE_TRY(const NeedlePrompt prompt, prompts.assemble({*longest, *longest}, 1, "88888"));
  prompts.shortest_ = size_of(prompt.prompt) + prompt.room;
  return prompts;
}

std::string NeedlePrompts::sentence(uint64_t stream, size_t first, size_t index) const {
  if (!options_.filler.empty()) return sentences_[(first + index) % sentences_.size()];
  return sentences_[draw(options_.seed, stream, 16 + index, sentences_.size())];
}

Result<NeedlePrompt> NeedlePrompts::assemble(const std::vector<std::string>& filler,
                                             size_t before,
                                             const std::string& key) const {
  NeedlePrompt out;
  out.key = key;
  out.text = options_.chat != nullptr ? kChatIntroduction : kPlainIntroduction;
  for (size_t i = 0; i <= filler.size(); ++i) {
    if (i == before) out.text += needle_sentence(key) + (i < filler.size() ? " " : "");
    if (i < filler.size()) out.text += filler[i] + (i + 1 < filler.size() || i + 1 == before ? " " : "");
  }
  out.text += options_.chat != nullptr ? kChatQuestion : kPlainQuestion;
  if (options_.chat != nullptr) {
    Json message = Json::object();
    message.set("role", "user");
    message.set("content", out.text);
    LATHE_TRY(const Json variables, template_variables(*tokenizer_, Json(Json::Array{std::move(message)})));
    LATHE_TRY(out.prompt, encode_chat(*tokenizer_, *options_.chat, variables));
    out.answer = tokenizer_->encode(key, AddedTokens::kPlain);
    out.room = std::max(kChatRoom, size_of(out.answer) + 1);
  } else {
    // The key's ids are what follows the ids of the prompt in those of both: a tokenizer may join the last word's end
    // and the key's beginning.
    out.prompt = encode_prompt(*tokenizer_, out.text, AddedTokens::kText);
    const std::vector<int32_t> both = encode_prompt(*tokenizer_, str(out.text, " ", key), AddedTokens::kText);
    const auto [end, rest] = std::ranges::mismatch(out.prompt, both);
    out.answer.assign(rest, both.end());
    out.prompt.erase(end, out.prompt.end());
    out.room = size_of(out.answer) + 1;
  }
  if (out.prompt.empty() || out.answer.empty()) {
    return Error{Errc::kInvalidData, "tokenizer: expected token ids for a key of five digits, found none"};
  }
  return out;
}

Result<NeedlePrompt> NeedlePrompts::make(int64_t length, double depth, int64_t sample) const {
  const uint64_t stream = stream_of(length, depth, sample);
  const std::string key = str(10000 + draw(options_.seed, stream, 0, 90000));
  const size_t first = draw(options_.seed, stream, 1, sentences_.size());
  LATHE_TRY(const NeedlePrompt empty, assemble({}, 0, key));
  // Sentences alone are a good guess at what they take together; the whole is counted below.
  const int64_t budget = length - size_of(empty.prompt) - empty.room;
  std::vector<std::string> filler;
  std::vector<int64_t> ends = {0};  // tokens up to each sentence's end
  while (ends.back() <= budget) {
    filler.push_back(sentence(stream, first, filler.size()));
    const int64_t tokens = size_of(tokenizer_->encode(" " + filler.back(), AddedTokens::kText));
    ends.push_back(ends.back() + std::max<int64_t>(tokens, 1));
  }
  for (;; filler.pop_back(), ends.pop_back()) {
    const double wanted = depth * static_cast<double>(ends.back());
    const auto distance = [wanted](int64_t end) { return std::fabs(static_cast<double>(end) - wanted); };
    const auto before = static_cast<size_t>(std::ranges::min_element(ends, {}, distance) - ends.begin());
    LATHE_TRY(NeedlePrompt prompt, assemble(filler, before, key));
    if (filler.empty() || size_of(prompt.prompt) + prompt.room <= length) {
      if (ends.back() > 0) prompt.depth = static_cast<double>(ends[before]) / static_cast<double>(ends.back());
      return prompt;
    }
  }
}

Result<NeedleScore> score_needle(Engine& engine, const NeedlePrompt& prompt, const std::function<bool()>& proceed) {
  Request request;
  request.prompt = prompt.prompt;
  request.max_tokens = prompt.room;
  request.sampling.temperature = 0.0;
  request.sampling.logprobs = 0;
  LATHE_TRY(const Completion completion, generate(engine, std::move(request), proceed));
  NeedleScore score;
  score.text = completion.text;
  score.exact = names_key(completion.text, prompt.key);
  score.computed = size_of(prompt.prompt) + static_cast<int64_t>(completion.tokens.size());
  const auto same = [](const SampledToken& token, int32_t id) { return token.id == id; };
  const bool begins_with_key =
      completion.tokens.size() >= prompt.answer.size() &&
      std::ranges::equal(std::span(completion.tokens).first(prompt.answer.size()), prompt.answer, same);
  if (begins_with_key) {
    // Every token of the key was the most likely one after the right ones before it.
    score.reciprocal_rank = 1.0;
    for (size_t i = 0; i < prompt.answer.size(); ++i) score.logprob += completion.tokens[i].logprob;
    score.logprob /= static_cast<double>(prompt.answer.size());
    return score;
  }
  LATHE_TRY(score_key(engine, prompt, proceed, score));
  return score;
}

}  // namespace lathe
