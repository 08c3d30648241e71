#include "lathe/train/corpus.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/sha256.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/bpe_trainer.h"
#include "lathe/train/byte_source.h"
#include "lathe/train/corpus_filter.h"
#include "lathe/train/corpus_statistics.h"
#include "lathe/train/corpus_text.h"
#include "lathe/train/document_reader.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kShardTokens = int64_t{1} << 26;
constexpr int64_t kFormatVersion = 1;
constexpr size_t kKeyDigits = 16;
constexpr int kSamples = 20;  // of documents that were left out, for each reason
constexpr size_t kSampleBytes = 400;

Error cancelled() {
  return {Errc::kCancelled, "interrupted while preparing the data"};
}

Status make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return Error{Errc::kIo, str(path, ": cannot make the folder: ", error.message())};
  return {};
}

Result<std::string> digest_of_file(const fs::path& path) {
  // The bytes as they lie there, packed ones too.
  LATHE_TRY(const std::shared_ptr<const MappedFile> map, MappedFile::open(path));
  Hasher hasher(Hasher::Kind::kSha256);
  hash_mapped(map->bytes(), hasher);
  return hasher.hex_digest();
}

std::string key_of(const Json& settings) {
  Hasher hasher(Hasher::Kind::kSha256);
  hasher.update(settings.dump());
  return hasher.hex_digest().substr(0, kKeyDigits);
}

// The part of a recipe that decides what the documents are.
Result<Json> document_settings(const DataRecipe& data, const std::vector<std::string>& files) {
  Json out = Json::object();
  Json digests = Json::array();
  for (const std::string& file : files) {
    LATHE_TRY(std::string digest, digest_of_file(file));
    // The name decides how a file is read.
    digests.push(str(fs::path(file).filename(), ':', digest));
  }
  out.set("version", kFormatVersion);
  out.set("files", std::move(digests));
  out.set("field", data.field);
  out.set("separator", data.separator);
  out.set("max_documents", data.max_documents);
  return out;
}

// Calls body(text) for every document of a file until it says false.
template <class Body>
Status each_document(const DataRecipe& data, const std::string& file, const StopRequest& stop, const Body& body) {
  LATHE_TRY(DocumentReader reader, DocumentReader::open(file, {.separator = data.separator, .field = data.field}));
  std::string text;
  for (int64_t i = 0; data.max_documents == 0 || i < data.max_documents; ++i) {
    LATHE_TRY(const bool more, reader.next(text));
    if (!more) break;
    if (stop && stop()) return cancelled();
    LATHE_TRY(const bool go_on, body(text));
    if (!go_on) break;
  }
  return {};
}

Status train_tokenizer(const Recipe& recipe, const fs::path& folder, const StopRequest& stop) {
  LATHE_TRY(
      BpeTrainer trainer,
      BpeTrainer::create({.vocab_size = recipe.tokenizer.vocab_size,
                          .min_frequency = recipe.tokenizer.min_frequency,
                          .pattern = recipe.tokenizer.pattern == "gpt2" ? SplitPattern::kGpt2 : SplitPattern::kDeepseek,
                          .max_length = recipe.train.sequence_length}));
  const int64_t limit = recipe.tokenizer.train_bytes;
  int64_t bytes = 0;
  for (const std::string& file : recipe.data.train) {
    LATHE_TRY(each_document(recipe.data, file, stop, [&](std::string& text) -> Result<bool> {
      if (recipe.data.clean) text = cleaned(text);
      trainer.add(text);
      bytes += static_cast<int64_t>(text.size());
      return limit == 0 || bytes < limit;
    }));
  }
  if (bytes == 0) return Error{Errc::kInvalidData, "data.train: expected text, found none in its files"};
  log_info(
      "tokenizer: ", with_commas(trainer.words()), " different words in ", human_bytes(static_cast<uint64_t>(bytes)));
  const TrainedTokenizer trained = trainer.train();
  if (trained.vocab_size < recipe.tokenizer.vocab_size) {
    log_warning(
        "tokenizer: the text has pairs for ", trained.vocab_size, " tokens only, not ", recipe.tokenizer.vocab_size);
  }
  LATHE_TRY(make_folder(folder));
  LATHE_TRY(write_file_atomically(folder / "tokenizer_config.json", trained.tokenizer_config_json));
  // Last: its presence says that the folder is complete.
  return write_file_atomically(folder / "tokenizer.json", trained.tokenizer_json);
}

