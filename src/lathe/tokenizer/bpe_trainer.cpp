#include "lathe/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <queue>
#include <unordered_map>
#include <utility>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/pretokenizer.h"

namespace lathe {
namespace {

constexpr int32_t kSpecialTokens = 2;
constexpr int32_t kBytes = 256;

constexpr std::string_view kDigitGroups = R"(\p{N}{1,3})";
constexpr std::string_view kDeepseekWords =
    R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct WordHash {
  using is_transparent = void;

  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

using WordCounts = std::unordered_map<std::string, int64_t, WordHash, std::equal_to<>>;

Json byte_level(bool use_regex) {
  Json out = Json::object();
  out.set("type", "ByteLevel");
  out.set("add_prefix_space", false);
  out.set("trim_offsets", true);
  out.set("use_regex", use_regex);
  return out;
}

Json split(std::string_view pattern) {
  Json out = Json::object();
  out.set("type", "Split");
  out.set("pattern", Json(Json::Object{{"Regex", Json(pattern)}}));
  out.set("behavior", "Isolated");
  out.set("invert", false);
  return out;
}

Json pre_tokenizer(SplitPattern pattern) {
  if (pattern == SplitPattern::kGpt2) return byte_level(true);
  Json out = Json::object();
  out.set("type", "Sequence");
  out.set("pretokenizers", Json(Json::Array{split(kDigitGroups), split(kDeepseekWords), byte_level(false)}));
  return out;
}

// GPT-2's character of every byte, and the bytes in the order of their characters: that of the ids.
struct Alphabet {
  std::array<std::string, kBytes> character;
  std::array<unsigned char, kBytes> order{};

  Alphabet() {
    std::array<char32_t, kBytes> code{};
    char32_t next = 0x100;
    for (size_t byte = 0; byte < kBytes; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      code[byte] = printable ? static_cast<char32_t>(byte) : next++;
      append_utf8(character[byte], code[byte]);
      order[byte] = static_cast<unsigned char>(byte);
    }
    std::ranges::sort(order, {}, [&](unsigned char byte) { return code[byte]; });
  }
};

using Pair = std::pair<int32_t, int32_t>;

uint64_t key_of(Pair pair) {
  return static_cast<uint64_t>(static_cast<uint32_t>(pair.first)) << 32 | static_cast<uint32_t>(pair.second);
}

// Merges words of ids step by step. Counts are kept exact through every merge; the queue may hold old counts, which are
// put right when they come to its top.
class PairMerger {
 public:
  explicit PairMerger(const WordCounts& counts, const std::array<int32_t, kBytes>& id_of_byte) {
    words_.reserve(counts.size());
    for (const auto& [text, count] : counts) {
      Word word{.count = count};
      for (const char c : text) word.ids.push_back(id_of_byte[static_cast<unsigned char>(c)]);
      for (size_t i = 0; i + 1 < word.ids.size(); ++i) {
        note({word.ids[i], word.ids[i + 1]}, count, static_cast<uint32_t>(words_.size()));
      }
      words_.push_back(std::move(word));
    }
    for (const auto& [key, info] : pairs_) push(key, info.count);
  }

  // The most frequent pair with at least that count, or false when there is none left.
  bool next(int64_t min_count, Pair& pair) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const int64_t count = pairs_.find(top.key)->second.count;
      if (count != top.count) {
        if (count > 0) push(top.key, count);
        continue;
      }
      if (count < std::max<int64_t>(min_count, 1)) return false;
      pair = {static_cast<int32_t>(top.key >> 32), static_cast<int32_t>(top.key & 0xFFFFFFFFu)};
      return true;
    }
    return false;
  }

  void merge(Pair pair, int32_t id) {
    const std::vector<uint32_t> where = std::move(pairs_[key_of(pair)].words);
    touched_.clear();
    for (const uint32_t index : where) merge_in(index, pair, id);
    pairs_[key_of(pair)].count = 0;
    for (const uint64_t key : touched_) {
      const int64_t count = pairs_.find(key)->second.count;
      if (count > 0) push(key, count);
    }
  }

