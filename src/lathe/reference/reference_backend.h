// ReferenceBackend: the decoder's operations as the paper's equations, in double, without kernels, threads or a latent
// cache (it keeps every key and value). The oracle that the fast backends are compared with, by tests and by `lathe
// verify`.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "lathe/attention/rope.h"
#include "lathe/model/mtp.h"
#include "lathe/model/weights.h"
#include "lathe/reference/equations.h"

namespace lathe::reference {

// What the last step computed before it was rounded to fp32.
struct ReferenceValues {
  std::vector<Vec> logits;                   // [logit_rows][V]
  std::vector<std::vector<Vec>> affinities;  // [moe layer][T][E]: s_{i,t} of Eq. 22
};

class ReferenceBackend final : public MtpBackend {
 public:
  // `weights` must outlive the backend. Keys and values of a sequence are remembered by its id, for decoding in steps.
  explicit ReferenceBackend(const ModelWeights& weights);

  Result<std::unique_ptr<Activations>> allocate() override;

  int64_t max_tokens() const override { return int64_t{1} << 20; }

  void begin_step(const Step& step) override;
  void embed(Activations& x) override;
  void input_norm(int64_t layer, const Activations& x, Activations& y) override;
  void post_attention_norm(int64_t layer, const Activations& x, Activations& y) override;
  void attention(int64_t layer, const Activations& x, Activations& y) override;
  void dense_ffn(int64_t layer, const Activations& x, Activations& y) override;
  void moe(int64_t layer, const Activations& x, Activations& y, MoeTrace* trace) override;
  void add(Activations& x, const Activations& y) override;
  void final_norm(const Activations& x, Activations& y) override;
  void head(const Activations& x, float* out) override;
  void read(const Activations& x, float* out) override;
  // `hidden` must be given. Positions of the layer count from 1, as MtpDraftBackend says; here they become 0 and up.
  void begin_mtp(const Step& step, const float* hidden) override;
  void mtp_input(const Activations& h, Activations& x) override;
  void mtp_norm(const Activations& x, Activations& y) override;

  // Of the last step, until the next one begins.
  const ReferenceValues& values() const { return values_; }

 private:
  // Keys and values of every head and position of one sequence in one layer.
  struct History {
    std::vector<std::vector<Vec>> k_ij;  // [heads][positions]
    std::vector<std::vector<Vec>> v_ij;
  };

  std::vector<Vec> mla(const LayerWeights& layer,
                       const SequenceChunk& chunk,
                       const std::vector<Vec>& h_T,
                       History& history) const;
  std::vector<Vec> mha(const LayerWeights& layer,
                       const SequenceChunk& chunk,
                       const std::vector<Vec>& h_T,
                       History& history) const;
  std::pair<Vec, Vec> cos_sin(int64_t position) const;
  void norm(const float* weight, const Activations& x, Activations& y) const;

  const ModelWeights& weights_;
  MlaShape mla_;
  GqaShape gqa_;
  double scale_;
  std::vector<double> inv_freq_;
  double cos_sin_factor_;
  const Step* step_ = nullptr;
  Step mtp_step_;
  std::vector<SequenceChunk> mtp_chunks_;
  const float* hidden_ = nullptr;
  ReferenceValues values_;
  std::map<std::pair<uint64_t, int64_t>, History> history_;  // by sequence and layer
};

}  // namespace lathe::reference
