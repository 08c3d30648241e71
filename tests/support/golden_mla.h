// The MLA blocks of tests/golden/ops/mla_attention.safetensors as problems that mla_attention takes.
#pragma once

#include <string>
#include <vector>

#include "support/golden_file.h"
#include "support/mla_problem.h"

namespace lathe::testing {

struct GoldenMla {
  std::string name;
  MlaProblem problem;  // x and tensors are empty for real_dims
  int64_t past = 0;    // tokens before the decode step
  int64_t fresh = 0;   // tokens of the decode step
  bool has_block = false;
  std::vector<float> y;           // [past + fresh, d]
  std::vector<float> core_q;      // [fresh, heads, r + d_r]: absorbed queries
  std::vector<float> core_cache;  // [past + fresh, r + d_r]
  std::vector<float> core_out;    // [fresh, heads, r]
  std::vector<float> core_lse;    // [fresh, heads]
};

inline std::vector<GoldenMla> golden_mla() {
  const GoldenFile file(golden_dir() / "ops" / "mla_attention.safetensors");
  const Json ops = read_json(golden_dir() / "ops" / "ops.json").value();
  std::vector<GoldenMla> out;
  for (const Json& c : ops.find("mla_attention")->find("cases")->as_array()) {
    const auto integer = [&](const char* key) { return c.find(key)->is_null() ? int64_t{0} : c.find(key)->as_int(); };
    const Json& yarn = *c.find("rope_scaling");
    const auto number = [&](const char* key) { return yarn.find(key)->as_double(); };
    GoldenMla golden;
    golden.name = c.find("case")->as_string();
    golden.past = integer("past");
    golden.fresh = integer("new");
    golden.problem.shape = {.hidden_size = integer("hidden"),
                            .num_heads = integer("heads"),
                            .qk_nope_head_dim = integer("nope"),
                            .qk_rope_head_dim = integer("rope"),
                            .v_head_dim = integer("v"),
                            .kv_lora_rank = integer("kv_lora_rank"),
                            .q_lora_rank = integer("q_lora_rank"),
                            .softmax_scale = static_cast<float>(c.find("softmax_scale")->as_double()),
                            .rope_interleaved = true};
    golden.problem.rope = {.kind = RopeKind::kYarn,
                           .dim = integer("rope"),
                           .theta = 10000.0,
                           .factor = number("factor"),
                           .original_max_position_embeddings = number("original_max_position_embeddings"),
                           .beta_fast = number("beta_fast"),
                           .beta_slow = number("beta_slow"),
                           .mscale = number("mscale"),
                           .mscale_all_dim = number("mscale_all_dim")};
    const auto read = [&](const std::string& name) {
      const std::string full = golden.name + "." + name;
      return file.has(full) ? file.floats(full) : std::vector<float>();
    };
    golden.has_block = file.has(golden.name + ".x");
    golden.problem.x = read("x");
    golden.y = read("y");
    MlaTensors& w = golden.problem.tensors;
    w.q_proj = read("w.q_proj.weight");
    w.q_a_proj = read("w.q_a_proj.weight");
    w.q_a_layernorm = read("w.q_a_layernorm.weight");
    w.q_b_proj = read("w.q_b_proj.weight");
    w.kv_a_proj_with_mqa = read("w.kv_a_proj_with_mqa.weight");
    w.kv_a_layernorm = read("w.kv_a_layernorm.weight");
    w.kv_b_proj = read("w.kv_b_proj.weight");
    w.o_proj = read("w.o_proj.weight");
    golden.core_q = read("core.q");
    golden.core_cache = read("core.cache");
    golden.core_out = read("core.out_latent");
    golden.core_lse = read("core.lse");
    out.push_back(golden);
  }
  return out;
}

// The case of that name.
inline GoldenMla golden_mla(const std::string& name) {
  for (GoldenMla& golden : golden_mla()) {
    if (golden.name == name) return golden;
  }
  throw std::runtime_error("no golden MLA case " + name);
}

}  // namespace lathe::testing
