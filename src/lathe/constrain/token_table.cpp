#include "lathe/constrain/token_table.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "lathe/base/str.h"

namespace lathe {
namespace {

constexpr size_t kLongestToken = 1024;        // longer ones are left out: nobody's grammar needs them
constexpr size_t kMaxBlob = size_t{1} << 30;  // bytes of all tokens
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;

}  // namespace

Result<std::shared_ptr<const TokenTable>> TokenTable::build(const Tokenizer& tokenizer, int64_t vocab_size) {
  if (vocab_size < tokenizer.vocabulary_size()) {
    return Error{Errc::kInvalidArgument,
                 str("token table: expected at least ", tokenizer.vocabulary_size(), " ids, found ", vocab_size)};
  }
  if (vocab_size > kMaxVocabulary) {
    return Error{Errc::kInvalidArgument,
                 str("token table: expected at most ", kMaxVocabulary, " ids, found ", vocab_size)};
  }
  std::vector<std::string> tokens(static_cast<size_t>(vocab_size));
  std::vector<std::pair<std::string, int32_t>> special;
  for (int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    if (!tokenizer.contains(id)) continue;
    if (tokenizer.is_special(id) || tokenizer.is_marker(id)) {
      special.emplace_back(tokenizer.token_bytes(id), id);
    } else {
      tokens[static_cast<size_t>(id)] = tokenizer.token_bytes(id);
    }
  }
  return build(tokens, std::move(special));
}

Result<std::shared_ptr<const TokenTable>> TokenTable::build(std::span<const std::string> tokens,
                                                            std::vector<std::pair<std::string, int32_t>> special) {
  size_t bytes = 0;
  for (const std::string& token : tokens) bytes += token.size();
  if (bytes > kMaxBlob || tokens.size() > static_cast<size_t>(kMaxVocabulary)) {
    return Error{Errc::kInvalidArgument,
                 str("token table: ", tokens.size(), " tokens of ", bytes, " bytes are too many")};
  }
  std::shared_ptr<TokenTable> table(new TokenTable());
  table->vocab_size_ = static_cast<int64_t>(tokens.size());
  table->special_ = std::move(special);
  std::sort(table->special_.begin(), table->special_.end());
  table->blob_.reserve(bytes);
  std::vector<int32_t>& ids = table->ids_;
  for (size_t id = 0; id < tokens.size(); ++id) {
    table->offsets_.push_back(static_cast<uint32_t>(table->blob_.size()));
    if (tokens[id].empty() || tokens[id].size() > kLongestToken) continue;
    table->blob_ += tokens[id];
    table->longest_ = std::max(table->longest_, static_cast<int32_t>(tokens[id].size()));
    if (tokens[id].size() == 1) table->single_bytes_[static_cast<uint8_t>(tokens[id][0])] = true;
    ids.push_back(static_cast<int32_t>(id));
  }
  table->offsets_.push_back(static_cast<uint32_t>(table->blob_.size()));
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    const int order = table->bytes(a).compare(table->bytes(b));
    return order != 0 ? order < 0 : a < b;
  });

  std::vector<TrieNode>& nodes = table->nodes_;
  std::vector<size_t> open{0};  // nodes on the way to the token before
  nodes.push_back({});
  std::string_view before;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string_view text = table->bytes(ids[i]);
    if (text == before) continue;
    const size_t most = std::min(before.size(), text.size());
    size_t common = 0;
    while (common < most && before[common] == text[common]) ++common;
    for (; open.size() > common + 1; open.pop_back()) nodes[open.back()].end = static_cast<int32_t>(nodes.size());
    for (size_t d = common; d < text.size(); ++d) {
      open.push_back(nodes.size());
      nodes.push_back({.first = static_cast<int32_t>(i),
                       .depth = static_cast<uint16_t>(d + 1),
                       .byte = static_cast<uint8_t>(text[d])});
    }
    before = text;
  }
  for (; !open.empty(); open.pop_back()) nodes[open.back()].end = static_cast<int32_t>(nodes.size());
  nodes.push_back({.first = static_cast<int32_t>(ids.size())});
  return std::shared_ptr<const TokenTable>(std::move(table));
}

std::string_view TokenTable::bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size_) return {};
  const uint32_t begin = offsets_[static_cast<size_t>(id)];
  return std::string_view(blob_).substr(begin, offsets_[static_cast<size_t>(id) + 1] - begin);
}

std::string_view TokenTable::path(int32_t n) const {
  // Some token lies at or below every node, and the first is at `first`.
  const TrieNode& node = nodes_[static_cast<size_t>(n)];
  return bytes(ids_[static_cast<size_t>(node.first)]).substr(0, node.depth);
}

std::optional<int32_t> TokenTable::special_id(std::string_view text) const {
  const auto found = std::lower_bound(
      special_.begin(), special_.end(), text, [](const auto& entry, std::string_view t) { return entry.first < t; });
  if (found == special_.end() || found->first != text) return std::nullopt;
  return found->second;
}

}  // namespace lathe