// Writes documents to as many token files as they need.
class SetWriter {
 public:
  SetWriter(fs::path folder, std::string name, const Tokenizer& tokenizer, int64_t vocab_size)
      : folder_(std::move(folder)), name_(std::move(name)), tokenizer_(tokenizer), vocab_size_(vocab_size) {}

  // The tokens that the document became.
  Result<int64_t> add(std::string_view text) {
    ids_.clear();
    if (tokenizer_.bos_id()) ids_.push_back(*tokenizer_.bos_id());
    const std::vector<int32_t> body = tokenizer_.encode(text, AddedTokens::kText);
    ids_.insert(ids_.end(), body.begin(), body.end());
    if (tokenizer_.eos_id()) ids_.push_back(*tokenizer_.eos_id());
    if (!writer_) {
      LATHE_TRY(ShardWriter writer, ShardWriter::create(folder_ / file_name(files_), vocab_size_));
      writer_ = std::make_unique<ShardWriter>(std::move(writer));
    }
    LATHE_TRY(writer_->add(ids_));
    if (writer_->tokens() >= kShardTokens) LATHE_TRY(finish());
    return static_cast<int64_t>(ids_.size());
  }

  Status finish() {
    if (!writer_) return {};
    LATHE_TRY(writer_->commit());
    writer_.reset();
    ++files_;
    return {};
  }

  int64_t files() const { return files_; }

  std::string file_name(int64_t index) const { return str(name_, '-', index, ".tokens"); }

 private:
  fs::path folder_;
  std::string name_;
  const Tokenizer& tokenizer_;
  int64_t vocab_size_;
  std::unique_ptr<ShardWriter> writer_;
  int64_t files_ = 0;
  std::vector<int32_t> ids_;
};

struct SetPlan {
  std::string name;
  std::vector<std::string> files;
  double weight = 1.0;
};

// Validation first; see prepare_corpus().
std::vector<SetPlan> plan_sets(const DataRecipe& data) {
  std::vector<SetPlan> out;
  out.push_back({.name = "valid", .files = data.valid});
  if (data.weights.empty()) {
    out.push_back({.name = "train", .files = data.train});
    return out;
  }
  for (size_t i = 0; i < data.train.size(); ++i) {
    out.push_back({.name = str("train", i), .files = {data.train[i]}, .weight = data.weights[i]});
  }
  return out;
}

// The first documents that were left out for each reason, so that somebody can look at them.
class RemovedSamples {
 public:
  void add(std::string_view set, Verdict verdict, std::string_view text) {
    int& count = counts_[static_cast<size_t>(verdict)];
    if (verdict == Verdict::kKept || verdict == Verdict::kEmpty || count == kSamples) return;
    ++count;
    Json line = Json::object();
    line.set("reason", name_of(verdict));
    line.set("set", set);
    line.set("text", text);
    lines_ += line.dump() + "\n";
  }

  const std::string& lines() const { return lines_; }

 private:
  std::array<int, kVerdicts> counts_{};
  std::string lines_;
};

// The beginning of a text, cut at a character.
std::string head_of(std::string_view text) {
  size_t end = std::min(text.size(), kSampleBytes);
  while (end < text.size() && end > 0 && is_utf8_continuation(text[end])) --end;
  return std::string(text.substr(0, end));
}

// A pass of its own over the training text.
Result<std::unique_ptr<FrequentLines>> count_lines(const DataRecipe& data, const StopRequest& stop) {
  if (data.boilerplate_documents == 0) return std::unique_ptr<FrequentLines>();
  auto out = std::make_unique<FrequentLines>(data.boilerplate_documents);
  for (const std::string& file : data.train) {
    log_info("counting lines of ", file);
    LATHE_TRY(each_document(data, file, stop, [&](std::string& text) -> Result<bool> {
      if (data.clean) text = cleaned(text);
      out->observe(text);
      return true;
    }));
  }
  out->finish();
  return out;
}

