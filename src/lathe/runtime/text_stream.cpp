#include "lathe/runtime/text_stream.h"

#include <algorithm>

#include "lathe/base/begun_marker.h"

namespace lathe {

TextStream::TextStream(const Tokenizer* tokenizer,
                       std::vector<std::string> stop,
                       std::vector<int32_t> visible_special,
                       int64_t min_tokens)
    : tokenizer_(tokenizer),
      visible_special_(std::move(visible_special)),
      stop_(std::move(stop)),
      min_tokens_(min_tokens) {
  std::erase_if(stop_, [](const std::string& s) { return s.empty(); });
  if (tokenizer != nullptr) decoder_.emplace_back(*tokenizer, /*skip_special=*/false);
}

bool TextStream::is_hidden(int32_t id) const {
  return tokenizer_->is_special(id) && std::ranges::find(visible_special_, id) == visible_special_.end();
}

std::string TextStream::push(int32_t id) {
  if (stopped_ || decoder_.empty()) return {};
  if (!is_hidden(id)) pending_ += decoder_.front().push(id);
  if (++tokens_ <= min_tokens_) immune_ = pending_.size();
  return release(/*at_end=*/false);
}

std::string TextStream::finish() {
  if (stopped_ || decoder_.empty()) return {};
  pending_ += decoder_.front().finish();
  if (tokens_ <= min_tokens_) immune_ = pending_.size();
  return release(/*at_end=*/true);
}

std::string TextStream::release(bool at_end) {
  size_t found = std::string::npos;
  for (const std::string& stop : stop_) {
    found = std::min(found, pending_.find(stop, immune_ < stop.size() ? 0 : immune_ - stop.size() + 1));
  }
  if (found != std::string::npos) {
    stopped_ = true;
    std::string out = pending_.substr(0, found);
    pending_.clear();
    return out;
  }
  const size_t held = at_end ? 0 : begun_marker(pending_, stop_);
  std::string out = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, out.size());
  immune_ -= std::min(immune_, out.size());
  return out;
}

}  // namespace lathe
