// Reads tokenizer.json and tokenizer_config.json. Both may come from strangers: every field is checked before use.
#include <algorithm>
#include <utility>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/regex_unicode.h"
#include "lathe/tokenizer/tokenizer_state.h"

namespace lathe {
namespace {

Error wrong(std::string_view where, std::string_view what) {
  return {Errc::kInvalidData, str(where, ": ", what)};
}

Error unsupported(std::string_view where, std::string_view what) {
  return {Errc::kUnsupported, str(where, ": ", what)};
}

// The member of that name; null where there is none.
const Json& member(const Json& json, std::string_view key) {
  static const Json null;
  const Json* found = json.find(key);
  return found != nullptr ? *found : null;
}

Result<bool> bool_or(const Json& json, std::string_view key, bool fallback, std::string_view where) {
  const Json& value = member(json, key);
  if (value.is_null()) return fallback;
  if (!value.is_bool()) return wrong(str(where, key), str("expected a boolean, found ", value.kind_name()));
  return value.as_bool();
}

// A value for a message.
std::string shown(const Json& value) {
  if (value.is_string()) return quoted(value.as_string());
  return value.is_array() || value.is_object() ? std::string(value.kind_name()) : value.dump();
}

Result<int32_t> token_id(const Json& value, const std::string& where) {
  if (!value.is_int()) return wrong(where, str("expected an integer id, found ", value.kind_name()));
  const int64_t id = value.as_int();
  if (id < 0 || id > kMaxTokenId) return wrong(where, str("expected an id from 0 to ", kMaxTokenId, ", found ", id));
  return static_cast<int32_t>(id);
}

// Fields of model that change the algorithm; all of them are at these values in byte-level BPE.
Status check_model_fields(const Json& model, bool all_bytes) {
  const Json& type = member(model, "type");
  if (!type.is_string() || type.as_string() != "BPE") {
    return unsupported("model.type", str("expected \"BPE\", found ", shown(type)));
  }
  const Json& dropout = member(model, "dropout");
  if (!dropout.is_null() && !(dropout.is_number() && dropout.as_double() == 0.0)) {
    return unsupported("model.dropout", str("expected null, found ", shown(dropout)));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json& value = member(model, key);
    if (value.is_null() || (value.is_string() && value.as_string().empty())) continue;
    return unsupported(str("model.", key), str("expected null, found ", shown(value)));
  }
  for (const char* key : {"fuse_unk", "byte_fallback"}) {
    LATHE_TRY(const bool value, bool_or(model, key, false, "model."));
    if (value) return unsupported(str("model.", key), "expected false, found true");
  }
  // With a token for every byte nothing is ever unknown.
  const Json& unknown = member(model, "unk_token");
  if (!unknown.is_null() && !all_bytes) {
    return unsupported("model.unk_token", str("expected null, found ", shown(unknown)));
  }
  return {};
}

Result<AddedToken> parse_added_token(const Json& json, const std::string& where) {
  if (!json.is_object()) return wrong(where, str("expected an object, found ", json.kind_name()));
  AddedToken token;
  LATHE_TRY(token.id, token_id(member(json, "id"), str(where, ".id")));
  const Json& content = member(json, "content");
  if (!content.is_string()) {
    return wrong(str(where, ".content"), str("expected a string, found ", content.kind_name()));
  }
  token.content = content.as_string();
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    return wrong(str(where, ".content"),
                 str("expected 1 to ", kMaxAddedTokenBytes, " bytes, found ", token.content.size()));
  }
  const std::string prefix = where + ".";
  LATHE_TRY(token.special, bool_or(json, "special", false, prefix));
  LATHE_TRY(token.normalized, bool_or(json, "normalized", !token.special, prefix));
  LATHE_TRY(token.single_word, bool_or(json, "single_word", false, prefix));
  LATHE_TRY(token.lstrip, bool_or(json, "lstrip", false, prefix));
  LATHE_TRY(token.rstrip, bool_or(json, "rstrip", false, prefix));
  return token;
}

// Sorted by content; contents and ids are unique.
Result<std::vector<AddedToken>> parse_added_tokens(const Json& json) {
  std::vector<AddedToken> tokens;
  if (json.is_null()) return tokens;
  if (!json.is_array()) return wrong("added_tokens", str("expected an array, found ", json.kind_name()));
  tokens.reserve(json.as_array().size());
  for (size_t i = 0; i < json.as_array().size(); ++i) {
    LATHE_TRY(AddedToken token, parse_added_token(json.as_array()[i], str("added_tokens[", i, "]")));
    tokens.push_back(std::move(token));
  }
  const auto first_pair = [&](auto&& equal) {
    const auto at = std::adjacent_find(tokens.begin(), tokens.end(), equal);
    return at == tokens.end() ? nullptr : &*at;
  };
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  if (const AddedToken *twice = first_pair([](const auto& a, const auto& b) { return a.id == b.id; })) {
    return wrong(
        "added_tokens",
        str("id ", twice->id, " is given twice, to ", quoted(twice[0].content), " and ", quoted(twice[1].content)));
  }
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.content < b.content; });
  if (const AddedToken *twice = first_pair([](const auto& a, const auto& b) { return a.content == b.content; })) {
    return wrong("added_tokens",
                 str(quoted(twice->content), " is given twice, as ", twice[0].id, " and ", twice[1].id));
  }
  return tokens;
}

