#include "lathe/cli/run_message.h"

#include <utility>

namespace lathe::cli {
namespace {

constexpr std::string_view kMark = "\"\"\"";

}  // namespace

std::optional<std::string> MessageReader::push(std::string_view line) {
  bool closes = false;
  if (in_block_) {
    closes = line.ends_with(kMark);
  } else if (!pending_ && line.starts_with(kMark)) {
    in_block_ = true;
    line.remove_prefix(kMark.size());
    closes = line.ends_with(kMark);
    if (line.empty()) {  // the mark alone on its line: the text begins on the next
      pending_ = true;
      return std::nullopt;
    }
  }
  if (closes) {
    line.remove_suffix(kMark.size());
    if (line.empty() && text_.ends_with('\n')) text_.pop_back();  // the closing mark alone on its line
    return complete(line);
  }
  if (in_block_) {
    keep(line);
    return std::nullopt;
  }
  if (line.ends_with('\\')) {
    line.remove_suffix(1);
    keep(line);
    return std::nullopt;
  }
  return complete(line);
}

void MessageReader::reset() {
  text_.clear();
  pending_ = false;
  in_block_ = false;
}

std::optional<std::string> MessageReader::complete(std::string_view last) {
  text_ += last;
  std::string message = std::move(text_);
  reset();
  return message;
}

void MessageReader::keep(std::string_view line) {
  text_ += line;
  text_ += '\n';
  pending_ = true;
}

}  // namespace lathe::cli
