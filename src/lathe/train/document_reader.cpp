#include "lathe/train/document_reader.h"

#include <utility>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"

namespace lathe::train {
namespace {

constexpr size_t kReadBytes = size_t{1} << 18;
constexpr size_t kMaxLineBytes = size_t{1} << 28;

bool is_json_lines(const std::filesystem::path& path) {
  return (path.extension() == ".zst" ? path.stem().extension() : path.extension()) == ".jsonl";
}

}  // namespace

DocumentReader::DocumentReader(std::filesystem::path path, DocumentFormat format, std::unique_ptr<ByteSource> bytes)
    : path_(std::move(path)), format_(std::move(format)), bytes_(std::move(bytes)), json_(is_json_lines(path_)) {}

Result<DocumentReader> DocumentReader::open(const std::filesystem::path& path, DocumentFormat format) {
  LATHE_TRY(std::unique_ptr<ByteSource> bytes, open_bytes(path));
  return DocumentReader(path, std::move(format), std::move(bytes));
}

Result<bool> DocumentReader::next_line(std::string_view& line) {
  size_t searched = position_;
  while (true) {
    const size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos || (drained_ && position_ < buffer_.size())) {
      const size_t stop = end == std::string::npos ? buffer_.size() : end;
      line = std::string_view(buffer_).substr(position_, stop - position_);
      position_ = end == std::string::npos ? stop : stop + 1;
      ++line_;
      return true;
    }
    if (drained_) return false;
    buffer_.erase(0, position_);
    position_ = 0;
    searched = buffer_.size();
    if (searched > kMaxLineBytes) {
      return Error{Errc::kInvalidData,
                   str(path_, ": line ", line_ + 1, ": expected at most ", kMaxLineBytes, " bytes, found more")};
    }
    buffer_.resize(searched + kReadBytes);
    Result<size_t> got = bytes_->read(std::span(buffer_).subspan(searched));
    if (!got) return std::move(got).error();
    buffer_.resize(searched + *got);
    drained_ = *got == 0;
  }
}

Result<bool> DocumentReader::next_plain(std::string& text) {
  text.clear();
  std::string_view line;
  while (true) {
    LATHE_TRY(const bool more, next_line(line));
    if (!more) break;
    std::string_view content = line;
    if (content.ends_with('\r')) content.remove_suffix(1);
    const bool ends = !format_.separator.empty() && content == format_.separator;
    if (!ends) {
      text += line;
      text += '\n';
    }
    if ((ends && !text.empty()) || text.size() >= kMaxDocumentBytes) break;
  }
  if (text.empty()) return false;
  text.pop_back();  // the end of its last line
  return true;
}

Result<bool> DocumentReader::next_json(std::string& text) {
  std::string_view line;
  LATHE_TRY(const bool more, next_line(line));
  if (!more) return false;
  text.clear();
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return true;
  const Result<Json> json = parse_json(line);
  if (!json) return json.error().at(str(path_, ": line ", line_));
  const Json* value = json->find(format_.field);
  if (value == nullptr || !value->is_string()) {
    return Error{Errc::kInvalidData,
                 str(path_,
                     ": line ",
                     line_,
                     ": expected an object with text in ",
                     quoted(format_.field),
                     ", found ",
                     value == nullptr ? "none" : value->kind_name())};
  }
  text = value->as_string();
  return true;
}

Result<bool> DocumentReader::next(std::string& text) {
  while (true) {
    LATHE_TRY(const bool more, json_ ? next_json(text) : next_plain(text));
    if (!more) return false;
    if (text.empty()) continue;
    if (!is_valid_utf8(text)) text = to_valid_utf8(text);
    return true;
  }
}

}  // namespace lathe::train