// Whether a token stands for a character of ordinary text: a letter, or one of Latin-1, which the alphabet of
// byte-level vocabularies takes for bytes (the division sign is the one of DeepSeek's thirteen that is no letter).
bool is_letter(const AddedToken& token) {
  size_t size = 0;
  const char32_t c = decode_utf8(token.content, size);
  if (token.special || size != token.content.size()) return false;
  if (c >= 0xA1 && c <= 0xFF) return true;
  unicode::RangeSet letters;
  unicode::property("L", letters);
  letters.normalise();
  return letters.contains(c);
}

class Loader {
 public:
  Loader(const Json& json, Tokenizer::State& state) : json_(json), state_(state) {}

  Status load() {
    if (!json_.is_object()) return wrong("document", str("expected an object, found ", json_.kind_name()));
    LATHE_TRY(check_normalizer(member(json_, "normalizer")));
    const Json& model = member(json_, "model");
    if (!model.is_object()) return wrong("model", str("expected an object, found ", model.kind_name()));
    LATHE_TRY(added_, parse_added_tokens(member(json_, "added_tokens")));
    LATHE_TRY(load_vocabulary(member(model, "vocab")));
    const auto& bytes = state_.byte_ids;
    const bool all_bytes = std::find(bytes.begin(), bytes.end(), kNoToken) == bytes.end();
    LATHE_TRY(check_model_fields(model, all_bytes));
    LATHE_TRY(state_.ignore_merges, bool_or(model, "ignore_merges", false, "model."));
    LATHE_TRY(load_merges(member(model, "merges")));
    LATHE_TRY(state_.pretokenizer, Pretokenizer::parse(member(json_, "pre_tokenizer")));
    LATHE_TRY(check_decoder(member(json_, "decoder")));
    finish();
    return {};
  }

 private:
  static Status check_normalizer(const Json& normalizer) {
    if (normalizer.is_null()) return {};
    const Json& type = member(normalizer, "type");
    const Json& list = member(normalizer, "normalizers");
    const bool sequence = type.is_string() && type.as_string() == "Sequence";
    if (sequence && list.is_array() && list.as_array().empty()) return {};
    if (sequence && list.is_array()) return check_normalizer(list.as_array()[0]);
    return unsupported("normalizer", str("unsupported normalizer ", shown(type.is_null() ? normalizer : type)));
  }

  static Status check_decoder(const Json& decoder) {
    const Json& type = member(decoder, "type");
    if (type.is_string() && type.as_string() == "ByteLevel") return {};
    return unsupported("decoder", str("expected ByteLevel, found ", shown(type.is_null() ? decoder : type)));
  }

  const AddedToken* added(std::string_view content) const {
    const auto at = std::lower_bound(
        added_.begin(), added_.end(), content, [](const AddedToken& t, std::string_view c) { return t.content < c; });
    return at != added_.end() && at->content == content ? &*at : nullptr;
  }

