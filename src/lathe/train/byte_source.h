// The bytes of a text file in pieces, unpacked when it ends in .zst. libzstd appears in byte_source.cpp alone.
#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "lathe/base/result.h"

namespace lathe::train {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the front of `out` (not empty) and says how much of it; 0 at the end only. Errors name the file: kIo, and
  // kInvalidData for a damaged or cut .zst file.
  virtual Result<size_t> read(std::span<char> out) = 0;
};

// Opens a regular file; several zstd frames one after the other are read as one. Memory does not depend on its size.
Result<std::unique_ptr<ByteSource>> open_bytes(const std::filesystem::path& path);

}  // namespace lathe::train
