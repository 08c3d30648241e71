#include "lathe/train/loader.h"

#include <algorithm>
#include <bit>

#include "lathe/base/check.h"
#include "lathe/base/rng.h"
#include "lathe/base/str.h"

namespace lathe::train {
namespace {

constexpr int64_t kNoDocument = -1;

void read_document(const TokenSet& set, int64_t index, std::vector<int32_t>& out) {
  for (const ShardFile& shard : set.shards) {
    if (index < shard.documents()) return shard.read(index, out);
    index -= shard.documents();
  }
  LATHE_CHECK(false, "document ", index, " past the end of its set");
}

// Inputs `count` tokens of `document` from `offset` on, each with its successor as target.
void append_piece(std::span<const int32_t> document, int64_t offset, int64_t count, Rows& rows) {
  const auto first = document.begin() + offset;
  rows.token_ids.insert(rows.token_ids.end(), first, first + count);
  rows.targets.insert(rows.targets.end(), first + 1, first + 1 + count);
  rows.counted += count;
}

void begin_row(uint64_t id, Rows& rows) {
  const auto at = static_cast<int64_t>(rows.token_ids.size());
  rows.sequences.push_back(at);
  rows.sequence_ids.push_back(id);
}

void begin_document(bool cross_documents, Rows& rows) {
  const auto at = static_cast<int64_t>(rows.token_ids.size());
  if (!cross_documents || at == rows.sequences.back()) rows.documents.push_back(at);
}

}  // namespace

int64_t TokenSet::documents() const {
  int64_t sum = 0;
  for (const ShardFile& shard : shards) sum += shard.documents();
  return sum;
}

int64_t TokenSet::tokens() const {
  int64_t sum = 0;
  for (const ShardFile& shard : shards) sum += shard.tokens();
  return sum;
}

int64_t permuted(int64_t index, int64_t count, uint64_t seed) {
  LATHE_DCHECK(index >= 0 && index < count);
  // A Feistel network permutes the numbers of 2 * half bits; walking on until the value is in range permutes [0,
  // count).
  const auto bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1)));
  const int half = std::max(1, (bits + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half) - 1;
  const std::array<uint32_t, 2> key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  auto value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half;
    uint64_t right = value & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const std::array<uint32_t, 4> random =
          philox4x32({static_cast<uint32_t>(right), static_cast<uint32_t>(right >> 32), round, 0x10ADu}, key);
      const uint64_t next = left ^ (random[0] & mask);
      left = right;
      right = next;
    }
    value = left << half | right;
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

Loader::Loader(std::span<const TokenSet> sets, const LoaderOptions& options)
    : sets_(sets), options_(options), positions_(sets.size()) {}

Result<Loader> Loader::create(std::span<const TokenSet> sets, const LoaderOptions& options) {
  std::vector<int32_t> ids;
  for (const TokenSet& set : sets) {
    bool any = false;
    for (int64_t i = 0; i < set.documents() && !any; ++i) {
      read_document(set, i, ids);
      any = ids.size() >= 2;
    }
    if (!any) return Error{Errc::kInvalidData, "data.train: expected a document of two tokens or more, found none"};
  }
  if (sets.empty()) return Error{Errc::kInvalidData, "data.train: expected files, found none"};
  return Loader(sets, options);
}

// The set that is furthest behind its share.
size_t Loader::choose_set() const {
  size_t best = 0;
  double least = 0.0;
  for (size_t i = 0; i < sets_.size(); ++i) {
    const double progress = static_cast<double>(positions_[i].drawn) / sets_[i].weight;
    if (i == 0 || progress < least) {
      best = i;
      least = progress;
    }
  }
  return best;
}

void Loader::load_document(size_t set) {
  const Position& at = positions_[set];
  const int64_t count = sets_[set].documents();
  int64_t index = at.document;
  if (options_.shuffle) {
    const std::array<uint32_t, 4> random =
        philox4x32({static_cast<uint32_t>(at.epoch), static_cast<uint32_t>(set), 0, 0x5EEDu},
                   {static_cast<uint32_t>(options_.seed), static_cast<uint32_t>(options_.seed >> 32)});
    index = permuted(index, count, static_cast<uint64_t>(random[0]) << 32 | random[1]);
  }
  read_document(sets_[set], index, document_);
}