  Status load_vocabulary(const Json& vocab) {
    if (!vocab.is_object()) return wrong("model.vocab", str("expected an object, found ", vocab.kind_name()));
    const Json::Object& tokens = vocab.as_object();
    if (tokens.empty()) return wrong("model.vocab", "no tokens");
    int32_t highest = 0;
    for (const auto& [text, value] : tokens) {
      if (value.is_int() && value.as_int() >= 0 && value.as_int() <= kMaxTokenId) {
        highest = std::max(highest, static_cast<int32_t>(value.as_int()));
        continue;
      }
      const Result<int32_t> id = token_id(value, str("model.vocab[", quoted(text), "]"));
      if (!id) return id.error();
    }
    for (const AddedToken& token : added_) highest = std::max(highest, token.id);
    state_.vocabulary.reserve(highest, tokens.size());
    state_.byte_ids.fill(kNoToken);
    for (const auto& [text, value] : tokens) {
      LATHE_TRY(load_token(text, static_cast<int32_t>(value.as_int())));
    }
    return load_added();
  }

  Status load_token(const std::string& text, int32_t id) {
    if (text.empty()) return wrong("model.vocab", str("empty token text for id ", id));
    if (state_.vocabulary.contains(id)) {
      return wrong(str("model.vocab[", quoted(text), "]"), str("id ", id, " is given twice"));
    }
    const AddedToken* as_added = added(text);
    if (as_added != nullptr && as_added->id != id) {
      return wrong("added_tokens", str(quoted(text), " has id ", as_added->id, ", model.vocab has ", id));
    }
    const bool in_alphabet = bytes_of_token_text(text, buffer_);
    if (!in_alphabet && as_added == nullptr) {
      return wrong(str("model.vocab[", quoted(text), "]"), "not in the byte-level alphabet and not an added token");
    }
    // An added token stands for its text, whatever bytes the alphabet makes of it, and a special one must not come out
    // of text that was not searched for added tokens.
    const bool only_added =
        !in_alphabet || (as_added != nullptr && (buffer_ != text || (as_added->special && text.size() > 1)));
    if (only_added) {
      state_.vocabulary.add_added_token(id, text);
    } else {
      state_.vocabulary.add_model_token(id, buffer_);
      if (buffer_.size() == 1) state_.byte_ids[static_cast<unsigned char>(buffer_[0])] = id;
    }
    return {};
  }

  Status load_added() {
    for (const AddedToken& token : added_) {
      if (!state_.vocabulary.contains(token.id)) {
        state_.vocabulary.add_added_token(token.id, token.content);
      } else if (state_.vocabulary.bytes(token.id) != token.content) {
        return wrong("added_tokens",
                     str(quoted(token.content),
                         " has id ",
                         token.id,
                         ", which model.vocab gives to ",
                         quoted(state_.vocabulary.bytes(token.id))));
      }
    }
    return {};
  }

