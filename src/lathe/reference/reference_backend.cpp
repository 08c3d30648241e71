#include "lathe/reference/reference_backend.h"

#include <algorithm>
#include <cmath>

#include "lathe/base/check.h"
#include "lathe/model/config_rope.h"

namespace lathe::reference {

namespace {

class Rows final : public Activations {
 public:
  std::vector<Vec> rows;
};

std::vector<Vec>& rows_of(Activations& x) {
  return static_cast<Rows&>(x).rows;
}

const std::vector<Vec>& rows_of(const Activations& x) {
  return static_cast<const Rows&>(x).rows;
}

// Everything a chunk may see of a head: positions up to and including `position`.
std::vector<Vec> up_to(const std::vector<Vec>& all, int64_t position) {
  return {all.begin(), all.begin() + position + 1};
}

// W^UK_i [d_h, d_c], of either form in which checkpoints have it.
Matrix up_projection_of_keys(const MlaWeights& w, const MlaShape& s, int64_t i) {
  if (w.kv_b_proj.empty()) {
    return Matrix(w.k_b_proj).rows(i * s.kv_lora_rank, (i + 1) * s.kv_lora_rank).transposed();
  }
  const int64_t first = i * (s.qk_nope_head_dim + s.v_head_dim);
  return Matrix(w.kv_b_proj).rows(first, first + s.qk_nope_head_dim);
}

// W^UV_i [d_v, d_c].
Matrix up_projection_of_values(const MlaWeights& w, const MlaShape& s, int64_t i) {
  if (w.kv_b_proj.empty()) return Matrix(w.v_b_proj).rows(i * s.v_head_dim, (i + 1) * s.v_head_dim);
  const int64_t first = i * (s.qk_nope_head_dim + s.v_head_dim) + s.qk_nope_head_dim;
  return Matrix(w.kv_b_proj).rows(first, first + s.v_head_dim);
}

}  // namespace

ReferenceBackend::ReferenceBackend(const ModelWeights& weights)
    : weights_(weights),
      mla_(mla_shape(weights.config())),
      gqa_(gqa_shape(weights.config())),
      scale_(attention_scale(weights.config())),
      inv_freq_(rope_inv_freq(rope_parameters(weights.config()))),
      cos_sin_factor_(rope_cos_sin_factor(rope_parameters(weights.config()))) {}

Result<std::unique_ptr<Activations>> ReferenceBackend::allocate() {
  return std::unique_ptr<Activations>(std::make_unique<Rows>());
}

void ReferenceBackend::begin_step(const Step& step) {
  step_ = &step;
  values_ = {};
}

std::pair<Vec, Vec> ReferenceBackend::cos_sin(int64_t position) const {
  Vec cos;
  Vec sin;
  for (const double f : inv_freq_) {
    cos.push_back(std::cos(static_cast<double>(position) * f) * cos_sin_factor_);
    sin.push_back(std::sin(static_cast<double>(position) * f) * cos_sin_factor_);
  }
  return {cos, sin};
}

void ReferenceBackend::embed(Activations& x) {
  const Matrix table(weights_.embed_tokens());
  rows_of(x).clear();
  for (const int32_t id : step_->token_ids) rows_of(x).push_back(table.row(id));
}

void ReferenceBackend::norm(const float* weight, const Activations& x, Activations& y) const {
  rows_of(y).clear();
  for (const Vec& row : rows_of(x)) rows_of(y).push_back(rms_norm(row, weight, weights_.config().rms_norm_eps));
}

void ReferenceBackend::input_norm(int64_t layer, const Activations& x, Activations& y) {
  norm(weights_.layers()[static_cast<size_t>(layer)].input_layernorm, x, y);
}

void ReferenceBackend::post_attention_norm(int64_t layer, const Activations& x, Activations& y) {
  norm(weights_.layers()[static_cast<size_t>(layer)].post_attention_layernorm, x, y);
}

void ReferenceBackend::final_norm(const Activations& x, Activations& y) {
  norm(weights_.norm(), x, y);
}

void ReferenceBackend::attention(int64_t layer, const Activations& x, Activations& y) {
  const bool is_mla = weights_.config().attention == AttentionKind::kMla;
  rows_of(y).clear();
  for (const SequenceChunk& chunk : step_->chunks) {
    const auto begin = rows_of(x).begin() + chunk.first_row;
    const std::vector<Vec> h_T(begin, begin + chunk.tokens);
    History& history = history_[{chunk.sequence, layer}];
    const auto heads = static_cast<size_t>(is_mla ? mla_.num_heads : gqa_.num_key_value_heads);
    history.k_ij.resize(heads);
    history.v_ij.resize(heads);
    for (size_t i = 0; i < heads; ++i) {
      history.k_ij[i].resize(static_cast<size_t>(chunk.position));
      history.v_ij[i].resize(static_cast<size_t>(chunk.position));
    }
    const LayerWeights& weights = weights_.layers()[static_cast<size_t>(layer)];
    const std::vector<Vec> u_T = is_mla ? mla(weights, chunk, h_T, history) : mha(weights, chunk, h_T, history);
    rows_of(y).insert(rows_of(y).end(), u_T.begin(), u_T.end());
  }
}

std::vector<Vec> ReferenceBackend::mla(const LayerWeights& layer,
                                       const SequenceChunk& chunk,
                                       const std::vector<Vec>& h_T,
                                       History& history) const {
  const MlaWeights& w = layer.mla;
  const int64_t d_h = mla_.qk_nope_head_dim;
  const int64_t d_r = mla_.qk_rope_head_dim;
  const auto T = static_cast<int64_t>(h_T.size());

  const Matrix kv_a(w.kv_a_proj_with_mqa, w.kv_a_proj_bias);  // [W^DKV ; W^KR]
  std::vector<Vec> c_kv_T = eq_41_latent(kv_a.rows(0, mla_.kv_lora_rank), h_T);
  const std::vector<Vec> w_kr_h_T = kv_a.rows(mla_.kv_lora_rank, kv_a.rows()) * h_T;
  if (w.kv_a_layernorm != nullptr) {
    for (Vec& c : c_kv_T) c = rms_norm(c, w.kv_a_layernorm, kLatentNormEps);
  }
  std::vector<Vec> c_q_T = h_T;  // without query compression the query comes from h_t itself
  if (mla_.q_lora_rank > 0) {
    c_q_T = eq_37_query_latent(Matrix(w.q_a_proj, w.q_a_proj_bias), h_T);
    if (w.q_a_layernorm != nullptr) {
      for (Vec& c : c_q_T) c = rms_norm(c, w.q_a_layernorm, kLatentNormEps);
    }
  }
  const Matrix q_b = mla_.q_lora_rank > 0 ? Matrix(w.q_b_proj, w.q_b_proj_bias) : Matrix(w.q_proj, w.q_proj_bias);
  std::vector<std::vector<Vec>> o_ti_T(h_T.size());
  for (int64_t i = 0; i < mla_.num_heads; ++i) {
    const Matrix q_i = q_b.rows(i * (d_h + d_r), (i + 1) * (d_h + d_r));  // [W^UQ_i ; W^QR_i]
    const Matrix w_uk_i = up_projection_of_keys(w, mla_, i);
    const Matrix w_uv_i = up_projection_of_values(w, mla_, i);
    const std::vector<Vec> q_c_T = eq_38_query_content(q_i.rows(0, d_h), c_q_T);
    const std::vector<Vec> w_qr_c_T = q_i.rows(d_h, d_h + d_r) * c_q_T;
    const std::vector<Vec> k_c_T = eq_42_key_content(w_uk_i, c_kv_T);
    const std::vector<Vec> v_c_T = eq_45_value_content(w_uv_i, c_kv_T);
    std::vector<Vec>& k_j = history.k_ij[static_cast<size_t>(i)];
    std::vector<Vec>& v_j = history.v_ij[static_cast<size_t>(i)];
    for (int64_t t = 0; t < T; ++t) {
      const auto at = static_cast<size_t>(t);
      const auto [cos, sin] = cos_sin(chunk.position + t);
      k_j.push_back(eq_44_key(k_c_T[at], eq_43_key_rope(w_kr_h_T[at], cos, sin, mla_.rope_interleaved)));
      v_j.push_back(v_c_T[at]);
      const Vec q_ti = eq_40_query(q_c_T[at], eq_39_query_rope(w_qr_c_T[at], cos, sin, mla_.rope_interleaved));
      o_ti_T[at].push_back(eq_46_head_output(q_ti, k_j, v_j, scale_));
    }
  }
  return eq_47_output(Matrix(w.o_proj, w.o_proj_bias), o_ti_T);
}

std::vector<Vec> ReferenceBackend::mha(const LayerWeights& layer,
                                       const SequenceChunk& chunk,
                                       const std::vector<Vec>& h_T,
                                       History& history) const {
  const GqaWeights& w = layer.gqa;
  const std::vector<Vec> q_T = eq_1_query(Matrix(w.q_proj, w.q_proj_bias), h_T);
  const std::vector<Vec> k_T = eq_2_key(Matrix(w.k_proj, w.k_proj_bias), h_T);
  const std::vector<Vec> v_T = eq_3_value(Matrix(w.v_proj, w.v_proj_bias), h_T);
  LATHE_CHECK(gqa_.num_key_value_heads > 0);  // the configuration was checked
  const int64_t per_group = gqa_.num_heads / gqa_.num_key_value_heads;

  for (size_t t = 0; t < h_T.size(); ++t) {
    const auto [cos, sin] = cos_sin(chunk.position + static_cast<int64_t>(t));
    const std::vector<Vec> k_ti = eq_5_key_heads(k_T[t], gqa_.num_key_value_heads);
    const std::vector<Vec> v_ti = eq_6_value_heads(v_T[t], gqa_.num_key_value_heads);
    for (size_t g = 0; g < k_ti.size(); ++g) {
      history.k_ij[g].push_back(rope(k_ti[g], cos, sin, gqa_.rope_interleaved));
      history.v_ij[g].push_back(v_ti[g]);
    }
  }
  std::vector<std::vector<Vec>> o_ti_T(h_T.size());
  for (size_t t = 0; t < h_T.size(); ++t) {
    const int64_t position = chunk.position + static_cast<int64_t>(t);
    const auto [cos, sin] = cos_sin(position);
    const std::vector<Vec> q_ti = eq_4_query_heads(q_T[t], gqa_.num_heads);
    for (int64_t i = 0; i < gqa_.num_heads; ++i) {
      const auto g = static_cast<size_t>(i / per_group);
      o_ti_T[t].push_back(eq_7_head_output(rope(q_ti[static_cast<size_t>(i)], cos, sin, gqa_.rope_interleaved),
                                           up_to(history.k_ij[g], position),
                                           up_to(history.v_ij[g], position),
                                           scale_));
    }
  }
  return eq_8_output(Matrix(w.o_proj, w.o_proj_bias), o_ti_T);
}

void ReferenceBackend::dense_ffn(int64_t layer, const Activations& x, Activations& y) {
  const SwigluWeights& w = weights_.layers()[static_cast<size_t>(layer)].dense;
  rows_of(y) = swiglu(Matrix(w.gate_proj), Matrix(w.up_proj), Matrix(w.down_proj), rows_of(x));
}

void ReferenceBackend::moe(int64_t layer, const Activations& x, Activations& y, MoeTrace* trace) {
  const MoeWeights& w = weights_.layers()[static_cast<size_t>(layer)].moe;
  const GateShape gate = moe_shape(weights_.config()).gate;
  const std::vector<Vec>& u_T = rows_of(x);
  const std::vector<Vec> u_e_T = Matrix(w.gate) * u_T;
  std::vector<Vec> shared_T(u_T.size(), Vec(static_cast<size_t>(weights_.config().hidden_size), 0.0));
  if (!w.shared.gate_proj.empty()) {
    shared_T = swiglu(Matrix(w.shared.gate_proj), Matrix(w.shared.up_proj), Matrix(w.shared.down_proj), u_T);
  }
  rows_of(y).clear();
  std::vector<Vec>& affinities_T = values_.affinities.emplace_back();
  for (size_t t = 0; t < u_T.size(); ++t) {
    const Vec s_t = eq_22_affinity(u_e_T[t], gate.scoring_func);
    affinities_T.push_back(s_t);
    const std::vector<int64_t> chosen = eq_21_topk(s_t, w.e_score_correction_bias, gate);
    const Vec g_t = eq_21_gate(s_t, chosen, gate);
    std::vector<Vec> routed;
    for (const int64_t i : chosen) {
      const SwigluWeights& e = w.experts[static_cast<size_t>(i)];
      routed.push_back(swiglu(Matrix(e.gate_proj), Matrix(e.up_proj), Matrix(e.down_proj), {u_T[t]}).front());
    }
    rows_of(y).push_back(eq_20_moe_output(shared_T[t], g_t, routed));
    if (trace == nullptr) continue;
    trace->experts.insert(trace->experts.end(), chosen.begin(), chosen.end());
    trace->weights.insert(trace->weights.end(), g_t.begin(), g_t.end());
  }
}

void ReferenceBackend::add(Activations& x, const Activations& y) {
  for (size_t t = 0; t < rows_of(x).size(); ++t) {
    for (size_t n = 0; n < rows_of(x)[t].size(); ++n) rows_of(x)[t][n] += rows_of(y)[t][n];
  }
}

void ReferenceBackend::head(const Activations& x, float* out) {
  std::vector<Vec> wanted;
  for (const int64_t row : step_->logit_rows) wanted.push_back(rows_of(x)[static_cast<size_t>(row)]);
  values_.logits = Matrix(weights_.lm_head()) * wanted;
  for (const Vec& logits : values_.logits) {
    out = std::ranges::transform(logits, out, [](double z) { return static_cast<float>(z); }).out;
  }
}

void ReferenceBackend::read(const Activations& x, float* out) {
  for (const Vec& row : rows_of(x)) {
    out = std::ranges::transform(row, out, [](double v) { return static_cast<float>(v); }).out;
  }
}

void ReferenceBackend::begin_mtp(const Step& step, const float* hidden) {
  LATHE_CHECK(weights_.mtp() != nullptr && hidden != nullptr);
  mtp_chunks_.assign(step.chunks.begin(), step.chunks.end());
  for (SequenceChunk& chunk : mtp_chunks_) --chunk.position;
  mtp_step_ = step;
  mtp_step_.chunks = mtp_chunks_;
  begin_step(mtp_step_);
  hidden_ = hidden;
}

// W^eh [RMSNorm(E[following token]); RMSNorm(h)] (V3, Eq. 21; the embedding's half is first, as the weights have it).
void ReferenceBackend::mtp_input(const Activations& /*h*/, Activations& x) {
  const MtpWeights& w = *weights_.mtp();
  const double eps = weights_.config().rms_norm_eps;
  const auto d = static_cast<size_t>(weights_.config().hidden_size);
  const Matrix table(weights_.embed_tokens());
  std::vector<Vec> joined_T;
  for (size_t t = 0; t < step_->token_ids.size(); ++t) {
    Vec joined = rms_norm(table.row(step_->token_ids[t]), w.enorm, eps);
    const Vec h = rms_norm(Vec(hidden_ + t * d, hidden_ + (t + 1) * d), w.hnorm, eps);
    joined.insert(joined.end(), h.begin(), h.end());
    joined_T.push_back(std::move(joined));
  }
  rows_of(x) = Matrix(w.eh_proj) * joined_T;
}

void ReferenceBackend::mtp_norm(const Activations& x, Activations& y) {
  norm(weights_.mtp()->norm, x, y);
}

}  // namespace lathe::reference
