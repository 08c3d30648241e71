// TrainBackend: the decoder's operations for training. Each operation notes on a tape what it read; backward() walks
// the tape from its end, so that the order of a block is written in the decoder alone. The residual stream moves
// through one buffer per addition, so that what the backward pass needs of it is simply still there.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "lathe/attention/rope.h"
#include "lathe/model/backend.h"
#include "lathe/train/cross_entropy.h"
#include "lathe/train/train_model.h"
#include "lathe/train/trained_weights.h"

namespace lathe {

using AttentionBlock = std::variant<MlaBlock, GqaBlock>;

enum class TrainPass {
  kTrain,     // losses, and a tape for backward()
  kEvaluate,  // losses
  kLogits,    // head() writes logits
};

class TrainBackend final : public Backend {
 public:
  // All arguments outlive the backend.
  TrainBackend(const ModelConfig& config, const TrainOptions& options, ThreadPool& pool, const KernelTable& kernels);

  // Takes the backend's buffers from an arena: with one that counts, to know how much memory a step needs.
  void plan(TrainArena& arena, int threads);

  // Of the next step; what it points to outlives the step. `scale` is the factor of the gradient.
  void set_batch(const TrainBatch& batch, TrainPass pass, double scale);

  // The parameters, bound; they outlive the backend.
  void set_weights(TrainedWeights weights) { weights_ = std::move(weights); }

  // After a step of TrainPass::kTrain: adds to all gradients.
  void backward();
  // Of the last step.
  TrainLosses losses() const;

  std::span<const float> token_losses() const { return {token_losses_, token_count_}; }

  Result<std::unique_ptr<Activations>> allocate() override;

  int64_t max_tokens() const override { return options_.max_tokens; }

  void begin_step(const Step& step) override;
  void embed(Activations& x) override;
  void input_norm(int64_t layer, const Activations& x, Activations& y) override;
  void post_attention_norm(int64_t layer, const Activations& x, Activations& y) override;
  void attention(int64_t layer, const Activations& x, Activations& y) override;
  void dense_ffn(int64_t layer, const Activations& x, Activations& y) override;
  void moe(int64_t layer, const Activations& x, Activations& y, MoeTrace* trace) override;
  void add(Activations& x, const Activations& y) override;
  void final_norm(const Activations& x, Activations& y) override;
  // Losses of the batch's targets, or logits (TrainPass).
  void head(const Activations& x, float* out) override;
  void read(const Activations& x, float* out) override;

 private:
  enum class Kind { kEmbed, kNorm, kAttention, kDense, kMoe, kAdd, kHead };

  // One operation: y = op(x); kAdd: y = x + delta.
  struct Entry {
    Kind kind = Kind::kEmbed;
    int64_t layer = 0;
    Trained weight = {};       // kNorm
    const float* x = nullptr;  // residual stream for kNorm and kAdd, normed rows otherwise
    float* y = nullptr;
  };

  // What one layer keeps.
  struct KeptLayer {
    KeptAttention attention;
    KeptMoe moe;
    float* dense_gate_up = nullptr;
    float* normed[2] = {};  // before attention and before the FFN
  };

  void take_kept(TrainArena& arena, KeptLayer& layer, bool with_moe, bool with_dense) const;
  void take_recomputed(TrainArena& arena, KeptLayer& layer) const;
  AttentionPass attention_pass(const Entry& entry);
  MoePass moe_pass(const Entry& entry);
  void run(const Entry& entry);
  void record(const Entry& entry, Activations& out);
  void norm(int64_t layer, int which, const Trained& weight, const Activations& x, Activations& y);
  void replay_layer(size_t last);
  void step_back(size_t index);

  KeptLayer& kept(int64_t layer) {
    return kept_[static_cast<size_t>(options_.recompute == Recompute::kLayers ? 0 : layer)];
  }

  int64_t tokens() const { return static_cast<int64_t>(batch_.token_ids.size()); }

  const TrainedLayer& weights_of(int64_t layer) const { return weights_.layers[static_cast<size_t>(layer)]; }

  const ModelConfig& config_;
  const TrainOptions& options_;
  TrainContext context_;
  AttentionBlock attention_;
  MoeBlock moe_;
  RopeTable rope_;
  TrainedWeights weights_;

  // The arena's pieces.
  std::vector<float*> stream_;  // residual stream after the embedding and after each addition
  std::vector<KeptLayer> kept_;
  AttentionWork attention_work_;
  MoeWork moe_work_;
  float* dense_act_ = nullptr;
  float* dense_dact_ = nullptr;
  float* delta_ = nullptr;  // what a sub-layer adds
  float* final_normed_ = nullptr;
  float* dstream_ = nullptr;  // gradient by the residual stream
  float* dnormed_ = nullptr;  // gradient by normed rows
  float* partials_ = nullptr;
  float* cos_ = nullptr;
  float* sin_ = nullptr;
  float* sin_back_ = nullptr;
  float* token_losses_ = nullptr;
  HeadArgs head_;

  // The step.
  TrainBatch batch_;
  TrainPass pass_ = TrainPass::kEvaluate;
  double scale_ = 0.0;
  size_t token_count_ = 0;
  int64_t targets_ = 0;
  double lm_loss_ = 0.0;
  std::vector<int32_t> sequence_of_;   // [T]
  std::vector<uint8_t> is_protected_;  // [T]
  AttentionBatch attention_batch_;
  RouterBatch router_batch_;
  std::vector<Entry> tape_;
  size_t streams_used_ = 0;
  int64_t layer_ = -1;  // of the last operation

  struct Statistics {
    BalanceLosses losses;
    std::vector<int64_t> load;
    int64_t dropped = 0;
  };

  std::vector<Statistics> statistics_;  // of the MoE layers of this step
};

}  // namespace lathe