 private:
  struct Word {
    std::vector<int32_t> ids = {};
    int64_t count = 0;
  };

  struct PairInfo {
    int64_t count = 0;
    std::vector<uint32_t> words;  // where it may occur; a word may come twice or no longer have it
  };

  struct Candidate {
    int64_t count;
    uint64_t key;

    // Of equal counts the lower ids come first.
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  void push(uint64_t key, int64_t count) { queue_.push({count, key}); }

  void note(Pair pair, int64_t count, uint32_t word) {
    PairInfo& info = pairs_[key_of(pair)];
    info.count += count;
    if (info.words.empty() || info.words.back() != word) info.words.push_back(word);
  }

  void merge_in(uint32_t index, Pair pair, int32_t id) {
    Word& word = words_[index];
    std::vector<int32_t>& ids = word.ids;
    size_t to = 0;
    for (size_t from = 0; from < ids.size();) {
      const bool here = from + 1 < ids.size() && ids[from] == pair.first && ids[from + 1] == pair.second;
      if (!here) {
        ids[to++] = ids[from++];
        continue;
      }
      if (to > 0) {
        pairs_[key_of({ids[to - 1], pair.first})].count -= word.count;
        note({ids[to - 1], id}, word.count, index);
        touched_.push_back(key_of({ids[to - 1], id}));
      }
      if (from + 2 < ids.size()) {
        pairs_[key_of({pair.second, ids[from + 2]})].count -= word.count;
        note({id, ids[from + 2]}, word.count, index);
        touched_.push_back(key_of({id, ids[from + 2]}));
      }
      ids[to++] = id;
      from += 2;
    }
    ids.resize(to);
  }

  std::vector<Word> words_;
  std::unordered_map<uint64_t, PairInfo> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<uint64_t> touched_;
};

Json added_token(int32_t id, const std::string& content) {
  Json out = Json::object();
  out.set("id", id);
  out.set("content", content);
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) out.set(flag, false);
  out.set("special", true);
  return out;
}

// Puts BOS in front, as the model was trained.
Json post_processor(const std::string& bos) {
  const auto piece = [](const char* kind, const char* id, int type) {
    return Json(Json::Object{{kind, Json(Json::Object{{"id", id}, {"type_id", type}})}});
  };
  const Json bos_piece = Json(Json::Object{{"SpecialToken", Json(Json::Object{{"id", bos}, {"type_id", 0}})}});
  Json special = Json::object();
  special.set("id", bos);
  special.set("ids", Json(Json::Array{Json(0)}));
  special.set("tokens", Json(Json::Array{Json(bos)}));
  Json out = Json::object();
  out.set("type", "TemplateProcessing");
  out.set("single", Json(Json::Array{bos_piece, piece("Sequence", "A", 0)}));
  out.set("pair", Json(Json::Array{bos_piece, piece("Sequence", "A", 0), piece("Sequence", "B", 1)}));
  out.set("special_tokens", Json(Json::Object{{bos, std::move(special)}}));
  return out;
}

std::string config_text(const BpeTrainerOptions& options) {
  Json out = Json::object();
  out.set("add_bos_token", true);
  out.set("add_eos_token", false);
  out.set("bos_token", options.bos);
  out.set("eos_token", options.eos);
  out.set("pad_token", options.eos);
  out.set("unk_token", nullptr);
  out.set("clean_up_tokenization_spaces", false);
  out.set("model_max_length", options.max_length);
  out.set("tokenizer_class", "PreTrainedTokenizerFast");
  return out.dump(2) + "\n";
}

}  // namespace

struct BpeTrainer::State : PieceSink {
  State(BpeTrainerOptions settings, Pretokenizer cut)
      : options(std::move(settings)), pretokenizer(std::move(cut)), run(pretokenizer) {}

