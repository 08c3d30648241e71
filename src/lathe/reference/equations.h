// The paper's equations 1-22 and 37-47, one function each, in double precision and in the order of the paper: a
// companion to read beside it, and the oracle of every kernel. Slow on purpose; never the code that runs a model in
// earnest. Vectors are columns; W is applied as W * h. Heads are numbered from 0. Equations 37-47 (Appendix C) are the
// complete form of 9-19 and carry those numbers in brackets. What the paper only mentions (the RMSNorms on both
// latents, YaRN) is marked with the section of docs/mla.md that explains it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lathe/moe/gate.h"
#include "lathe/tensor/matrix.h"

namespace lathe::reference {

using Vec = std::vector<double>;

// A stored matrix, or some of its rows, read element by element as double.
class Matrix {
 public:
  explicit Matrix(const WeightMatrix& stored, const float* bias = nullptr)
      : stored_(stored), bias_(bias), begin_(0), end_(stored.rows) {}

  // Rows [begin, end): W^UK_i out of kv_b_proj, W^KR out of kv_a_proj_with_mqa.
  Matrix rows(int64_t begin, int64_t end) const {
    Matrix part = *this;
    part.begin_ = begin_ + begin;
    part.end_ = begin_ + end;
    return part;
  }

  // The transposed of the selected rows: W^UK_i out of k_b_proj.
  Matrix transposed() const {
    Matrix part = *this;
    part.transposed_ = !transposed_;
    return part;
  }

  int64_t rows() const { return transposed_ ? stored_.cols : end_ - begin_; }

  int64_t cols() const { return transposed_ ? end_ - begin_ : stored_.cols; }

  // Row i of the selected rows (or of their transposed), as double.
  Vec row(int64_t i) const;

  double bias(int64_t i) const { return bias_ == nullptr ? 0.0 : static_cast<double>(bias_[begin_ + i]); }

