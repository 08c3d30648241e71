// The checks of `lathe verify`, one line each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"

namespace lathe::cli {

enum class CheckStatus { kOk, kWarning, kFailed };

// One line of the report.
struct Check {
  std::string name;
  CheckStatus status = CheckStatus::kOk;
  std::string detail;
};

class VerifyReport {
 public:
  void ok(std::string_view name, std::string detail) { add(name, CheckStatus::kOk, std::move(detail)); }

  void warning(std::string_view name, std::string detail) { add(name, CheckStatus::kWarning, std::move(detail)); }

  void failed(std::string_view name, std::string detail) { add(name, CheckStatus::kFailed, std::move(detail)); }

  const std::vector<Check>& checks() const { return checks_; }

  // The first check that failed, or null.
  const Check* first_failure() const {
    for (const Check& check : checks_) {
      if (check.status == CheckStatus::kFailed) return &check;
    }
    return nullptr;
  }

 private:
  void add(std::string_view name, CheckStatus status, std::string detail) {
    checks_.push_back({std::string(name), status, std::move(detail)});
  }

  std::vector<Check> checks_;
};

}  // namespace lathe::cli
