// JSON: the tree parser and the cursor agree, and what was parsed survives printing.
#include "fuzz.h"
#include "lathe/base/json.h"
#include "lathe/base/utf8.h"
#include "lathe/formats/json_cursor.h"

using lathe::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const lathe::Result<lathe::Json> parsed = lathe::parse_json(text, {.max_depth = lathe::JsonCursor::kMaxDepth - 1});
  if (!parsed) lathe::fuzz::require_clean_message(parsed.error().message);

  bool cursor_accepts = false;
  if (lathe::is_valid_utf8(text)) {
    lathe::JsonCursor cursor(text);
    lathe::Status status = cursor.skip_value();
    if (status) status = cursor.finish();
    if (!status) lathe::fuzz::require_clean_message(status.error().message);
    cursor_accepts = status.has_value();
  }
  if (!parsed) return 0;
  require(cursor_accepts, "the tree parser accepts what the cursor refuses");

  for (const int indent : {-1, 2}) {
    const lathe::Result<lathe::Json> again = lathe::parse_json(parsed->dump(indent));
    require(again.has_value() && *again == *parsed, "printing and parsing changes the value");
  }
  return 0;
}
