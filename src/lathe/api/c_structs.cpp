#include "lathe/api/c_structs.h"

#include <algorithm>

#include "lathe/base/str.h"

namespace lathe::v1 {

namespace {

// No field may hide in padding: an older caller leaves it undefined.
#if UINTPTR_MAX == UINT64_MAX
static_assert(sizeof(lathe_open_options) == 4 * 8 + 4 * 4);
static_assert(sizeof(lathe_generate_options) == 10 * 8 + 2 * 4 + 2 * 8 + 6 * 8);
static_assert(sizeof(lathe_completion) == 6 * 8 + 2 * 4 + 2 * 8);
static_assert(sizeof(lathe_model_info) == 8 + 64 + 14 * 8 + 4 * 4 + 8);
#endif

Error invalid(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message)};
}

// `count` texts of the generate options; `name` of their field.
Expected<std::vector<std::string>> read_texts(const char* name, const char* const* texts, size_t count) {
  if (texts == nullptr && count != 0) {
    return invalid(str("generate options.", name, ": expected ", count, " texts, found NULL"));
  }
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) {
    if (texts[i] == nullptr) {
      return invalid(str("generate options.", name, "[", i, "]: expected a text, found NULL"));
    }
    out.emplace_back(texts[i]);
  }
  return out;
}

}  // namespace

Expected<void> check_struct_size(const char* what, size_t struct_size, size_t least, size_t alignment) {
  if (struct_size < least || struct_size > kMaxStructSize || struct_size % alignment != 0) {
    return invalid(str(what,
                       ".struct_size: expected a multiple of ",
                       alignment,
                       " from ",
                       least,
                       " to ",
                       kMaxStructSize,
                       ", found ",
                       struct_size));
  }
  return {};
}

bool is_zero_beyond(const void* memory, size_t known, size_t size) {
  if (size <= known) return true;
  const auto* bytes = static_cast<const unsigned char*>(memory);
  return std::all_of(bytes + known, bytes + size, [](unsigned char byte) { return byte == 0; });
}

Expected<OpenOptions> to_open_options(const lathe_open_options* user) {
  const lathe_open_options defaults = LATHE_OPEN_OPTIONS_INIT;
  Expected<lathe_open_options> options = read_options("open options", user, defaults);
  if (!options) return std::move(options).error();
  if (options->reserved != 0) return invalid(str("open options.reserved: expected 0, found ", options->reserved));
  OpenOptions out;
  out.threads = options->threads;
  out.context_size = options->context_size;
  switch (options->cache_type) {
    case LATHE_CACHE_AUTO:
      out.cache_type = CacheType::kAuto;
      break;
    case LATHE_CACHE_F32:
      out.cache_type = CacheType::kF32;
      break;
    case LATHE_CACHE_F16:
      out.cache_type = CacheType::kF16;
      break;
    case LATHE_CACHE_BF16:
      out.cache_type = CacheType::kBF16;
      break;
    case LATHE_CACHE_Q8:
      out.cache_type = CacheType::kQ8;
      break;
    case LATHE_CACHE_Q6:
      out.cache_type = CacheType::kQ6;
      break;
    default:
      return invalid(str("open options.cache_type: expected 0 to 5, found ", options->cache_type));
  }
  switch (options->compute) {
    case LATHE_COMPUTE_AUTO:
      out.compute = Compute::kAuto;
      break;
    case LATHE_COMPUTE_F32:
      out.compute = Compute::kF32;
      break;
    default:
      return invalid(str("open options.compute: expected 0 or 1, found ", options->compute));
  }
  if (options->weight_type != nullptr) out.weight_type = options->weight_type;
  if (options->packed_folder != nullptr) out.packed_folder = options->packed_folder;
  return out;
}

Expected<GenerateOptions> to_generate_options(const lathe_generate_options* user) {
  const lathe_generate_options defaults = LATHE_GENERATE_OPTIONS_INIT;
  Expected<lathe_generate_options> options = read_options("generate options", user, defaults);
  if (!options) return std::move(options).error();
  GenerateOptions out;
  out.max_tokens = options->max_tokens;
  if (options->temperature != LATHE_MODEL_DEFAULT) out.temperature = options->temperature;
  if (options->top_k != LATHE_MODEL_DEFAULT) out.top_k = options->top_k;
  if (options->top_p != LATHE_MODEL_DEFAULT) out.top_p = options->top_p;
  out.min_p = options->min_p;
  if (options->repetition_penalty != LATHE_MODEL_DEFAULT) out.repetition_penalty = options->repetition_penalty;
  out.presence_penalty = options->presence_penalty;
  out.frequency_penalty = options->frequency_penalty;
  if (options->use_seed != 0) out.seed = options->seed;
  out.ignore_eos = options->ignore_eos != 0;
  Expected<std::vector<std::string>> stop = read_texts("stop", options->stop, options->stop_count);
  if (!stop) return std::move(stop).error();
  out.stop = *std::move(stop);
  if (options->dry_multiplier != LATHE_MODEL_DEFAULT) out.dry_multiplier = options->dry_multiplier;
  if (options->dry_base != LATHE_MODEL_DEFAULT) out.dry_base = options->dry_base;
  if (options->dry_allowed_length != LATHE_MODEL_DEFAULT) out.dry_allowed_length = options->dry_allowed_length;
  out.dry_penalty_last_n = options->dry_penalty_last_n;
  Expected<std::vector<std::string>> breakers =
      read_texts("dry_sequence_breakers", options->dry_sequence_breakers, options->dry_sequence_breaker_count);
  if (!breakers) return std::move(breakers).error();
  if (options->dry_sequence_breakers != nullptr) out.dry_sequence_breakers = *std::move(breakers);
  return out;
}

}  // namespace lathe::v1
