#include "lathe/train/shard.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "lathe/base/str.h"

namespace lathe::train {
namespace {

// header: magic, bytes of an id u32, vocabulary u32; ids, padded to 8 bytes; ends of the documents u64; footer: ends
// u64, 64 hexadecimal digits of the SHA-256 of all before, magic. All little-endian.
constexpr std::string_view kMagic = "LATHETK1";
constexpr size_t kHeaderBytes = 16;
constexpr size_t kDigestBytes = 64;
constexpr size_t kFooterBytes = 8 + kDigestBytes + 8;
constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr size_t kPieceBytes = size_t{1} << 20;  // of a map, looked at and released

template <class T>
void append_raw(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

template <class T>
T load_raw(const std::byte* from) {
  T value{};
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

void hash_mapped(std::span<const std::byte> bytes, Hasher& hasher) {
  for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
    const std::span<const std::byte> piece = bytes.subspan(begin, std::min(kPieceBytes, bytes.size() - begin));
    hasher.update({reinterpret_cast<const char*>(piece.data()), piece.size()});
    release_mapped(piece);
  }
}

ShardWriter::ShardWriter(AtomicFile file, int64_t vocab_size)
    : file_(std::move(file)),
      hasher_(Hasher::Kind::kSha256),
      vocab_size_(vocab_size),
      width_(vocab_size <= 65536 ? 2 : 4) {}

Result<ShardWriter> ShardWriter::create(const std::filesystem::path& path, int64_t vocab_size) {
  LATHE_TRY(AtomicFile file, AtomicFile::create(path));
  ShardWriter out(std::move(file), vocab_size);
  out.buffer_ = kMagic;
  append_raw(out.buffer_, static_cast<uint32_t>(out.width_));
  append_raw(out.buffer_, static_cast<uint32_t>(vocab_size));
  return out;
}

Status ShardWriter::put(std::string_view bytes) {
  hasher_.update(bytes);
  written_ += bytes.size();
  return file_.write(bytes);
}

Status ShardWriter::add(std::span<const int32_t> document) {
  for (const int32_t id : document) {
    LATHE_CHECK(id >= 0 && id < vocab_size_, "token id ", id);
    if (width_ == 2) {
      append_raw(buffer_, static_cast<uint16_t>(id));
    } else {
      append_raw(buffer_, static_cast<uint32_t>(id));
    }
  }
  ends_.push_back(static_cast<uint64_t>(tokens()) + document.size());
  if (buffer_.size() < kBufferBytes) return {};
  const std::string full = std::exchange(buffer_, std::string());
  return put(full);
}

Status ShardWriter::commit() {
  buffer_.append((8 - (written_ + buffer_.size()) % 8) % 8, '\0');
  for (const uint64_t end : ends_) append_raw(buffer_, end);
  append_raw(buffer_, static_cast<uint64_t>(ends_.size()));
  LATHE_TRY(put(buffer_));
  LATHE_TRY(file_.write(hasher_.hex_digest()));
  LATHE_TRY(file_.write(kMagic));
  return file_.commit();
}

Result<ShardFile> ShardFile::open(const std::filesystem::path& path, int64_t vocab_size) {
  LATHE_TRY(const std::shared_ptr<const MappedFile> map, MappedFile::open(path));
  const std::span<const std::byte> bytes = map->bytes();
  const auto text = [&](size_t begin, size_t size) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()) + begin, size);
  };
  const auto damaged = [&](std::string_view what) {
    return Error{Errc::kInvalidData, str(path, ": expected a whole file of tokens, found ", what)};
  };
  if (bytes.size() < kHeaderBytes + kFooterBytes || text(0, 8) != kMagic || text(bytes.size() - 8, 8) != kMagic) {
    return damaged("other or cut data");
  }
  const size_t digest = bytes.size() - 8 - kDigestBytes;
  Hasher hasher(Hasher::Kind::kSha256);
  hash_mapped(bytes.first(digest), hasher);
  if (hasher.hex_digest() != text(digest, kDigestBytes)) return damaged("a wrong checksum");
  ShardFile out;
  out.width_ = load_raw<uint32_t>(bytes.data() + 8);
  const auto vocab = static_cast<int64_t>(load_raw<uint32_t>(bytes.data() + 12));
  if (vocab != vocab_size) return damaged(str("a vocabulary of ", vocab, ", expected ", vocab_size));
  const auto documents = load_raw<uint64_t>(bytes.data() + digest - 8);
  const size_t body = digest - 8 - kHeaderBytes;
  if ((out.width_ != 2 && out.width_ != 4) || documents > body / 8) return damaged("impossible counts");
  out.documents_ = static_cast<int64_t>(documents);
  out.ids_ = bytes.data() + kHeaderBytes;
  out.ends_ = bytes.data() + digest - 8 - documents * 8;
  out.map_ = map;
  const uint64_t room = (body - documents * 8) / out.width_;
  uint64_t before = 0;
  for (int64_t i = 0; i < out.documents_; ++i) {
    if (out.end_of(i) < before || out.end_of(i) > room) return damaged("impossible document ends");
    before = out.end_of(i);
  }
  std::vector<int32_t> ids;
  size_t released = kHeaderBytes;
  for (int64_t i = 0; i < out.documents_; ++i) {
    out.read(i, ids);
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size) return damaged(str("the id ", id));
    }
    const size_t looked_at = kHeaderBytes + out.end_of(i) * out.width_;
    if (looked_at - released < kPieceBytes) continue;
    release_mapped(bytes.subspan(released, looked_at - released));
    released = looked_at;
  }
  return out;
}

uint64_t ShardFile::end_of(int64_t index) const {
  return load_raw<uint64_t>(ends_ + static_cast<size_t>(index) * 8);
}

void ShardFile::read(int64_t index, std::vector<int32_t>& out) const {
  const uint64_t begin = index == 0 ? 0 : end_of(index - 1);
  const uint64_t end = end_of(index);
  out.resize(end - begin);
  for (uint64_t i = begin; i < end; ++i) {
    const std::byte* from = ids_ + i * width_;
    out[i - begin] = width_ == 2 ? load_raw<uint16_t>(from) : static_cast<int32_t>(load_raw<uint32_t>(from));
  }
}

}  // namespace lathe::train
