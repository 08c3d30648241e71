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
#include "lathe/model/mtp.h"
#include "lathe/train/cross_entropy.h"
#include "lathe/train/mtp_batch.h"
#include "lathe/train/mtp_input.h"
#include "lathe/train/train_model.h"
#include "lathe/train/trained_weights.h"

namespace lathe {

using AttentionBlock = std::variant<MlaBlock, GqaBlock>;

enum class TrainPass {
  kTrain,     // losses, and a tape for backward()
  kEvaluate,  // losses
  kLogits,    // head() writes logits
};

class TrainBackend final : public MtpBackend {
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

  // The rows of the multi-token prediction layer in this step; none when it is not trained or not needed.
  TrainBatch mtp_batch() const { return mtp_rows_.batch(); }

  std::span<const float> token_losses() const { return {main_.token_losses, main_.batch.targets.size()}; }

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
  void begin_mtp(const Step& step, const float* hidden) override;
  void mtp_input(const Activations& h, Activations& x) override;
  void mtp_norm(const Activations& x, Activations& y) override;

 private:
  enum class Kind { kEmbed, kNorm, kLastNorm, kAttention, kDense, kMoe, kAdd, kHead, kMtpInput };

  // The tokens that operations work on, and what those have in common for every layer: the batch, or the rows of the
  // multi-token prediction layer.
  struct Rows {
    TrainBatch batch;
    AttentionBatch attention;
    RouterBatch router;
    std::vector<int32_t> sequence_of;   // [T]
    std::vector<uint8_t> is_protected;  // [T]
    float* cos = nullptr;
    float* sin = nullptr;
    float* sin_back = nullptr;
    float* dhead = nullptr;         // [T, d]: gradient by the head's input
    float* token_losses = nullptr;  // [T]
    int64_t targets = 0;
    double loss = 0.0;

    int64_t tokens() const { return static_cast<int64_t>(batch.token_ids.size()); }
  };

  // One operation: y = op(x); kAdd: y = x + delta.
  struct Entry {
    Kind kind = Kind::kEmbed;
    int64_t layer = 0;
    Trained weight = {};       // norms
    const float* x = nullptr;  // residual stream for norms and kAdd, normed rows otherwise
    float* y = nullptr;
    Rows* rows = nullptr;
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
  void take_rows(TrainArena& arena, Rows& rows, float* dhead) const;
  void begin_rows(const Step& step, Rows& rows);
  MtpInputPass mtp_pass(const Entry& entry) const;
  AttentionPass attention_pass(const Entry& entry);
  MoePass moe_pass(const Entry& entry);
  void run(const Entry& entry);
  void record(Entry entry, Activations& out);
  void norm(int64_t layer, int which, const Trained& weight, const Activations& x, Activations& y);
  void replay_layer(size_t last);
  void step_back(size_t index);

  KeptLayer& kept(int64_t layer) {
    return kept_[static_cast<size_t>(options_.recompute == Recompute::kLayers ? 0 : layer)];
  }

  bool with_mtp() const { return options_.mtp_lambda > 0.0; }

  // The multi-token prediction layer's block included.
  int64_t blocks() const { return config_.num_hidden_layers + (with_mtp() ? 1 : 0); }

  const TrainedLayer& weights_of(int64_t layer) const { return weights_.layers[static_cast<size_t>(layer)]; }

  const ModelConfig& config_;
  const TrainOptions& options_;
  TrainContext context_;
  AttentionBlock attention_;
  MoeBlock moe_;
  MtpInput mtp_input_;
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
  float* mtp_normed_ = nullptr;
  float* dstream_ = nullptr;  // gradient by the residual stream
  float* dnormed_ = nullptr;  // gradient by normed rows
  float* partials_ = nullptr;
  HeadArgs head_;

  // The step.
  TrainPass pass_ = TrainPass::kEvaluate;
  double scale_ = 0.0;
  MtpRows mtp_rows_;
  Rows main_;
  Rows mtp_;
  Rows* rows_ = nullptr;  // of the operations that come
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