  Status load_merges(const Json& merges) {
    if (!merges.is_array()) return wrong("model.merges", str("expected an array, found ", merges.kind_name()));
    const Json::Array& list = merges.as_array();
    state_.merges.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      std::string_view left, right;
      if (!merge_parts(list[i], left, right)) {
        return wrong(str("model.merges[", i, "]"), str("expected two tokens, found ", shown(list[i])));
      }
      LATHE_TRY(const int32_t left_id, merge_token(left, i));
      const std::string left_bytes = buffer_;
      LATHE_TRY(const int32_t right_id, merge_token(right, i));
      buffer_.insert(0, left_bytes);
      const int32_t result = state_.vocabulary.find(buffer_);
      if (result == kNoToken) return unknown_merge(str(left, right), i);
      state_.merges.add(left_id, right_id, static_cast<uint32_t>(i), result);
    }
    return {};
  }

  static bool merge_parts(const Json& merge, std::string_view& left, std::string_view& right) {
    if (merge.is_string()) {
      const std::string_view text = merge.as_string();
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) return false;
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (merge.is_array() && merge.as_array().size() == 2 && merge.as_array()[0].is_string() &&
               merge.as_array()[1].is_string()) {
      left = merge.as_array()[0].as_string();
      right = merge.as_array()[1].as_string();
    }
    return !left.empty() && !right.empty();
  }

  Error unknown_merge(std::string_view text, size_t index) const {
    const bool special = added(text) != nullptr;
    return wrong(str("model.merges[", index, "]"),
                 str(quoted(text), special ? " is a special token" : " is not in model.vocab"));
  }

  // Leaves the bytes of the token in buffer_.
  Result<int32_t> merge_token(std::string_view text, size_t index) {
    const int32_t id = bytes_of_token_text(text, buffer_) ? state_.vocabulary.find(buffer_) : kNoToken;
    if (id == kNoToken) return unknown_merge(text, index);
    return id;
  }

  void finish() {
    const auto size = static_cast<size_t>(state_.vocabulary.size());
    state_.whole = std::make_unique<std::atomic<Tokenizer::State::Whole>[]>(size);
    state_.special.assign(size, false);
    std::vector<AddedToken> raw, normalized, letters;
    for (AddedToken& token : added_) {
      if (token.special) state_.special[static_cast<size_t>(token.id)] = true;
      if (is_letter(token)) letters.push_back(token);
      (token.normalized ? normalized : raw).push_back(std::move(token));
    }
    state_.raw_added = AddedTokenMatcher(std::move(raw));
    state_.normalized_added = AddedTokenMatcher(std::move(normalized));
    state_.letters = AddedTokenMatcher(std::move(letters));
  }

  const Json& json_;
  Tokenizer::State& state_;
  std::vector<AddedToken> added_;
  std::string buffer_;
};

// A special token: null, a string, or an object with `content`.
Result<std::string> special_text(const Json& config, std::string_view key) {
  const Json& value = member(config, key);
  if (value.is_null()) return std::string();
  const Json& text = value.is_object() ? member(value, "content") : value;
  if (!text.is_string()) return wrong(key, str("expected a string or an object with content, found ", shown(value)));
  return text.as_string();
}

// A string, or a list of {name, template} of which "default" counts.
Result<std::string> chat_template_text(const Json& value) {
  if (value.is_null()) return std::string();
  if (value.is_string()) return value.as_string();
  if (!value.is_array()) {
    return wrong("chat_template", str("expected a string or an array, found ", value.kind_name()));
  }
  for (const Json& entry : value.as_array()) {
    const Json& name = member(entry, "name");
    const Json& text = member(entry, "template");
    if (!name.is_string() || !text.is_string()) {
      return wrong("chat_template", str("expected {\"name\": ..., \"template\": ...}, found ", shown(entry)));
    }
    if (name.as_string() == "default") return text.as_string();
  }
  return std::string();
}

}  // namespace

Status load_tokenizer_json(const Json& json, Tokenizer::State& state) {
  return Loader(json, state).load();
}

Status load_tokenizer_config(const Json& json, TokenizerConfig& config) {
  if (!json.is_object()) return wrong("document", str("expected an object, found ", json.kind_name()));
  LATHE_TRY(config.bos_text, special_text(json, "bos_token"));
  LATHE_TRY(config.eos_text, special_text(json, "eos_token"));
  LATHE_TRY(config.add_bos, bool_or(json, "add_bos_token", !config.bos_text.empty(), ""));
  if (config.add_bos && config.bos_text.empty()) return wrong("add_bos_token", "true, but there is no bos_token");
  LATHE_TRY(const bool add_eos, bool_or(json, "add_eos_token", false, ""));
  if (add_eos) return unsupported("add_eos_token", "expected false, found true");
  LATHE_TRY(config.chat_template, chat_template_text(member(json, "chat_template")));
  return {};
}

Status resolve_special_tokens(Tokenizer::State& state) {
  const auto resolve = [&](const std::string& text, std::string_view key, std::optional<int32_t>& id) -> Status {
    if (text.empty()) return {};
    id = state.find(text);
    if (!id) return wrong(key, str(quoted(text), " is not in the vocabulary"));
    return {};
  };
  LATHE_TRY(resolve(state.config.bos_text, "bos_token", state.bos_id));
  return resolve(state.config.eos_text, "eos_token", state.eos_id);
}

}  // namespace lathe
