#include "lathe/server/api_response.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe::server {

namespace {

// JSON has no infinity; clients compare numbers.
double finite(double logprob) {
  return std::isfinite(logprob) ? logprob : -9999.0;
}

std::string token_text(const Tokenizer& tokenizer, int32_t id) {
  return to_valid_utf8(tokenizer.token_bytes(id));
}

int64_t characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

Json token_entry(const Tokenizer& tokenizer, int32_t id, double logprob) {
  Json::Array bytes;
  for (const char c : tokenizer.token_bytes(id)) bytes.emplace_back(static_cast<int>(static_cast<unsigned char>(c)));
  Json out = Json::object();
  out.set("token", token_text(tokenizer, id));
  out.set("logprob", finite(logprob));
  out.set("bytes", std::move(bytes));
  return out;
}

double rounded(double value) {
  return std::round(value * 1000.0) / 1000.0;
}

double per_second(int64_t count, double seconds) {
  return seconds > 0.0 ? rounded(static_cast<double>(count) / seconds) : 0.0;
}

}  // namespace

AnswerIdentity new_identity(bool chat, std::string model) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string id = chat ? "chatcmpl-" : "cmpl-";
  for (int half = 0; half < 2; ++half) {
    uint64_t bits = random_seed();
    for (int i = 0; i < 12; ++i, bits >>= 4) id += kDigits[bits & 15];
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.id = std::move(id),
          .created = std::chrono::duration_cast<std::chrono::seconds>(now).count(),
          .model = std::move(model)};
}

Json to_json(const Usage& usage) {
  Json prompt = Json::object();
  prompt.set("cached_tokens", usage.cached_tokens);
  Json completion = Json::object();
  completion.set("reasoning_tokens", usage.reasoning_tokens);
  Json out = Json::object();
  out.set("prompt_tokens", usage.prompt_tokens);
  out.set("completion_tokens", usage.completion_tokens);
  out.set("total_tokens", usage.prompt_tokens + usage.completion_tokens);
  out.set("prompt_tokens_details", std::move(prompt));
  out.set("completion_tokens_details", std::move(completion));
  return out;
}

Json to_json(const Timings& t) {
  Json out = Json::object();
  out.set("cache_n", t.cached_tokens);
  out.set("prompt_n", t.prompt_tokens);
  out.set("prompt_ms", rounded(t.prompt_s * 1000));
  out.set("prompt_per_second", per_second(t.prompt_tokens, t.prompt_s));
  out.set("predicted_n", t.predicted_tokens);
  out.set("predicted_ms", rounded(t.predicted_s * 1000));
  // The first token comes out of the prompt's pass.
  out.set("predicted_per_second", per_second(std::max<int64_t>(t.predicted_tokens - 1, 0), t.predicted_s));
  out.set("queue_ms", rounded(t.queue_s * 1000));
  if (t.draft_tokens > 0) {
    out.set("draft_n", t.draft_tokens);
    out.set("draft_n_accepted", t.accepted_draft_tokens);
    out.set("drafter", name_of(t.drafter));
  }
  return out;
}

Json to_json(const PromptEvent& event) {
  Json out = Json::object();
  out.set("total", event.total);
  out.set("cache", event.cached);
  out.set("processed", event.done);
  out.set("time_ms", rounded(event.seconds * 1000));
  return out;
}

Json chat_logprobs(const Tokenizer& tokenizer, std::span<const SampledToken> tokens) {
  Json content = Json::array();
  for (const SampledToken& token : tokens) {
    Json entry = token_entry(tokenizer, token.id, token.logprob);
    Json top = Json::array();
    for (const TokenLogprob& other : token.top) top.push(token_entry(tokenizer, other.id, other.logprob));
    entry.set("top_logprobs", std::move(top));
    content.push(std::move(entry));
  }
  Json out = Json::object();
  out.set("content", std::move(content));
  out.set("refusal", Json());
  return out;
}

Json completion_logprobs(const Tokenizer& tokenizer,
                         std::span<const SampledToken> tokens,
                         bool first_is_unknown,
                         int64_t& offset) {
  Json texts = Json::array();
  Json logprobs = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const SampledToken& token = tokens[i];
    std::string text = token_text(tokenizer, token.id);
    offsets.push(offset);
    if (!tokenizer.is_special(token.id)) offset += characters(text);  // others are not in the text
    if (i == 0 && first_is_unknown) {
      logprobs.push(Json());
      tops.push(Json());
    } else {
      Json top = Json::object();
      for (const TokenLogprob& other : token.top) top.set(token_text(tokenizer, other.id), finite(other.logprob));
      top.set(text, finite(token.logprob));
      logprobs.push(finite(token.logprob));
      tops.push(std::move(top));
    }
    texts.push(std::move(text));
  }
  Json out = Json::object();
  out.set("tokens", std::move(texts));
  out.set("token_logprobs", std::move(logprobs));
  out.set("top_logprobs", std::move(tops));
  out.set("text_offset", std::move(offsets));
  return out;
}

Json prompt_logprobs(const Tokenizer& tokenizer, std::span<const SampledToken> tokens) {
  Json out = Json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i == 0) {
      out.push(Json());
      continue;
    }
    Json position = Json::object();
    const auto add = [&](int32_t id, double logprob, const Json& rank) {
      Json entry = Json::object();
      entry.set("logprob", finite(logprob));
      entry.set("rank", rank);
      entry.set("decoded_token", token_text(tokenizer, id));
      position.set(str(id), std::move(entry));
    };
    // Its rank is known where it is among the reported ones.
    add(tokens[i].id, tokens[i].logprob, Json());
    for (size_t k = 0; k < tokens[i].top.size(); ++k) {
      add(tokens[i].top[k].id, tokens[i].top[k].logprob, static_cast<int64_t>(k + 1));
    }
    out.push(std::move(position));
  }
  return out;
}

Json envelope(const AnswerIdentity& identity, std::string_view object) {
  Json out = Json::object();
  out.set("id", identity.id);
  out.set("object", object);
  out.set("created", identity.created);
  out.set("model", identity.model);
  return out;
}

std::string stream_event(const Json& json) {
  return str("data: ", json.dump(), "\n\n");
}

}  // namespace lathe::server
