// The documents of a text file, one after the other: plain text whose documents end with a separator line, or JSONL
// (file names that end in .jsonl or .jsonl.zst) with the text in one member of each line's object.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/train/byte_source.h"

namespace lathe::train {

struct DocumentFormat {
  std::string separator = "<|endoftext|>";  // a line holding it alone ends a document
  std::string field = "text";
};

// A longer document of plain text is cut at a line end: nothing is lost, and memory stays bounded.
inline constexpr size_t kMaxDocumentBytes = size_t{1} << 24;

class DocumentReader {
 public:
  // Errors: those of open_bytes().
  static Result<DocumentReader> open(const std::filesystem::path& path, DocumentFormat format = {});

  // Puts the next document into `text` (UTF-8; other bytes became U+FFFD) and says whether there was one. Empty ones
  // are passed over. Errors name file and line.
  Result<bool> next(std::string& text);

 private:
  DocumentReader(std::filesystem::path path, DocumentFormat format, std::unique_ptr<ByteSource> bytes);

  // The next line without its end; false at the end of the file. Valid until the next call.
  Result<bool> next_line(std::string_view& line);
  Result<bool> next_plain(std::string& text);
  Result<bool> next_json(std::string& text);

  std::filesystem::path path_;
  DocumentFormat format_;
  std::unique_ptr<ByteSource> bytes_;
  bool json_;
  std::string buffer_;
  size_t position_ = 0;
  bool drained_ = false;
  int64_t line_ = 0;
};

}  // namespace lathe::train
