// lathe inspect: what follows from a configuration alone, or what this processor is.
#include <algorithm>
#include <cmath>

#include "lathe/base/cpu.h"
#include "lathe/base/log.h"
#include "lathe/cli/common.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/config_rope.h"
#include "lathe/model/cpu_backend.h"
#include "lathe/model/memory_plan.h"
#include "lathe/model/model_files.h"
#include "lathe/model/shapes.h"

namespace lathe::cli {

namespace {

struct Facts {
  ModelConfig config;
  ParameterCounts parameters;
  CacheComparison cache;
  MemoryPlan plan;
  int64_t context = 0;
  CacheFormat cache_format = CacheFormat::kF16;
  std::string cache_type;
};

Result<Facts> gather(const InspectOptions& o) {
  Facts f;
  std::filesystem::path path(o.model);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    LATHE_TRY(path, model_folder(o.model));
  }
  LATHE_TRY(const ModelFiles files, ModelFiles::open(path));
  LATHE_TRY(ParsedConfig parsed, files.config());
  for (const std::string& warning : parsed.warnings) log_warning(warning);
  f.config = std::move(parsed.config);
  f.parameters = count_parameters(f.config);
  f.cache = compare_caches(f.config);
  // A folder may have no weights here; what it would have follows from the configuration.
  std::optional<uint64_t> weight_bytes;
  if (files.is_gguf()) {
    LATHE_TRY(const Checkpoint checkpoint, files.checkpoint());
    weight_bytes = checkpoint.total_bytes();
  }
  f.cache_type = o.cache_type;
  LATHE_TRY(const std::optional<CacheFormat> cache_format, parse_cache_type(o.cache_type));
  f.cache_format = cache_format.value_or(CacheFormat::kF16);
  const int64_t most = f.config.max_position_embeddings;
  f.context = o.ctx_size > 0 ? o.ctx_size : std::min(most, kDefaultContext);
  if (f.context > most) {
    return Error{Errc::kInvalidArgument,
                 str("--ctx-size: expected at most max_position_embeddings ", most, ", found ", f.context)};
  }
  const int64_t batch = std::min<int64_t>(EngineOptions{}.max_batch_tokens, f.context);
  const int threads = default_thread_count();
  LATHE_TRY(f.plan,
            plan_memory(f.config,
                        {.context = f.context,
                         .cache_format = f.cache_format,
                         .cache_page_tokens = kPageTokens,
                         .max_batch_tokens = batch,
                         .threads = threads,
                         .weight_bytes = weight_bytes,
                         .scratch_floats = CpuBackend::total_floats(f.config, batch, threads)}));
  return f;
}

// Bytes of so many cached elements over all layers.
int64_t cache_bytes(const Facts& f, int64_t elements) {
  const int64_t layers = f.config.num_hidden_layers;
  return layers * cache_row_bytes(f.cache_format, elements / layers);
}

std::string attention_name(const ModelConfig& c) {
  if (c.attention == AttentionKind::kMla) return "MLA";
  if (c.num_key_value_heads == c.num_attention_heads) return "MHA";
  return c.num_key_value_heads == 1 ? "MQA" : "GQA";
}

// "13.45 M", "235.7 B".
std::string short_count(int64_t n) {
  const auto value = static_cast<double>(n);
  if (n >= 1'000'000'000) return fixed(value / 1e9, value >= 1e11 ? 1 : 2) + " B";
  if (n >= 1'000'000) return fixed(value / 1e6, 2) + " M";
  return with_commas(n);
}

Json to_json(const Facts& f) {
  const ModelConfig& c = f.config;
  Json parameters = Json::object();
  parameters.set("total", f.parameters.total);
  parameters.set("active", f.parameters.active);
  parameters.set("active_with_embedding", f.parameters.active_with_embedding);
  parameters.set("active_without_head", f.parameters.active_without_head);
  parameters.set("attention_per_layer", f.parameters.attention_per_layer);
  Json cache = Json::object();
  cache.set("type", f.cache_type);
  cache.set("elements_per_token", f.cache.elements_per_token);
  cache.set("bytes_per_token", cache_bytes(f, f.cache.elements_per_token));
  cache.set("mha_elements_per_token", f.cache.mha_elements_per_token);
  cache.set("gqa8_elements_per_token", f.cache.gqa8_elements_per_token);
  cache.set("mqa_elements_per_token", f.cache.mqa_elements_per_token);
  cache.set("equivalent_gqa_groups", f.cache.equivalent_gqa_groups);
  Json plan = Json::object();
  plan.set("context", f.context);
  plan.set("weights", f.plan.weights);
  plan.set("cache", f.plan.cache);
  plan.set("scratch", f.plan.scratch);
  plan.set("total", f.plan.total);
  Json config = Json::object();
  config.set("layers", c.num_hidden_layers);
  config.set("hidden_size", c.hidden_size);
  config.set("attention", attention_name(c));
  config.set("heads", c.num_attention_heads);
  config.set("key_value_heads", c.num_key_value_heads);
  config.set("vocab_size", c.vocab_size);
  config.set("max_position_embeddings", c.max_position_embeddings);
  config.set("routed_experts", c.n_routed_experts);
  config.set("shared_experts", c.n_shared_experts);
  config.set("experts_per_token", c.num_experts_per_tok);
  config.set("softmax_scale", attention_scale(c));
  Json out = Json::object();
  out.set("architecture", c.architecture.empty() ? std::string(name_of(c.model_type)) : c.architecture);
  out.set("model_type", name_of(c.model_type));
  out.set("dtype", c.fp8 ? std::string("fp8_e4m3") : c.dtype);
  out.set("config", std::move(config));
  out.set("parameters", std::move(parameters));
  out.set("cache", std::move(cache));
  out.set("plan", std::move(plan));
  return out;
}

std::string line(std::string_view label, const std::string& value) {
  std::string out(label);
  out.resize(std::max<size_t>(out.size() + 1, 22), ' ');
  return out + value + "\n";
}

std::string describe_attention(const ModelConfig& c) {
  if (c.attention == AttentionKind::kMla) {
    return str("MLA, ",
               c.num_attention_heads,
               " heads; kv_lora_rank ",
               c.kv_lora_rank,
               ", q_lora_rank ",
               c.q_lora_rank > 0 ? str(c.q_lora_rank) : std::string("none"),
               ", nope ",
               c.qk_nope_head_dim,
               ", rope ",
               c.qk_rope_head_dim,
               ", value ",
               c.v_head_dim);
  }
  return str(attention_name(c),
             ", ",
             c.num_attention_heads,
             " query heads, ",
             c.num_key_value_heads,
             " key/value heads of ",
             c.head_dim);
}

std::string describe_ffn(const ModelConfig& c) {
  if (c.n_routed_experts == 0) return str("dense SwiGLU of ", c.intermediate_size);
  std::string out = str(c.n_routed_experts,
                        " routed experts of ",
                        c.moe_intermediate_size,
                        ", ",
                        c.num_experts_per_tok,
                        " per token, ",
                        c.n_shared_experts,
                        " shared; ",
                        name_of(c.scoring_func),
                        ", ",
                        name_of(c.topk_method));
  if (c.n_group > 1) out += str(" (", c.topk_group, " of ", c.n_group, " groups)");
  out += str(", scaling ", c.routed_scaling_factor, c.norm_topk_prob ? ", normalised" : "");
  if (c.first_k_dense_replace > 0) out += str("; first ", c.first_k_dense_replace, " dense of ", c.intermediate_size);
  return out;
}

std::string describe_rope(const ModelConfig& c) {
  const RopeScaling& r = c.rope_scaling;
  std::string out = str("theta ",
                        c.rope_theta,
                        c.rope_layout == RopeLayout::kInterleaved ? ", pairs (2i, 2i+1)" : ", pairs (i, i + d/2)");
  if (r.type == RopeScalingType::kLinear) out += str("; linear x", r.factor);
  if (r.type == RopeScalingType::kYarn) {
    out += str("; YaRN x",
               r.factor,
               " from ",
               r.original_max_position_embeddings,
               ", beta ",
               r.beta_fast,
               "/",
               r.beta_slow,
               ", mscale ",
               r.mscale,
               "/",
               r.mscale_all_dim);
  }
  return out + str("; softmax scale ", fixed(attention_scale(c), 10));
}

std::string to_text(const Facts& f) {
  const ModelConfig& c = f.config;
  const auto cache_row = [&](std::string_view name, int64_t elements) {
    std::string out = str("  ", name);
    out.resize(26, ' ');
    std::string count = with_commas(elements);
    out += std::string(count.size() < 12 ? 12 - count.size() : 0, ' ') + count + " elements  ";
    std::string bytes = with_commas(cache_bytes(f, elements));
    return out + std::string(bytes.size() < 12 ? 12 - bytes.size() : 0, ' ') + bytes + " bytes\n";
  };
  const int64_t groups = f.cache.mqa_elements_per_token;
  std::string out;
  out += line("architecture", str(c.architecture, " (", name_of(c.model_type), "), ", c.fp8 ? "fp8_e4m3" : c.dtype));
  out += line("layers",
              str(c.num_hidden_layers,
                  " of ",
                  c.hidden_size,
                  ", vocabulary ",
                  with_commas(c.vocab_size),
                  ", context ",
                  with_commas(c.max_position_embeddings)));
  out += line("attention", describe_attention(c));
  out += line("feed-forward", describe_ffn(c));
  out += line("rope", describe_rope(c));
  out += line("parameters", str(with_commas(f.parameters.total), " total (", short_count(f.parameters.total), ")"));
  out += line("  active per token",
              str(with_commas(f.parameters.active),
                  " with the head (",
                  short_count(f.parameters.active),
                  "), ",
                  with_commas(f.parameters.active_with_embedding),
                  " with embedding and head"));
  out += str("cache per token (", f.cache_type, ")\n");
  out += cache_row(str("this model (", attention_name(c), ")"), f.cache.elements_per_token);
  out += cache_row("MHA, same heads", f.cache.mha_elements_per_token);
  out += cache_row("GQA, 8 groups", f.cache.gqa8_elements_per_token);
  out += cache_row("MQA", f.cache.mqa_elements_per_token);
  if (groups > 0) {
    const double share =
        100.0 * static_cast<double>(f.cache.elements_per_token) / static_cast<double>(f.cache.mha_elements_per_token);
    out += str(
        "  equal to GQA with ", fixed(f.cache.equivalent_gqa_groups, 2), " groups; ", fixed(share, 2), " % of MHA\n");
  }
  out += str("memory plan for ", with_commas(f.context), " tokens\n");
  out += line("  weights", human_bytes(f.plan.weights));
  out += line("  cache", human_bytes(f.plan.cache));
  out += line("  scratch", human_bytes(f.plan.scratch));
  out += line("  total", human_bytes(f.plan.total));
  return out;
}

Status inspect_cpu(bool json) {
  const MachineLimits limits = machine_limits();
  Json tables = Json::array();
  std::string names;
  for (const KernelTable* table : all_kernels()) {
    tables.push(table->isa);
    names += str(names.empty() ? "" : ", ", table->isa);
  }
  if (!json) {
    return write_stdout(
        line("processor", cpu_model_name()) + line("kernels in force", std::string(kernels().isa)) +
        line("kernels available", names) + line("threads", str(default_thread_count())) +
        line("processors allowed", str(limits.affinity_cpus, ", ", limits.physical_cores, " physical cores")) +
        line("memory available", str(human_bytes(limits.available_memory), " of ", human_bytes(limits.total_memory))));
  }
  Json out = Json::object();
  out.set("processor", cpu_model_name());
  out.set("isa", kernels().isa);
  out.set("isa_available", std::move(tables));
  out.set("threads", default_thread_count());
  out.set("affinity_cpus", limits.affinity_cpus);
  out.set("physical_cores", limits.physical_cores);
  out.set("total_memory", limits.total_memory);
  out.set("available_memory", limits.available_memory);
  return write_json(out);
}

Status inspect(const InspectOptions& o) {
  if (o.cpu) return inspect_cpu(o.json);
  LATHE_TRY(const Facts facts, gather(o));
  return o.json ? write_json(to_json(facts)) : write_stdout(to_text(facts));
}

}  // namespace

int run_inspect(const InspectOptions& options) {
  const Status status = inspect(options);
  return status ? kExitOk : report(status.error());
}

}  // namespace lathe::cli