Status write_sets(const Recipe& recipe,
                  const Tokenizer& tokenizer,
                  const std::vector<SetPlan>& plans,
                  const fs::path& folder,
                  const StopRequest& stop) {
  LATHE_TRY(std::unique_ptr<FrequentLines> boilerplate, count_lines(recipe.data, stop));
  CorpusFilter filter(recipe.data, std::move(boilerplate));
  RemovedSamples removed;
  Json sets = Json::object();
  Json statistics = Json::object();
  for (const SetPlan& plan : plans) {
    SetWriter writer(folder, plan.name, tokenizer, tokenizer.vocabulary_size());
    CorpusCounts counts;
    for (const std::string& file : plan.files) {
      log_info("tokenising ", file);
      counts.begin_file(fs::path(file).filename().string());
      const Status read = each_document(recipe.data, file, stop, [&](std::string& text) -> Result<bool> {
        counts.add_read(text);
        const std::string head = head_of(text);
        Edits edits;
        const Verdict verdict = filter.check(text, &edits);
        int64_t tokens = 0;
        if (verdict == Verdict::kKept) {
          LATHE_TRY(tokens, writer.add(text));
        }
        counts.add_verdict(verdict, edits, text, tokens);
        removed.add(plan.name, verdict, head);
        return true;
      });
      LATHE_TRY(read);
    }
    LATHE_TRY(writer.finish());
    Json names = Json::array();
    for (int64_t i = 0; i < writer.files(); ++i) names.push(writer.file_name(i));
    sets.set(plan.name, std::move(names));
    statistics.set(plan.name, counts.json());
  }
  LATHE_TRY(write_file_atomically(folder / "removed.jsonl", removed.lines()));
  Json manifest = Json::object();
  manifest.set("sets", std::move(sets));
  manifest.set("statistics", std::move(statistics));
  // Last: its presence says that the folder is complete.
  return write_file_atomically(folder / "manifest.json", manifest.dump(2) + "\n");
}

Result<TokenSet> open_set(const Json& manifest, const SetPlan& plan, const fs::path& folder, int64_t vocab_size) {
  TokenSet out{.shards = {}, .weight = plan.weight};
  const Json* sets = manifest.find("sets");
  const Json* names = sets != nullptr ? sets->find(plan.name) : nullptr;
  if (names == nullptr || !names->is_array()) {
    return Error{Errc::kInvalidData, str(folder / "manifest.json", ": expected the set ", plan.name, ", found none")};
  }
  for (const Json& name : names->as_array()) {
    if (!name.is_string()) return Error{Errc::kInvalidData, str(folder / "manifest.json", ": expected file names")};
    LATHE_TRY(ShardFile shard, ShardFile::open(folder / name.as_string(), vocab_size));
    out.shards.push_back(std::move(shard));
  }
  return out;
}

Result<PreparedCorpus> open_sets(const std::vector<SetPlan>& plans, const fs::path& folder, int64_t vocab_size) {
  LATHE_TRY(const Json manifest, read_json(folder / "manifest.json"));
  PreparedCorpus out;
  for (const SetPlan& plan : plans) {
    LATHE_TRY(TokenSet set, open_set(manifest, plan, folder, vocab_size));
    if (plan.name == "valid") {
      out.valid = std::move(set);
    } else {
      out.train.push_back(std::move(set));
    }
  }
  const Json* statistics = manifest.find("statistics");
  if (statistics != nullptr) out.statistics = *statistics;
  return out;
}