void Loader::fill_row(Rows& rows) {
  begin_row(static_cast<uint64_t>(rows_drawn_), rows);
  int64_t left = options_.sequence_length;
  while (left > 0) {
    if (open_set_ < 0) {
      open_set_ = static_cast<int64_t>(choose_set());
      load_document(static_cast<size_t>(open_set_));
    }
    Position& at = positions_[static_cast<size_t>(open_set_)];
    const int64_t take = std::min(left, static_cast<int64_t>(document_.size()) - 1 - at.offset);
    if (take > 0) {
      begin_document(options_.cross_documents, rows);
      append_piece(document_, at.offset, take, rows);
      at.offset += take;
      at.drawn += take;
      left -= take;
    }
    if (at.offset + 1 < static_cast<int64_t>(document_.size())) continue;
    at.offset = 0;
    if (++at.document == sets_[static_cast<size_t>(open_set_)].documents()) {
      at.document = 0;
      ++at.epoch;
    }
    open_set_ = kNoDocument;
  }
  ++rows_drawn_;
}

void Loader::next(int64_t count, Rows& rows) {
  rows = Rows{};
  for (int64_t i = 0; i < count; ++i) fill_row(rows);
}

Json Loader::position() const {
  Json sets = Json::array();
  for (const Position& at : positions_) {
    Json entry = Json::object();
    entry.set("epoch", at.epoch);
    entry.set("document", at.document);
    entry.set("offset", at.offset);
    entry.set("drawn", at.drawn);
    sets.push(std::move(entry));
  }
  Json out = Json::object();
  out.set("rows", rows_drawn_);
  out.set("open_set", open_set_);
  out.set("sets", std::move(sets));
  return out;
}

Status Loader::restore(const Json& position) {
  const auto whole = [](const Json& json, std::string_view key, int64_t& value) {
    const Json* member = json.find(key);
    if (member == nullptr || !member->is_int()) return false;
    value = member->as_int();
    return true;
  };
  const Error wrong{Errc::kInvalidData,
                    "position of the data: expected that of a run with the same files, found another"};
  const Json* sets = position.find("sets");
  if (sets == nullptr || !sets->is_array() || sets->as_array().size() != sets_.size()) return wrong;
  int64_t open_set = kNoDocument;
  if (!whole(position, "rows", rows_drawn_) || !whole(position, "open_set", open_set)) return wrong;
  if (open_set < kNoDocument || open_set >= static_cast<int64_t>(sets_.size())) return wrong;
  for (size_t i = 0; i < sets_.size(); ++i) {
    const Json& entry = sets->as_array()[i];
    Position& at = positions_[i];
    if (!whole(entry, "epoch", at.epoch) || !whole(entry, "document", at.document) ||
        !whole(entry, "offset", at.offset) || !whole(entry, "drawn", at.drawn)) {
      return wrong;
    }
    if (at.document < 0 || at.document >= sets_[i].documents() || at.offset < 0) return wrong;
  }
  open_set_ = open_set;
  if (open_set_ < 0) return {};
  load_document(static_cast<size_t>(open_set_));
  const int64_t offset = positions_[static_cast<size_t>(open_set_)].offset;
  return offset < static_cast<int64_t>(document_.size()) ? Status() : Status(wrong);
}

std::vector<Rows> evaluation_rows(
    const TokenSet& set, int64_t sequence_length, int64_t rows_each, int64_t tokens, bool cross_documents) {
  std::vector<Rows> out;
  std::vector<int32_t> document;
  int64_t total = 0;
  int64_t row_left = 0;
  uint64_t row = 0;
  const int64_t limit = tokens > 0 ? tokens : set.tokens();
  for (int64_t i = 0; i < set.documents() && total < limit; ++i) {
    read_document(set, i, document);
    for (int64_t offset = 0; offset + 1 < static_cast<int64_t>(document.size()) && total < limit;) {
      if (row_left == 0) {
        if (out.empty() || out.back().rows() == rows_each) out.emplace_back();
        begin_row(row++, out.back());
        row_left = sequence_length;
      }
      const int64_t take = std::min({row_left, static_cast<int64_t>(document.size()) - 1 - offset, limit - total});
      begin_document(cross_documents, out.back());
      append_piece(document, offset, take, out.back());
      offset += take;
      row_left -= take;
      total += take;
    }
  }
  return out;
}

}  // namespace lathe::train
