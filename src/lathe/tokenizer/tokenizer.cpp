#include "lathe/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "lathe/base/check.h"
#include "lathe/base/file.h"
#include "lathe/tokenizer/tokenizer_state.h"

namespace lathe {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr uint64_t kMaxTemplateBytes = uint64_t{4} << 20;
constexpr size_t kMaxMergeBytes = size_t{1} << 28;  // longer pieces are merged in parts

// U+FFFD stands for bytes that are not UTF-8 and that the vocabulary has no token for.
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// End of the run of valid UTF-8 that begins at `position`.
size_t valid_end(std::string_view text, size_t position) {
  while (position < text.size()) {
    if (static_cast<unsigned char>(text[position]) < 0x80) {
      ++position;
      continue;
    }
    size_t next = position;
    bool valid = false;
    decode_utf8(text, next, &valid);
    if (!valid) break;
    position = next;
  }
  return position;
}

class Encoder final : public PieceSink {
 public:
  Encoder(const Tokenizer::State& state, std::vector<int32_t>& out)
      : state_(state), run_(state.pretokenizer), out_(out) {}

  void encode(const TextPart& part) {
    cut(
        part, [this](std::string_view rest) { plain(rest); }, [] {});
  }

  // Parts of one text: what is no added token is gathered until one comes, or the end.
  void encode(std::span<const TextPart> parts) {
    std::string gathered;
    const auto gather = [&](std::string_view rest) { gathered += rest; };
    const auto flush = [&] {
      plain(gathered);
      gathered.clear();
    };
    for (const TextPart& part : parts) cut(part, gather, flush);
    flush();
  }

 private:
  using Whole = Tokenizer::State::Whole;

  // Text in which nothing is an added token.
  void plain(std::string_view text) {
    for (size_t position = 0; position < text.size();) {
      const size_t end = valid_end(text, position);
      if (end > position) run_.split(text.substr(position, end - position), *this);
      position = end;
      if (position == text.size()) break;
      bool valid = false;
      decode_utf8(text, position, &valid);
      invalid(text.substr(end, position - end));
    }
  }

  void piece(std::string_view piece) override {
    if (piece.size() == 1) return push(state_.byte_ids[static_cast<unsigned char>(piece[0])]);
    const int32_t id = state_.vocabulary.find(piece);
    if (id == kNoToken) return merge(piece);
    if (state_.ignore_merges) return push(id);
    std::atomic<Whole>& whole = state_.whole[static_cast<size_t>(id)];
    const Whole known = whole.load(std::memory_order_relaxed);
    if (known == Whole::kYes) return push(id);
    const size_t before = out_.size();
    merge(piece);
    if (known == Whole::kUnknown) {
      const bool same = out_.size() == before + 1 && out_.back() == id;
      whole.store(same ? Whole::kYes : Whole::kNo, std::memory_order_relaxed);
    }
  }

  // Calls rest() with what is no added token, and before_token() before each that is pushed.
  template <class Rest, class BeforeToken>
  void cut(const TextPart& part, const Rest& rest, const BeforeToken& before_token) {
    switch (part.added_tokens) {
      case AddedTokens::kRecognise:
        return cut(
            state_.raw_added,
            part.text,
            [&](std::string_view left) { cut(state_.normalized_added, left, rest, before_token); },
            before_token);
      case AddedTokens::kText:
        return cut(state_.letters, part.text, rest, before_token);
      case AddedTokens::kPlain:
        return rest(part.text);
    }
  }

  // The same for the added tokens of one kind.
  template <class Rest, class BeforeToken>
  void cut(const AddedTokenMatcher& matcher, std::string_view text, const Rest& rest, const BeforeToken& before_token) {
    size_t done = 0;
    while (const auto match = matcher.find(text, done)) {
      rest(text.substr(done, match->begin - done));
      before_token();
      push(match->id);
      done = match->end;
    }
    rest(text.substr(done));
  }

  void push(int32_t id) {
    if (id != kNoToken) out_.push_back(id);
  }

  void invalid(std::string_view bytes) {
    const bool known = std::all_of(bytes.begin(), bytes.end(), [this](char c) {
      return state_.byte_ids[static_cast<unsigned char>(c)] != kNoToken;
    });
    if (!known) return run_.split(kReplacement, *this);
    for (const char c : bytes) push(state_.byte_ids[static_cast<unsigned char>(c)]);
  }

  void merge(std::string_view piece) {
    for (; piece.size() > kMaxMergeBytes; piece.remove_prefix(kMaxMergeBytes)) {
      merge_part(piece.substr(0, kMaxMergeBytes));
    }
    merge_part(piece);
  }

  void merge_part(std::string_view piece) {
    scratch_.ids.clear();
    for (const char c : piece) {
      const int32_t id = state_.byte_ids[static_cast<unsigned char>(c)];
      if (id != kNoToken) scratch_.ids.push_back(id);
    }
    bpe_merge(state_.merges, scratch_);
    out_.insert(out_.end(), scratch_.ids.begin(), scratch_.ids.end());
  }