 private:
  WeightMatrix stored_;
  const float* bias_;
  int64_t begin_;
  int64_t end_;
  bool transposed_ = false;
};

Vec operator*(const Matrix& w, const Vec& h);                              // W h (+ bias where the checkpoint has one)
std::vector<Vec> operator*(const Matrix& w, const std::vector<Vec>& h_T);  // the same for many h, reading W once
Vec concat(const Vec& a, const Vec& b);                                    // [a ; b]
Vec concat(const std::vector<Vec>& parts);                                 // [a ; b ; ...]
std::vector<Vec> split(const Vec& v, int64_t parts);                       // into equal consecutive parts
double dot(const Vec& a, const Vec& b);

// x / sqrt(mean(x^2) + eps) * w. docs/mla.md "Norms".
Vec rms_norm(const Vec& x, const float* weight, double eps);
// RoPE(.) of one head at a position given by its cos and sin; pairs (2i, 2i+1) or (i, i + n/2). docs/mla.md "RoPE".
Vec rope(const Vec& x, std::span<const double> cos, std::span<const double> sin, bool interleaved);
// Softmax_j. Subtracts the maximum first.
Vec softmax(const Vec& scores);

// 2.1.1 Standard Multi-Head Attention
// -------------------------------------------------------------------------------------
std::vector<Vec> eq_1_query(const Matrix& w_q, const std::vector<Vec>& h_T);  // q_t = W^Q h_t
std::vector<Vec> eq_2_key(const Matrix& w_k, const std::vector<Vec>& h_T);    // k_t = W^K h_t
std::vector<Vec> eq_3_value(const Matrix& w_v, const std::vector<Vec>& h_T);  // v_t = W^V h_t
std::vector<Vec> eq_4_query_heads(const Vec& q_t, int64_t n_h);               // [q_{t,1}; ...; q_{t,n_h}] = q_t
std::vector<Vec> eq_5_key_heads(const Vec& k_t, int64_t n_kv);    // [k_{t,1}; ...] = k_t (n_kv < n_h: GQA, 1: MQA)
std::vector<Vec> eq_6_value_heads(const Vec& v_t, int64_t n_kv);  // [v_{t,1}; ...] = v_t
// o_{t,i} = sum_{j <= t} Softmax_j(q_{t,i}^T k_{j,i} / sqrt(d_h)) v_{j,i}; `scale` is 1 / sqrt(d_h).
Vec eq_7_head_output(const Vec& q_ti, const std::vector<Vec>& k_ji, const std::vector<Vec>& v_ji, double scale);
std::vector<Vec> eq_8_output(const Matrix& w_o,
                             const std::vector<std::vector<Vec>>& o_ti_T);  // u_t = W^O [o_{t,1}; ...]

// 2.1.2, 2.1.3 and Appendix C: Multi-head Latent Attention
// ------------------------------------------------------------------
std::vector<Vec> eq_37_query_latent(const Matrix& w_dq, const std::vector<Vec>& h_T);  // (12) c^Q_t = W^DQ h_t
std::vector<Vec> eq_38_query_content(const Matrix& w_uq_i,
                                     const std::vector<Vec>& c_q_T);  // (13) q^C_{t,i} = W^UQ_i c^Q_t
Vec eq_39_query_rope(const Vec& w_qr_i_c_q,
                     std::span<const double> cos,
                     std::span<const double> sin,
                     bool interleaved);                                           // (14)
Vec eq_40_query(const Vec& q_c_ti, const Vec& q_r_ti);                            // (16) [q^C ; q^R]
std::vector<Vec> eq_41_latent(const Matrix& w_dkv, const std::vector<Vec>& h_T);  // (9)  c^KV_t = W^DKV h_t
std::vector<Vec> eq_42_key_content(const Matrix& w_uk_i,
                                   const std::vector<Vec>& c_kv_T);  // (10) k^C_{t,i} = W^UK_i c^KV_t
Vec eq_43_key_rope(const Vec& w_kr_h,
                   std::span<const double> cos,
                   std::span<const double> sin,
                   bool interleaved);                // (15)
Vec eq_44_key(const Vec& k_c_ti, const Vec& k_r_t);  // (17) [k^C ; k^R]
std::vector<Vec> eq_45_value_content(const Matrix& w_uv_i,
                                     const std::vector<Vec>& c_kv_T);  // (11) v^C_{t,i} = W^UV_i c^KV_t
// (18) o_{t,i} = sum_{j <= t} Softmax_j(q_{t,i}^T k_{j,i} / sqrt(d_h + d_h^R)) v^C_{j,i}; with YaRN the scale carries
// g^2.
Vec eq_46_head_output(const Vec& q_ti, const std::vector<Vec>& k_ji, const std::vector<Vec>& v_ji, double scale);
std::vector<Vec> eq_47_output(const Matrix& w_o,
                              const std::vector<std::vector<Vec>>& o_ti_T);  // (19) u_t = W^O [o_{t,1}; ...]

// 2.2.1 DeepSeekMoE
// --------------------------------------------------------------------------------------------------------- FFN_i(u) =
// W_down (silu(W_gate u) * W_up u).
std::vector<Vec> swiglu(const Matrix& w_gate, const Matrix& w_up, const Matrix& w_down, const std::vector<Vec>& u_T);
// s_{i,t} = Softmax_i(u_t^T e_i), or the sigmoid of V3.
Vec eq_22_affinity(const Vec& u_e, ScoringFunc scoring_func);
// Topk(...) of Eq. 21 with section 2.2.2's device-limited groups: chosen experts in ascending order. `bias` moves the
// choice only (V3).
std::vector<int64_t> eq_21_topk(const Vec& s_t, std::span<const float> bias, const GateShape& shape);
// g_{i,t}: s_{i,t} for the chosen ones, renormalised and scaled as the model demands. In the order of `chosen`.
Vec eq_21_gate(const Vec& s_t, const std::vector<int64_t>& chosen, const GateShape& shape);
// h'_t - u_t = sum_i FFN^(s)_i(u_t) + sum_i g_{i,t} FFN^(r)_i(u_t): the shared part plus the weighted routed parts. The
// residual belongs to the block (trap T23).
Vec eq_20_moe_output(const Vec& shared, const Vec& gates, const std::vector<Vec>& routed);

}  // namespace lathe::reference
