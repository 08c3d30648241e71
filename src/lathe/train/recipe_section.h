// One table of a recipe: typed reads that keep the first error, and the check that nothing was left unread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/model/config_fields.h"

namespace lathe::train {

// `object` must outlive the section; null stands for an absent table. A key that is absent leaves the caller's value.
class Section {
 public:
  // `name`: of the table in messages ("train"), empty for the top.
  Section(const Json* object, std::string_view name);

  // A whole number in `range`.
  void whole(std::string_view key, IntegerRange range, int64_t& value);
  // A number in `range`.
  void real(std::string_view key, RealRange range, double& value);
  // true or false.
  void boolean(std::string_view key, bool& value);
  // Text, also empty.
  void text(std::string_view key, std::string& value);
  // Text that must be one of `names`.
  void choice(std::string_view key, std::span<const std::string_view> names, std::string& value);
  // One text or a list of them.
  void texts(std::string_view key, std::vector<std::string>& values);
  void reals(std::string_view key, RealRange range, std::vector<double>& values);
  void wholes(std::string_view key, IntegerRange range, std::vector<int64_t>& values);
  // A nested table or list that the caller reads; null when absent.
  const Json* raw(std::string_view key);

  // Text that must be one of the spellings of an enum.
  template <class Enum, size_t N>
  void named(std::string_view key, const NamedValue<Enum> (&choices)[N], Enum& value) {
    keys_.emplace_back(key);
    if (!error_) return;
    note(read_choice(fields_, key, choices, Presence::kOptional, value));
  }

  // The first error: of a value, or of a key that was never asked for.
  Status finish();

  // As another table's error, e.g. of a relation between keys.
  void fail(std::string_view key, std::string_view message);

 private:
  void note(Status status);
  // A list of what `read` reads one of: (reader of a table with that key alone, value).
  template <class T, class Read>
  void numbers(std::string_view key, const Read& read, std::vector<T>& values);

  FieldReader fields_;
  std::string name_;
  std::vector<std::string> keys_;
  Status error_;
};

}  // namespace lathe::train
