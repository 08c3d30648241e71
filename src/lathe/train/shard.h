// Files of token ids: documents one after the other, with a table of where each begins. Written in one pass and under a
// temporary name; mapped and checked when read (docs/training.md has the bytes).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/result.h"
#include "lathe/base/sha256.h"

namespace lathe::train {

// Adds the bytes of a mapped file to a hash in small pieces whose pages do not stay in memory.
void hash_mapped(std::span<const std::byte> bytes, Hasher& hasher);

// Writes one file, a document at a time.
class ShardWriter {
 public:
  // Ids are below vocab_size, at most 2^31; up to 2^16 they take two bytes each.
  static Result<ShardWriter> create(const std::filesystem::path& path, int64_t vocab_size);

  // Appends a document. Ids outside the vocabulary are a bug.
  Status add(std::span<const int32_t> document);

  int64_t tokens() const { return ends_.empty() ? 0 : static_cast<int64_t>(ends_.back()); }

  // Makes the file durable and gives it its name; at most once.
  Status commit();

 private:
  ShardWriter(AtomicFile file, int64_t vocab_size);
  Status put(std::string_view bytes);

  AtomicFile file_;
  Hasher hasher_;
  int64_t vocab_size_;
  size_t width_;  // bytes of an id
  uint64_t written_ = 0;
  std::string buffer_;
  std::vector<uint64_t> ends_;  // of the documents, in tokens
};

// A mapped file of tokens; copies share the map.
class ShardFile {
 public:
  // Reads everything once for the checksum. kInvalidData for anything but a whole file of this format and vocabulary.
  static Result<ShardFile> open(const std::filesystem::path& path, int64_t vocab_size);

  int64_t documents() const { return documents_; }

  int64_t tokens() const { return documents_ == 0 ? 0 : static_cast<int64_t>(end_of(documents_ - 1)); }

  // Tokens of document `index` in [0, documents()), into `out`.
  void read(int64_t index, std::vector<int32_t>& out) const;

 private:
  ShardFile() = default;
  uint64_t end_of(int64_t index) const;

  std::shared_ptr<const MappedFile> map_;
  const std::byte* ids_ = nullptr;
  const std::byte* ends_ = nullptr;
  size_t width_ = 2;
  int64_t documents_ = 0;
};

}  // namespace lathe::train