// Everything that decides what the token files hold. Keys that recipes once did not have count when they say something
// else than they do by default, so that the names of older folders stay.
void add_data_settings(const DataRecipe& data, Json& settings) {
  constexpr std::string_view kPaths[] = {"cache", "train", "valid"};
  constexpr std::string_view kLater[] = {"max_digit_ratio",
                                         "min_word_length",
                                         "max_word_length",
                                         "max_repeated_phrases",
                                         "drop_known_paragraphs",
                                         "boilerplate_documents"};
  const Json defaults = data_json({});
  const Json effective = data_json(data);
  for (const auto& [key, value] : effective.as_object()) {
    if (std::ranges::find(kPaths, key) != std::end(kPaths)) continue;
    if (std::ranges::find(kLater, key) != std::end(kLater) && *defaults.find(key) == value) continue;
    settings.set(key, value);
  }
}

// Every file of the recipe can be opened: an error now is cheaper than after hours.
Status check_files(const DataRecipe& data) {
  if (data.train.empty()) {
    return Error{Errc::kInvalidArgument, "data.train: expected files, found none (--set data.train=FILE)"};
  }
  for (const std::string& file : data.train) {
    const Result<std::unique_ptr<ByteSource>> opened = open_bytes(file);
    if (!opened) return opened.error().at("data.train");
  }
  for (const std::string& file : data.valid) {
    const Result<std::unique_ptr<ByteSource>> opened = open_bytes(file);
    if (!opened) return opened.error().at("data.valid");
  }
  return {};
}

}  // namespace

Result<PreparedTokenizer> prepare_tokenizer(const Recipe& recipe, const fs::path& cache, const StopRequest& stop) {
  LATHE_TRY(check_files(recipe.data));
  fs::path folder = recipe.tokenizer.path.empty() ? recipe.model.from : recipe.tokenizer.path;
  if (folder.empty()) {
    LATHE_TRY(Json settings, document_settings(recipe.data, recipe.data.train));
    settings.set("clean", recipe.data.clean);
    settings.set("vocab_size", recipe.tokenizer.vocab_size);
    settings.set("pattern", recipe.tokenizer.pattern);
    settings.set("train_bytes", recipe.tokenizer.train_bytes);
    settings.set("min_frequency", recipe.tokenizer.min_frequency);
    settings.set("sequence_length", recipe.train.sequence_length);
    folder = cache / str("tokenizer-", key_of(settings));
    std::error_code ignored;
    if (!fs::exists(folder / "tokenizer.json", ignored)) LATHE_TRY(train_tokenizer(recipe, folder, stop));
  }
  LATHE_TRY(Tokenizer tokenizer, Tokenizer::open(folder));
  return PreparedTokenizer{.folder = folder, .tokenizer = std::move(tokenizer)};
}

Result<PreparedCorpus> prepare_corpus(const Recipe& recipe,
                                      const PreparedTokenizer& tokenizer,
                                      const fs::path& cache,
                                      const StopRequest& stop) {
  LATHE_TRY(check_files(recipe.data));
  std::vector<std::string> files = recipe.data.train;
  files.insert(files.end(), recipe.data.valid.begin(), recipe.data.valid.end());
  LATHE_TRY(Json settings, document_settings(recipe.data, files));
  add_data_settings(recipe.data, settings);
  settings.set("train_files", static_cast<int64_t>(recipe.data.train.size()));
  LATHE_TRY(std::string digest, digest_of_file(tokenizer.folder / "tokenizer.json"));
  settings.set("tokenizer", std::move(digest));
  const fs::path folder = cache / str("tokens-", key_of(settings));
  const std::vector<SetPlan> plans = plan_sets(recipe.data);
  std::error_code ignored;
  if (!fs::exists(folder / "manifest.json", ignored)) {
    LATHE_TRY(make_folder(folder));
    LATHE_TRY(write_sets(recipe, tokenizer.tokenizer, plans, folder, stop));
  }
  LATHE_TRY(PreparedCorpus corpus, open_sets(plans, folder, tokenizer.tokenizer.vocabulary_size()));
  corpus.folder = folder;
  if (!recipe.data.valid.empty() && corpus.valid.documents() == 0) {
    return Error{Errc::kInvalidData, "data.valid: expected documents, found none that the filters keep"};
  }
  return corpus;
}

}  // namespace lathe::train
