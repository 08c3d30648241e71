// Rotary position embedding: frequencies, angles and scale factors, all in double (docs/mla.md). Plain RoPE, linear
// interpolation, and YaRN exactly as the modelling code shipped with the checkpoints computes it: the step numbers in
// the comments are those of the YaRN recipe in docs/mla.md. How pairs lie in memory (2i, 2i+1 or j, j + dim/2) is the
// business of the kernels that rotate; tables are per pair and the same for both.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lathe {

enum class RopeKind { kPlain, kLinear, kYarn };

// What the frequencies depend on. The model's configuration is converted to this (model/config_rope.h) after every
// value was checked: dim even and positive, theta > 1, factor >= 1, betas and original length positive, all finite.
struct RopeParameters {
  RopeKind kind = RopeKind::kPlain;
  int64_t dim = 0;                                // n: rotated components per head, d_h^R for MLA
  double theta = 10000.0;                         // b
  double factor = 1.0;                            // s
  double original_max_position_embeddings = 0.0;  // L0, kYarn only
  double beta_fast = 32.0;                        // kYarn only; paper beta
  double beta_slow = 1.0;                         // kYarn only; paper alpha
  double mscale = 1.0;                            // kYarn only
  double mscale_all_dim = 0.0;                    // kYarn only; 0: no factor on the softmax scale

  friend bool operator==(const RopeParameters&, const RopeParameters&) = default;
};

// Step 1: the (fractional) pair index whose wavelength makes `rotations` turns within the original length:
// dim(rho) = n ln(L0 / (2 pi rho)) / (2 ln b).
double yarn_correction_dim(double rotations, const RopeParameters& rope);

// Step 1: low = max(floor(dim(beta_fast)), 0), high = min(ceil(dim(beta_slow)), n - 1). high == low is widened by
// 0.001.
struct YarnBounds {
  double low = 0.0;
  double high = 0.0;
};

// The bounds of the ramp in pair indices (step 1).
YarnBounds yarn_bounds(const RopeParameters& rope);

// Step 2: clamp((pair - low) / (high - low), 0, 1): 0 keeps the plain frequency, 1 divides it by the factor.
double yarn_ramp(int64_t pair, const YarnBounds& bounds);

// Step 4: g(s, m) = 1 for s <= 1, else 0.1 m ln s + 1.
double yarn_mscale(double factor, double mscale);

// Step 3 (or the plain and linear forms): dim / 2 angular frequencies per position.
std::vector<double> rope_inv_freq(const RopeParameters& rope);

// Step 5: what cos and sin are multiplied by: g(s, mscale) / g(s, mscale_all_dim). 1 without YaRN.
double rope_cos_sin_factor(const RopeParameters& rope);

// Step 6: what the softmax scale is multiplied by: g(s, mscale_all_dim)^2. 1 without YaRN and when mscale_all_dim is 0.
double rope_softmax_factor(const RopeParameters& rope);

// The factor on a whole attention score: (width of q and k)^-0.5 * g^2. For MLA the width is d_h + d_h^R, and the
// factor covers the part without position as well as the rotated one.
double softmax_scale(int64_t qk_head_dim, const RopeParameters& rope);

// cos and sin of position * inv_freq, multiplied by the factor of step 5, computed in double and rounded to float once.
// Immutable after make(); safe to share between threads.
class RopeTable {
 public:
  // table_positions: positions 0 .. table_positions-1 are computed here and later copied (2 * dim/2 floats each);
  // 0 computes every position when asked. Both give the same bits. rope must satisfy the conditions above.
  static RopeTable make(const RopeParameters& rope, int64_t table_positions = 0);

  int64_t dim() const { return 2 * pairs(); }

  int64_t pairs() const { return static_cast<int64_t>(inv_freq_.size()); }

  std::span<const double> inv_freq() const { return inv_freq_; }

  double cos_sin_factor() const { return factor_; }

  // cos, sin: pairs() floats each. position >= 0.
  void cos_sin(int64_t position, float* cos, float* sin) const;
  // Rows for positions begin .. begin+count-1: cos, sin are [count, pairs()], row-major.
  void cos_sin_range(int64_t begin, int64_t count, std::span<float> cos, std::span<float> sin) const;

 private:
  void compute(int64_t position, float* cos, float* sin) const;

  std::vector<double> inv_freq_;
  double factor_ = 1.0;
  int64_t table_positions_ = 0;
  std::vector<float> cos_;  // [table_positions_, pairs]
  std::vector<float> sin_;
};

}  // namespace lathe
