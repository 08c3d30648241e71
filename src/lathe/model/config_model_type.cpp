// Which family a config.json describes: model_type and architectures.
#include <iterator>

#include "lathe/base/str.h"
#include "lathe/model/config_parts.h"

namespace lathe {
namespace {

struct Family {
  ModelType type;
  std::string_view architecture;
  AttentionKind attention;
};

// An architecture that several types share names the first of them when model_type is missing.
constexpr Family kFamilies[] = {
    {ModelType::kDeepseekV2, "DeepseekV2ForCausalLM", AttentionKind::kMla},
    {ModelType::kDeepseekV3, "DeepseekV3ForCausalLM", AttentionKind::kMla},
    {ModelType::kKimiK2, "DeepseekV3ForCausalLM", AttentionKind::kMla},
    {ModelType::kDeepseek, "DeepseekForCausalLM", AttentionKind::kGqa},
    {ModelType::kLlama, "LlamaForCausalLM", AttentionKind::kGqa},
};

std::string known_types() {
  std::vector<std::string_view> names;
  for (const Family& family : kFamilies) names.push_back(name_of(family.type));
  return join_alternatives(names);
}

std::string known_architectures() {
  std::vector<std::string_view> names;
  for (const Family& family : kFamilies) {
    if (names.empty() || names.back() != family.architecture) names.push_back(family.architecture);
  }
  return join_alternatives(names);
}

// architectures[0], or empty when the field is absent, null or an empty list.
Result<std::string> first_architecture(FieldReader& fields) {
  const Json* list = fields.find_value("architectures");
  if (list == nullptr) return std::string();
  if (!list->is_array()) return fields.wrong("architectures", "a list of names", *list);
  if (list->as_array().empty()) return std::string();
  const Json& first = list->as_array().front();
  if (!first.is_string()) return fields.wrong("architectures[0]", "a name", first);
  return first.as_string();
}

}  // namespace

Status read_model_type(FieldReader& fields, ModelConfig& config) {
  std::string type;
  LATHE_TRY(fields.text("model_type", Presence::kNullIsAbsent, type));
  const bool written = fields.find_value("model_type") != nullptr;
  LATHE_TRY(const std::string architecture, first_architecture(fields));
  if (type.empty() && architecture.empty()) return fields.missing("model_type", known_types());

  const Family* by_type = nullptr;
  const Family* by_architecture = nullptr;
  for (const Family& family : kFamilies) {
    if (name_of(family.type) == type) by_type = &family;
    if (by_architecture == nullptr && family.architecture == architecture) by_architecture = &family;
  }
  if (written && by_type == nullptr) {
    return Error{Errc::kUnsupported, str("model_type: expected ", known_types(), ", found ", quoted(type))};
  }
  if (!architecture.empty() && by_architecture == nullptr) {
    return Error{Errc::kUnsupported,
                 str("architectures[0]: expected ", known_architectures(), ", found ", quoted(architecture))};
  }
  if (by_type != nullptr && by_architecture != nullptr && by_type->architecture != architecture) {
    return Error{Errc::kInvalidData,
                 str("architectures[0]: expected ",
                     by_type->architecture,
                     " for model_type ",
                     type,
                     ", found ",
                     quoted(architecture))};
  }
  const Family& family = by_type != nullptr ? *by_type : *by_architecture;
  config.model_type = family.type;
  config.architecture = family.architecture;
  config.attention = family.attention;
  return {};
}

}  // namespace lathe
