#include "lathe/train/resume_check.h"

#include <string_view>

#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/train/recipe.h"

namespace lathe::train {
namespace {

// How the learning rate goes on may be decided on the way: when a constant stage ends, say.
bool is_plan_key(std::string_view section, std::string_view key) {
  if (section == "train") return key == "max_steps";
  return section == "schedule" && key != "learning_rate" && key != "warmup_steps";
}

// Keys that change nothing that was computed, so that a run may go on with others.
bool is_free_key(std::string_view section, std::string_view key) {
  if (section.empty()) return key == "title" || key == "output" || key == "threads";
  if (section == "data" || section == "checkpoint" || section == "eval") return true;  // data: compared by content
  if (section == "train") return key == "log_every" || key == "recompute";
  return section == "tokenizer" || (section == "model" && (key == "from" || key == "config"));
}

const Json* member_of(const Json& recipe, std::string_view section, std::string_view key) {
  const Json* found = recipe.find(section);
  return found == nullptr ? nullptr : found->find(key);
}

}  // namespace

Status check_same_recipe(const Json& before, const Json& after) {
  const Json defaults = recipe_json({});  // of keys that were not there yet when the run began
  for (const auto& [section, value] : after.as_object()) {
    const Json* old = before.find(section);
    if (!value.is_object()) {
      if (is_free_key("", section) || (old != nullptr && *old == value)) continue;
      return Error{Errc::kInvalidArgument,
                   str("--resume: ",
                       section,
                       ": expected ",
                       old == nullptr ? "none" : old->dump(),
                       " as in the checkpoint, found ",
                       value.dump())};
    }
    for (const auto& [key, member] : value.as_object()) {
      const Json* old_member = old == nullptr ? nullptr : old->find(key);
      if (old_member == nullptr) old_member = member_of(defaults, section, key);
      if (is_free_key(section, key) || (old_member != nullptr && *old_member == member)) continue;
      if (is_plan_key(section, key)) {
        log_warning(section,
                    '.',
                    key,
                    " was ",
                    old_member == nullptr ? "none" : old_member->dump(),
                    " before, now it is ",
                    member.dump(),
                    ": the learning rate follows another plan");
        continue;
      }
      return Error{Errc::kInvalidArgument,
                   str("--resume: ",
                       section,
                       '.',
                       key,
                       ": expected ",
                       old_member == nullptr ? "none" : old_member->dump(),
                       " as in the checkpoint, found ",
                       member.dump())};
    }
  }
  return {};
}

}  // namespace lathe::train