  const Tokenizer::State& state_;
  PretokenizerRun run_;
  BpeScratch scratch_;
  std::vector<int32_t>& out_;
};

Result<std::unique_ptr<Tokenizer::State>> build(std::string_view tokenizer_json, std::string_view config_json) {
  auto state = std::make_unique<Tokenizer::State>();
  {
    Result<Json> json = parse_json(tokenizer_json, {.max_bytes = kMaxFileBytes});
    if (!json) return json.error().at("tokenizer.json");
    if (const Status loaded = load_tokenizer_json(*json, *state); !loaded) return loaded.error().at("tokenizer.json");
  }
  if (!config_json.empty()) {
    Result<Json> json = parse_json(config_json, {.max_bytes = kMaxFileBytes});
    if (!json) return json.error().at("tokenizer_config.json");
    if (const Status loaded = load_tokenizer_config(*json, state->config); !loaded) {
      return loaded.error().at("tokenizer_config.json");
    }
    if (const Status found = resolve_special_tokens(*state); !found) return found.error().at("tokenizer_config.json");
  }
  return state;
}

}  // namespace

std::optional<int32_t> Tokenizer::State::find(std::string_view text) const {
  if (const AddedToken* token = raw_added.token(text)) return token->id;
  if (const AddedToken* token = normalized_added.token(text)) return token->id;
  const int32_t id = vocabulary.find(text);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

Tokenizer::Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::parse(std::string_view tokenizer_json, std::string_view tokenizer_config_json) {
  Tokenizer out;
  LATHE_TRY(out.state_, build(tokenizer_json, tokenizer_config_json));
  return out;
}

Result<Tokenizer> Tokenizer::open(const std::filesystem::path& folder) {
  LATHE_TRY(const std::string json, read_file(folder / "tokenizer.json", kMaxFileBytes));
  const auto present = [&](const char* name) {
    std::error_code error;
    return std::filesystem::exists(std::filesystem::status(folder / name, error));
  };
  std::string config;
  if (present("tokenizer_config.json")) {
    LATHE_TRY(config, read_file(folder / "tokenizer_config.json", kMaxFileBytes));
    if (config.empty()) return Error{Errc::kInvalidData, "empty file"}.at((folder / "tokenizer_config.json").string());
  }
  Result<Tokenizer> out = parse(json, config);
  if (!out) return out.error().at(folder.string());
  if (present("chat_template.jinja")) {
    LATHE_TRY(out->state_->config.chat_template, read_file(folder / "chat_template.jinja", kMaxTemplateBytes));
  }
  return out;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, AddedTokens added_tokens) const {
  std::vector<int32_t> out;
  out.reserve(text.size() / 3 + 1);
  Encoder(*state_, out).encode(TextPart{text, added_tokens});
  return out;
}

std::vector<int32_t> Tokenizer::encode(std::span<const TextPart> parts) const {
  std::vector<int32_t> out;
  Encoder(*state_, out).encode(parts);
  return out;
}

std::string Tokenizer::decode_bytes(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  for (const int32_t id : ids) {
    if (contains(id) && !(skip_special && is_special(id))) out += state_->vocabulary.bytes(id);
  }
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  return to_valid_utf8(decode_bytes(ids, skip_special));
}

std::string Tokenizer::token_bytes(int32_t id) const {
  return contains(id) ? std::string(state_->vocabulary.bytes(id)) : std::string();
}

int32_t Tokenizer::vocabulary_size() const {
  return state_->vocabulary.size();
}

bool Tokenizer::contains(int32_t id) const {
  return state_->vocabulary.contains(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return contains(id) && state_->special[static_cast<size_t>(id)];
}

bool Tokenizer::is_marker(int32_t id) const {
  if (!contains(id)) return false;
  const std::string_view text = state_->vocabulary.bytes(id);
  const auto recognised = [&](const AddedTokenMatcher& matcher) {
    const AddedToken* token = matcher.token(text);
    return token != nullptr && token->id == id;
  };
  return (recognised(state_->raw_added) || recognised(state_->normalized_added)) && !recognised(state_->letters);
}

std::optional<int32_t> Tokenizer::find(std::string_view token_text) const {
  return state_->find(token_text);
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return state_->bos_id;
}

std::optional<int32_t> Tokenizer::eos_id() const {
  return state_->eos_id;
}

std::string_view Tokenizer::bos_text() const {
  return state_->config.bos_text;
}

std::string_view Tokenizer::eos_text() const {
  return state_->config.eos_text;
}

bool Tokenizer::add_bos() const {
  return state_->config.add_bos;
}

const std::string& Tokenizer::chat_template() const {
  return state_->config.chat_template;
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  return utf8_.push(tokenizer_->token_bytes(id));
}

std::string StreamDecoder::finish() {
  return utf8_.finish();
}

}  // namespace lathe
