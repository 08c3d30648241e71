#include "lathe/train/corpus_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/train/corpus_text.h"

namespace lathe::train {
namespace {

int64_t whole_in(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value != nullptr && value->is_int() ? value->as_int() : 0;
}

std::string size_in(const Json& object, std::string_view key) {
  return human_bytes(static_cast<uint64_t>(std::max<int64_t>(0, whole_in(object, key))));
}

// Members that are not 0, as "11 exact duplicate, 3 empty"; `skipped` is left out.
std::string counts_text(const Json& counts, std::string_view skipped) {
  std::string out;
  if (!counts.is_object()) return out;
  for (const auto& [name, count] : counts.as_object()) {
    if (name == skipped || !count.is_int() || count.as_int() == 0) continue;
    out += str(out.empty() ? "" : ", ", with_commas(count.as_int()), ' ', name);
  }
  return out;
}

int64_t sum_of(const Json* counts) {
  int64_t out = 0;
  if (counts == nullptr || !counts->is_object()) return out;
  for (const auto& [name, count] : counts->as_object()) out += count.is_int() ? count.as_int() : 0;
  return out;
}

std::string lengths_text(const Json* histogram) {
  std::string out;
  if (histogram == nullptr || !histogram->is_array()) return out;
  for (size_t i = 0; i < histogram->as_array().size(); ++i) {
    const Json& count = histogram->as_array()[i];
    if (!count.is_int() || count.as_int() == 0) continue;
    const int64_t least = int64_t{1} << i;
    out += str("  ", with_commas(count.as_int()), " documents of ", least, " to ", 2 * least - 1, " tokens\n");
  }
  return out;
}

std::string set_text(std::string_view name, const Json& set) {
  const Json* documents = set.find("documents");
  const int64_t kept = documents == nullptr ? 0 : whole_in(*documents, "kept");
  const Json* ratio = set.find("bytes_per_token");
  std::string out = str(name,
                        ": ",
                        with_commas(kept),
                        " of ",
                        with_commas(sum_of(documents)),
                        " documents, ",
                        size_in(set, "bytes_kept"),
                        " of ",
                        size_in(set, "bytes_read"),
                        ", ",
                        with_commas(whole_in(set, "tokens")),
                        " tokens, ",
                        fixed(ratio != nullptr && ratio->is_number() ? ratio->as_double() : 0.0, 2),
                        " bytes per token\n");
  if (documents != nullptr) {
    const std::string reasons = counts_text(*documents, "kept");
    if (!reasons.empty()) out += str("  left out: ", reasons, '\n');
  }
  const Json* edits = set.find("taken_out");
  if (edits != nullptr && sum_of(edits) > 0) out += str("  taken out: ", counts_text(*edits, ""), '\n');
  if (set.find("words") != nullptr) {
    out += str("  ",
               with_commas(whole_in(set, "words")),
               " words, about ",
               with_commas(whole_in(set, "distinct_words")),
               " different\n");
  }
  out += lengths_text(set.find("documents_by_log2_tokens"));
  const Json* files = set.find("files");
  if (files == nullptr || !files->is_array() || files->as_array().size() < 2) return out;
  for (const Json& file : files->as_array()) {
    const Json* file_name = file.find("name");
    if (file_name == nullptr || !file_name->is_string()) continue;
    out += str("  ",
               file_name->as_string(),
               ": ",
               with_commas(whole_in(file, "documents")),
               " of ",
               with_commas(whole_in(file, "documents_read")),
               " documents, ",
               size_in(file, "bytes"),
               ", ",
               with_commas(whole_in(file, "tokens")),
               " tokens\n");
  }
  return out;
}

}  // namespace

void DistinctCounter::add(uint64_t hash) {
  const uint64_t index = hash >> (64 - kIndexBits);
  const uint64_t rest = hash << kIndexBits | uint64_t{1} << (kIndexBits - 1);  // the bit bounds the count of zeros
  const auto rank = static_cast<uint8_t>(std::countl_zero(rest) + 1);
  ranks_[index] = std::max(ranks_[index], rank);
}

int64_t DistinctCounter::estimate() const {
  const auto places = static_cast<double>(ranks_.size());
  double sum = 0.0;
  int64_t empty = 0;
  for (const uint8_t rank : ranks_) {
    sum += std::ldexp(1.0, -rank);
    empty += rank == 0 ? 1 : 0;
  }
  const double raw = 0.7213 / (1.0 + 1.079 / places) * places * places / sum;
  // Few things: by the share of places that none fell on.
  if (raw <= 2.5 * places && empty > 0) return std::llround(places * std::log(places / static_cast<double>(empty)));
  return std::llround(raw);
}

void CorpusCounts::begin_file(std::string name) {
  files_.push_back({.name = std::move(name)});
}

void CorpusCounts::add_read(std::string_view text) {
  bytes_read_ += static_cast<int64_t>(text.size());
  if (!files_.empty()) ++files_.back().documents_read;
}

void CorpusCounts::add_verdict(Verdict verdict, const Edits& edits, std::string_view text, int64_t tokens) {
  ++documents_[static_cast<size_t>(verdict)];
  edits_.lines += edits.lines;
  edits_.paragraphs += edits.paragraphs;
  if (verdict != Verdict::kKept) return;
  const auto bytes = static_cast<int64_t>(text.size());
  bytes_kept_ += bytes;
  tokens_ += tokens;
  chars_ += count_code_points(text);
  each_word(text, [&](std::string_view word) {
    ++words_;
    distinct_.add(hash_text(word));
  });
  const auto log2 = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(tokens, 1)))) - 1;
  ++lengths_[std::min(lengths_.size() - 1, log2)];
  if (files_.empty()) return;
  FileCounts& file = files_.back();
  ++file.documents;
  file.bytes += bytes;
  file.tokens += tokens;
}

Json CorpusCounts::json() const {
  Json out = Json::object();
  Json by_verdict = Json::object();
  for (size_t i = 0; i < kVerdicts; ++i) by_verdict.set(name_of(static_cast<Verdict>(i)), documents_[i]);
  out.set("documents", std::move(by_verdict));
  Json edits = Json::object();
  edits.set("boilerplate lines", edits_.lines);
  edits.set("known paragraphs", edits_.paragraphs);
  out.set("taken_out", std::move(edits));
  out.set("bytes_read", bytes_read_);
  out.set("bytes_kept", bytes_kept_);
  out.set("tokens", tokens_);
  out.set("bytes_per_token", tokens_ > 0 ? static_cast<double>(bytes_kept_) / static_cast<double>(tokens_) : 0.0);
  out.set("chars", chars_);
  out.set("words", words_);
  out.set("distinct_words", distinct_.estimate());
  Json histogram = Json::array();
  size_t last = lengths_.size();
  while (last > 0 && lengths_[last - 1] == 0) --last;
  for (size_t i = 0; i < last; ++i) histogram.push(lengths_[i]);
  out.set("documents_by_log2_tokens", std::move(histogram));
  Json files = Json::array();
  for (const FileCounts& counts : files_) {
    Json file = Json::object();
    file.set("name", counts.name);
    file.set("documents_read", counts.documents_read);
    file.set("documents", counts.documents);
    file.set("bytes", counts.bytes);
    file.set("tokens", counts.tokens);
    files.push(std::move(file));
  }
  out.set("files", std::move(files));
  return out;
}

std::string statistics_text(const Json& sets) {
  std::string out;
  if (!sets.is_object()) return out;
  for (const auto& [name, set] : sets.as_object()) out += set_text(name, set);
  return out;
}

}  // namespace lathe::train
