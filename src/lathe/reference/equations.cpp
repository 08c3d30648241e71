#include "lathe/reference/equations.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "lathe/base/check.h"
#include "lathe/base/scalar.h"
#include "lathe/tensor/blocks.h"

namespace lathe::reference {

namespace {

// Element `col` of stored row `row`. Exact: every stored type is a subset of double; FP8 times its block's scale.
double element(const WeightMatrix& w, int64_t row, int64_t col) {
  LATHE_CHECK(!w.packed, "packed weights are not the stored ones");
  if (is_block_format(w.dtype)) {
    const int64_t n = block_elements(w.dtype);
    std::array<float, kSuperBlock> values{};
    decode_blocks(w.dtype, w.data + row * w.row_stride() + col / n * block_bytes(w.dtype), values.data(), n);
    return values[static_cast<size_t>(col % n)];
  }
  const std::byte* at = w.data + row * w.row_stride() + col * dtype_size(w.dtype);
  if (w.dtype == DType::kF32) {
    float value = 0.0F;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (w.dtype == DType::kF8E4M3) {
    const double scale = w.scales[(row / kFp8Block) * w.scale_cols() + col / kFp8Block];  // multiplied: trap T15
    return e4m3_to_float(std::to_integer<uint8_t>(*at)) * scale;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  return w.dtype == DType::kBF16 ? bf16_to_float(bits) : f16_to_float(bits);
}

}  // namespace

Vec Matrix::row(int64_t i) const {
  Vec out(static_cast<size_t>(cols()));
  if (is_block_format(stored_.dtype) && !stored_.packed && !transposed_) {
    std::vector<float> values(out.size());
    decode_blocks(stored_.dtype, stored_.data + (begin_ + i) * stored_.row_stride(), values.data(), cols());
    std::ranges::copy(values, out.begin());
    return out;
  }
  for (int64_t j = 0; j < cols(); ++j) {
    out[static_cast<size_t>(j)] = transposed_ ? element(stored_, begin_ + j, i) : element(stored_, begin_ + i, j);
  }
  return out;
}

std::vector<Vec> operator*(const Matrix& w, const std::vector<Vec>& h_T) {
  std::vector<Vec> out_T(h_T.size(), Vec(static_cast<size_t>(w.rows())));
  for (int64_t i = 0; i < w.rows(); ++i) {
    const Vec w_i = w.row(i);
    for (size_t t = 0; t < h_T.size(); ++t) out_T[t][static_cast<size_t>(i)] = dot(w_i, h_T[t]) + w.bias(i);
  }
  return out_T;
}

Vec operator*(const Matrix& w, const Vec& h) {
  return (w * std::vector<Vec>{h}).front();
}

Vec concat(const Vec& a, const Vec& b) {
  return concat(std::vector<Vec>{a, b});
}

Vec concat(const std::vector<Vec>& parts) {
  Vec out;
  for (const Vec& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

std::vector<Vec> split(const Vec& v, int64_t parts) {
  const auto width = static_cast<int64_t>(v.size()) / parts;
  std::vector<Vec> out;
  for (int64_t i = 0; i < parts; ++i) out.emplace_back(v.begin() + i * width, v.begin() + (i + 1) * width);
  return out;
}

double dot(const Vec& a, const Vec& b) {
  LATHE_CHECK(a.size() == b.size(), a.size(), " and ", b.size());
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

Vec rms_norm(const Vec& x, const float* weight, double eps) {
  const double mean_square = dot(x, x) / static_cast<double>(x.size());
  Vec y(x.size());
  for (size_t j = 0; j < x.size(); ++j) y[j] = weight[j] * x[j] / std::sqrt(mean_square + eps);
  return y;
}

Vec rope(const Vec& x, std::span<const double> cos, std::span<const double> sin, bool interleaved) {
  Vec y(x.size());
  const size_t pairs = x.size() / 2;
  for (size_t i = 0; i < pairs; ++i) {
    const size_t a = interleaved ? 2 * i : i;
    const size_t b = interleaved ? 2 * i + 1 : i + pairs;
    y[a] = x[a] * cos[i] - x[b] * sin[i];
    y[b] = x[a] * sin[i] + x[b] * cos[i];
  }
  return y;
}

Vec softmax(const Vec& scores) {
  const double largest = *std::ranges::max_element(scores);
  Vec p(scores.size());
  double sum = 0.0;
  for (size_t j = 0; j < p.size(); ++j) sum += p[j] = std::exp(scores[j] - largest);
  for (double& p_j : p) p_j /= sum;
  return p;
}

std::vector<Vec> eq_1_query(const Matrix& w_q, const std::vector<Vec>& h_T) {
  return w_q * h_T;
}

std::vector<Vec> eq_2_key(const Matrix& w_k, const std::vector<Vec>& h_T) {
  return w_k * h_T;
}

std::vector<Vec> eq_3_value(const Matrix& w_v, const std::vector<Vec>& h_T) {
  return w_v * h_T;
}

std::vector<Vec> eq_4_query_heads(const Vec& q_t, int64_t n_h) {
  return split(q_t, n_h);
}

std::vector<Vec> eq_5_key_heads(const Vec& k_t, int64_t n_kv) {
  return split(k_t, n_kv);
}

std::vector<Vec> eq_6_value_heads(const Vec& v_t, int64_t n_kv) {
  return split(v_t, n_kv);
}

Vec eq_7_head_output(const Vec& q_ti, const std::vector<Vec>& k_ji, const std::vector<Vec>& v_ji, double scale) {
  Vec scores;
  for (const Vec& k_j : k_ji) scores.push_back(dot(q_ti, k_j) * scale);
  const Vec p = softmax(scores);
  Vec o_ti(v_ji.front().size(), 0.0);
  for (size_t j = 0; j < v_ji.size(); ++j) {
    for (size_t n = 0; n < o_ti.size(); ++n) o_ti[n] += p[j] * v_ji[j][n];
  }
  return o_ti;
}

std::vector<Vec> eq_8_output(const Matrix& w_o, const std::vector<std::vector<Vec>>& o_ti_T) {
  std::vector<Vec> o_T;
  for (const std::vector<Vec>& heads : o_ti_T) o_T.push_back(concat(heads));
  return w_o * o_T;
}

std::vector<Vec> eq_37_query_latent(const Matrix& w_dq, const std::vector<Vec>& h_T) {
  return w_dq * h_T;
}

std::vector<Vec> eq_38_query_content(const Matrix& w_uq_i, const std::vector<Vec>& c_q_T) {
  return w_uq_i * c_q_T;
}

Vec eq_39_query_rope(const Vec& w_qr_i_c_q,
                     std::span<const double> cos,
                     std::span<const double> sin,
                     bool interleaved) {
  return rope(w_qr_i_c_q, cos, sin, interleaved);
}

Vec eq_40_query(const Vec& q_c_ti, const Vec& q_r_ti) {
  return concat(q_c_ti, q_r_ti);
}

std::vector<Vec> eq_41_latent(const Matrix& w_dkv, const std::vector<Vec>& h_T) {
  return w_dkv * h_T;
}

std::vector<Vec> eq_42_key_content(const Matrix& w_uk_i, const std::vector<Vec>& c_kv_T) {
  return w_uk_i * c_kv_T;
}

Vec eq_43_key_rope(const Vec& w_kr_h, std::span<const double> cos, std::span<const double> sin, bool interleaved) {
  return rope(w_kr_h, cos, sin, interleaved);
}

Vec eq_44_key(const Vec& k_c_ti, const Vec& k_r_t) {
  return concat(k_c_ti, k_r_t);
}

std::vector<Vec> eq_45_value_content(const Matrix& w_uv_i, const std::vector<Vec>& c_kv_T) {
  return w_uv_i * c_kv_T;
}

Vec eq_46_head_output(const Vec& q_ti, const std::vector<Vec>& k_ji, const std::vector<Vec>& v_ji, double scale) {
  return eq_7_head_output(q_ti, k_ji, v_ji, scale);
}

std::vector<Vec> eq_47_output(const Matrix& w_o, const std::vector<std::vector<Vec>>& o_ti_T) {
  return eq_8_output(w_o, o_ti_T);
}

std::vector<Vec> swiglu(const Matrix& w_gate, const Matrix& w_up, const Matrix& w_down, const std::vector<Vec>& u_T) {
  std::vector<Vec> hidden_T = w_gate * u_T;
  const std::vector<Vec> up_T = w_up * u_T;
  for (size_t t = 0; t < hidden_T.size(); ++t) {
    for (size_t i = 0; i < hidden_T[t].size(); ++i) {
      double& z = hidden_T[t][i];
      z = z / (1.0 + std::exp(-z)) * up_T[t][i];
    }
  }
  return w_down * hidden_T;
}

Vec eq_22_affinity(const Vec& u_e, ScoringFunc scoring_func) {
  if (scoring_func == ScoringFunc::kSoftmax) return softmax(u_e);
  Vec s(u_e.size());
  for (size_t i = 0; i < s.size(); ++i) s[i] = 1.0 / (1.0 + std::exp(-u_e[i]));
  return s;
}

std::vector<int64_t> eq_21_topk(const Vec& s_t, std::span<const float> bias, const GateShape& shape) {
  const auto n = static_cast<int64_t>(s_t.size());
  Vec choice = s_t;
  for (size_t i = 0; i < bias.size(); ++i) choice[i] += bias[i];
  const auto best_first = [](const Vec& values) {
    std::vector<int64_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(
        order, [&](int64_t a, int64_t b) { return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)]; });
    return order;
  };
  if (shape.topk_method != TopkMethod::kGreedy) {
    // Score of group g: its best expert (V2), or the sum of its two best (V3). Experts outside the M best groups drop
    // out.
    const int64_t width = n / shape.n_group;
    Vec group_scores;
    for (Vec group : split(choice, shape.n_group)) {
      std::ranges::sort(group, std::greater<>());
      const bool two = shape.topk_method == TopkMethod::kNoauxTc && width > 1;
      group_scores.push_back(two ? group[0] + group[1] : group[0]);
    }
    const std::vector<int64_t> groups = best_first(group_scores);
    for (int64_t g = shape.topk_group; g < shape.n_group; ++g) {
      const int64_t first = groups[static_cast<size_t>(g)] * width;
      std::fill_n(choice.begin() + first, width, -std::numeric_limits<double>::infinity());
    }
  }
  std::vector<int64_t> chosen = best_first(choice);
  chosen.resize(static_cast<size_t>(shape.num_experts_per_tok));
  std::ranges::sort(chosen);
  return chosen;
}

Vec eq_21_gate(const Vec& s_t, const std::vector<int64_t>& chosen, const GateShape& shape) {
  Vec g;
  for (const int64_t i : chosen) g.push_back(s_t[static_cast<size_t>(i)]);
  const bool normalise = shape.norm_topk_prob && g.size() > 1;
  const double sum = std::accumulate(g.begin(), g.end(), 0.0);
  for (double& g_i : g) {
    if (normalise) g_i /= sum + 1e-20;
    if (!normalise || shape.scale_normalised) g_i *= shape.routed_scaling_factor;
  }
  return g;
}

Vec eq_20_moe_output(const Vec& shared, const Vec& gates, const std::vector<Vec>& routed) {
  Vec out = shared;
  for (size_t i = 0; i < routed.size(); ++i) {
    for (size_t n = 0; n < out.size(); ++n) out[n] += gates[i] * routed[i][n];
  }
  return out;
}

}  // namespace lathe::reference
