// Several typed lines as one message.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lathe::cli {

// A line that ends in a backslash continues on the next one. A line that begins with """ opens a block that ends with
// the next line that ends in """; a backslash at the end of a line in a block is a backslash. Line breaks stay in the
// message, the marks do not.
class MessageReader {
 public:
  // The whole message once `line` (without its line break) completes one.
  std::optional<std::string> push(std::string_view line);

  // Whether lines were pushed that no message has come of yet.
  bool pending() const { return pending_; }

  // Forgets what is pending.
  void reset();

 private:
  std::optional<std::string> complete(std::string_view last);
  void keep(std::string_view line);

  std::string text_;
  bool pending_ = false;
  bool in_block_ = false;
};

}  // namespace lathe::cli
