// SHA-256 (files of the hub's large-file store) and git blob SHA-1 (its small files), through OpenSSL's libcrypto.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "lathe/base/result.h"

namespace lathe {

class Hasher {
 public:
  enum class Kind { kSha256, kSha1 };
  explicit Hasher(Kind kind);
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  ~Hasher();
  // Takes the next bytes of the message.
  void update(std::string_view bytes);
  std::string hex_digest();  // lower case; call once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe
