// FieldReader: takes the members of a JSON object one by one, checks type and range, and remembers the first thing that
// is wrong. null counts as absent. After an error every further call does nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/server/api_error.h"

namespace lathe::server {

class FieldReader {
 public:
  // `object` must outlive this.
  explicit FieldReader(const Json& object) : object_(object) {}

  // The member, or nullptr when it is absent or null.
  const Json* find(std::string_view name) const;

  // Each keeps `target` when the member is absent and says whether it was there and right. Whole numbers may be
  // written with a fraction of zero (16.0).
  bool whole(std::string_view name, int64_t least, int64_t most, int64_t& target);
  bool real(std::string_view name, double least, double most, double& target);
  bool boolean(std::string_view name, bool& target);
  bool text(std::string_view name, size_t most_bytes, std::string& target);
  // One of `names`; its position.
  bool one_of(std::string_view name, const std::vector<std::string_view>& names, size_t& target);
  // An array of ids from 0 to below `vocab_size`, at most `most`.
  bool token_ids(std::string_view name, int64_t vocab_size, size_t most, std::vector<int32_t>& target);

  // Refuses a field that asks for something this server does not do: anything but absent, null, false, 0, "" or [].
  void refuse(std::string_view name);

  // Remembers an error unless there is one.
  void fail(std::string_view name, std::string_view message);
  void fail(ApiError error);

  bool failed() const { return error_.has_value(); }

  std::optional<ApiError> take_error() { return std::move(error_); }

 private:
  void expected(std::string_view name, std::string_view what, const Json& found);

  const Json& object_;
  std::optional<ApiError> error_;
};

// A JSON value for an error message: kind and, for short ones, text.
std::string describe(const Json& value);

// The whole number in `value`, also when it is written as 16.0.
std::optional<int64_t> whole_number(const Json& value);

// `tokens` as ids below `vocab_size`; the text of what is wrong otherwise.
std::optional<std::string> read_ids(const Json& tokens, int64_t vocab_size, size_t most, std::vector<int32_t>& out);

}  // namespace lathe::server
