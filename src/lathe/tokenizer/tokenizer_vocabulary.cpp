#include "lathe/tokenizer/tokenizer_vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <random>

#include "lathe/base/check.h"
#include "lathe/base/utf8.h"

namespace lathe {
namespace {

// Code point of the alphabet -> byte: the printable bytes stand for themselves, the 68 others for U+0100 upwards in
// order.
constexpr char32_t kAlphabetEnd = 0x100 + 68;

constexpr std::array<int16_t, kAlphabetEnd> make_alphabet() {
  std::array<int16_t, kAlphabetEnd> out{};
  out.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    out[printable ? static_cast<char32_t>(byte) : next++] = static_cast<int16_t>(byte);
  }
  return out;
}

constexpr std::array<int16_t, kAlphabetEnd> kAlphabet = make_alphabet();

}  // namespace

bool bytes_of_token_text(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const char32_t c = lead < 0x80 ? static_cast<char32_t>(text[i++]) : decode_utf8(text, i);
    if (c >= kAlphabetEnd || kAlphabet[c] < 0) return false;
    bytes += static_cast<char>(kAlphabet[c]);
  }
  return true;
}

Vocabulary::Vocabulary() : seed_(std::random_device{}()) {
  seed_ = seed_ * 0x9E3779B97F4A7C15u ^ reinterpret_cast<uintptr_t>(this);
}

void Vocabulary::reserve(int32_t highest, size_t tokens) {
  entries_.resize(static_cast<size_t>(highest) + 1);
  slots_.resize(std::bit_ceil(std::max<size_t>(16, tokens * 2)));
}

void Vocabulary::append(int32_t id, std::string_view bytes) {
  Entry& entry = entries_[static_cast<size_t>(id)];
  entry.offset = static_cast<uint32_t>(blob_.size());
  entry.length = static_cast<uint32_t>(bytes.size()) & 0x7FFFFFFFu;
  entry.used = 1;
  blob_ += bytes;
}

void Vocabulary::add_model_token(int32_t id, std::string_view bytes) {
  append(id, bytes);
  longest_ = std::max(longest_, bytes.size());
  const uint64_t h = hash(bytes);
  size_t i = h & (slots_.size() - 1);
  while (slots_[i].id != kNoToken) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {static_cast<uint32_t>(h >> 32), id};
}

void Vocabulary::add_added_token(int32_t id, std::string_view bytes) {
  append(id, bytes);
}

int32_t Vocabulary::find(std::string_view text) const {
  if (slots_.empty() || text.size() > longest_) return kNoToken;
  const uint64_t h = hash(text);
  for (size_t i = h & (slots_.size() - 1); slots_[i].id != kNoToken; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].hash == static_cast<uint32_t>(h >> 32) && bytes(slots_[i].id) == text) return slots_[i].id;
  }
  return kNoToken;
}

uint64_t Vocabulary::hash(std::string_view text) const {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  uint64_t h = seed_ ^ text.size() * kMultiplier;
  const auto mix = [&](uint64_t word) {
    h = (h ^ word) * kMultiplier;
    h ^= h >> 29;
  };
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + i, 8);
    mix(word);
  }
  uint64_t tail = 0;
  for (int shift = 0; i < text.size(); ++i, shift += 8) {
    tail |= static_cast<uint64_t>(static_cast<unsigned char>(text[i])) << shift;
  }
  mix(tail);
  h *= kMultiplier;
  return h ^ h >> 32;
}

}  // namespace lathe
