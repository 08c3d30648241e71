// The parts of parse_config, one per group of fields. Internal to model/; config.h is the interface.
#pragma once

#include "lathe/base/result.h"
#include "lathe/model/config.h"
#include "lathe/model/config_fields.h"

namespace lathe {

// model_type and architectures, which must agree; either may be missing. Sets model_type, architecture, attention.
Status read_model_type(FieldReader& fields, ModelConfig& config);

// Experts, gate and balance losses. Fields that are absent keep the defaults of the model's class, set before.
Status read_moe(FieldReader& fields, ParsedConfig& out);

// rope_theta, rope_scaling and rope_parameters (trap T10), rope_interleave.
Status read_rope(FieldReader& fields, ParsedConfig& out);

// quantization_config: absent or FP8 with 128x128 blocks.
Status read_quantization(FieldReader& fields, ParsedConfig& out);

// What no single field can tell: divisibility, counts within counts, token ids within the vocabulary, total size.
Status check_config(const ModelConfig& config);

// Adds one warning per field of `fields` that nothing has read; a flood is cut with a count.
void warn_unknown(const FieldReader& fields, std::vector<std::string>& warnings);

}  // namespace lathe