  void piece(std::string_view piece) override {
    const auto found = counts.find(piece);
    if (found != counts.end()) {
      ++found->second;
      return;
    }
    counts.emplace(piece, 1);
    if (static_cast<int64_t>(counts.size()) > options.max_words) {
      std::erase_if(counts, [](const auto& entry) { return entry.second == 1; });
    }
  }

  BpeTrainerOptions options;
  Pretokenizer pretokenizer;
  PretokenizerRun run;
  WordCounts counts;
};

BpeTrainer::BpeTrainer() = default;
BpeTrainer::BpeTrainer(BpeTrainer&&) noexcept = default;
BpeTrainer& BpeTrainer::operator=(BpeTrainer&&) noexcept = default;
BpeTrainer::~BpeTrainer() = default;

Result<BpeTrainer> BpeTrainer::create(const BpeTrainerOptions& options) {
  if (options.vocab_size < kSpecialTokens + kBytes) {
    return Error{Errc::kInvalidArgument,
                 str("vocab_size: expected at least ", kSpecialTokens + kBytes, ", found ", options.vocab_size)};
  }
  LATHE_TRY(Pretokenizer pretokenizer, Pretokenizer::parse(pre_tokenizer(options.pattern)));
  BpeTrainer out;
  out.state_ = std::make_unique<State>(options, std::move(pretokenizer));
  return out;
}

void BpeTrainer::add(std::string_view text) {
  state_->run.split(text, *state_);
}

int64_t BpeTrainer::words() const {
  return static_cast<int64_t>(state_->counts.size());
}

TrainedTokenizer BpeTrainer::train() const {
  const BpeTrainerOptions& options = state_->options;
  const Alphabet alphabet;
  std::vector<std::string> tokens{options.bos, options.eos};  // by id, in the byte-level alphabet
  std::array<int32_t, kBytes> id_of_byte{};
  for (const unsigned char byte : alphabet.order) {
    id_of_byte[byte] = static_cast<int32_t>(tokens.size());
    tokens.push_back(alphabet.character[byte]);
  }
  PairMerger merger(state_->counts, id_of_byte);
  Json::Array merges;
  // Two different pairs may spell the same token; the second then merges to the first one's id.
  std::unordered_map<std::string, int32_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) ids.emplace(tokens[id], static_cast<int32_t>(id));
  for (Pair pair;
       static_cast<int64_t>(tokens.size()) < options.vocab_size && merger.next(options.min_frequency, pair);) {
    const std::string& left = tokens[static_cast<size_t>(pair.first)];
    const std::string& right = tokens[static_cast<size_t>(pair.second)];
    merges.emplace_back(str(left, ' ', right));
    std::string token = left + right;
    const auto [entry, is_new] = ids.emplace(token, static_cast<int32_t>(tokens.size()));
    merger.merge(pair, entry->second);
    if (is_new) tokens.push_back(std::move(token));
  }

  Json::Object vocab;
  vocab.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) vocab.emplace_back(tokens[id], Json(static_cast<int64_t>(id)));
  Json model = Json::object();
  model.set("type", "BPE");
  for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    model.set(key, nullptr);
  }
  model.set("fuse_unk", false);
  model.set("byte_fallback", false);
  model.set("ignore_merges", false);
  model.set("vocab", Json(std::move(vocab)));
  model.set("merges", Json(std::move(merges)));
  Json out = Json::object();
  out.set("version", "1.0");
  out.set("truncation", nullptr);
  out.set("padding", nullptr);
  out.set("added_tokens", Json(Json::Array{added_token(0, options.bos), added_token(1, options.eos)}));
  out.set("normalizer", nullptr);
  out.set("pre_tokenizer", pre_tokenizer(options.pattern));
  out.set("post_processor", post_processor(options.bos));
  out.set("decoder", byte_level(true));
  out.set("model", std::move(model));
  return {.tokenizer_json = out.dump(),
          .tokenizer_config_json = config_text(options),
          .vocab_size = static_cast<int64_t>(tokens.size())};
}

}  // namespace lathe
