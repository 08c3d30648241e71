// TrainModel: a whole model in fp32 with forward and backward pass, on the decoder loop that inference uses
// (docs/training.md). All memory is planned at creation; a step allocates nothing but small tables. Results depend on
// the batch and the parameters alone: for any number of threads the bits are the same.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/formats/checkpoint.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/config.h"
#include "lathe/train/block_expansion.h"
#include "lathe/train/parameters.h"

namespace lathe {

inline constexpr int32_t kIgnoredTarget = -100;  // of TrainBatch::targets: not counted

// Packed training sequences, end to end: T tokens. Token ids and counted targets are in [0, vocab_size).
struct TrainBatch {
  std::span<const int32_t> token_ids;      // [T]
  std::span<const int32_t> targets;        // [T], the next token inside the same document, or kIgnoredTarget
  std::span<const int64_t> sequences;      // first tokens of training sequences, ascending, the first is 0
  std::span<const int64_t> documents;      // first tokens of documents, ascending, the first is 0, every start of a
                                           // sequence among them: no attention across, positions restart at 0
  std::span<const uint64_t> sequence_ids;  // [sequences]: identity, marks the sequences that are never dropped
  std::span<const float> target_weights;   // [T], factor on each target's loss, may be negative; empty: 1
};

// The arrays of a TrainBatch, owned.
struct PackedRows {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> targets;
  std::vector<int64_t> sequences;
  std::vector<int64_t> documents;
  std::vector<uint64_t> sequence_ids;
  std::vector<float> target_weights;

  // Borrows from this object.
  TrainBatch batch() const {
    return {.token_ids = token_ids,
            .targets = targets,
            .sequences = sequences,
            .documents = documents,
            .sequence_ids = sequence_ids,
            .target_weights = target_weights};
  }
};

// Of one batch. The loss that is differentiated is
//   lm / targets + mtp + expert_balance + device_balance + communication_balance + sequence_balance,
// where all but `lm` carry their factors (alpha, lambda) already and the balance losses are summed over layers.
struct TrainLosses {
  double lm = 0.0;                                // sum of (weighted) cross entropies over the counted targets, nats
  double expert_balance = 0.0;                    // alpha_1 term, Eq. 23
  double device_balance = 0.0;                    // alpha_2 term, Eq. 26
  double communication_balance = 0.0;             // alpha_3 term, Eq. 29
  double sequence_balance = 0.0;                  // sequence-wise loss of V3
  double mtp = 0.0;                               // lambda times the mean cross entropy of multi-token prediction
  int64_t targets = 0;                            // counted targets
  int64_t dropped_assignments = 0;                // over all layers
  std::vector<std::vector<int64_t>> expert_load;  // [moe layer][expert]: tokens routed there, before dropping

  // The scalar above; 0 for `lm` without targets.
  double total() const;
};

// What the backward pass finds and what it computes again. Gradients are bit-equal in all three.
enum class Recompute {
  kNothing,  // everything a layer computed is kept, but for products with down and output matrices
  kLatents,  // latents, rotated keys, head outputs, gate and up rows are kept; norms, q, k, v are computed again
  kLayers,   // only the input of each layer is kept and the layer is run again
};

struct TrainOptions {
  int64_t max_tokens = 0;  // T of the largest batch

  // Balance losses, Eq. 23-31, and V3's; a factor of 0 leaves the loss out. For softmax gates alpha_1 .. alpha_3, for
  // sigmoid gates the sequence-wise loss.
  double expert_balance_alpha = 0.0;         // alpha_1
  double device_balance_alpha = 0.0;         // alpha_2
  double communication_balance_alpha = 0.0;  // alpha_3
  double sequence_balance_alpha = 0.0;       // V3: 1e-4
  // Device groups D and limit M of the losses and of dropping; 0: n_group and topk_group of the configuration, which
  // also decide the routing. D divides n_routed_experts.
  int64_t device_groups = 0;
  int64_t device_limit = 0;

  // Token dropping (paper section 2.2.4), while training only.
  bool drop_tokens = false;
  double capacity_factor = 1.0;
  double protected_fraction = 0.1;  // of the sequences, by hash of their id: never dropped

  double bias_update_speed = 0.001;  // u of noaux_tc; see update_router_biases()
  double mtp_lambda = 0.0;           // > 0: the multi-token prediction layer is trained too
  double init_std = 0.006;
  Recompute recompute = Recompute::kLatents;
};

// Bytes of the planned memory.
struct TrainMemory {
  int64_t values = 0;
  int64_t gradients = 0;
  int64_t activations = 0;  // what the backward pass reads, and scratch

  int64_t total() const { return values + gradients + activations; }

  int64_t moments() const { return 2 * values; }  // of the optimizer, beside the model

  int64_t total_with_moments() const { return total() + moments(); }
};

// The plan of a TrainModel without making it. Errors as TrainModel::create.
Result<TrainMemory> plan_train_memory(const ModelConfig& config, const TrainOptions& options, int threads);

class TrainModel {
 public:
  // `pool` and `kernels` outlive the model. kInvalidArgument names the option that does not fit the configuration,
  // kUnsupported what cannot be trained, kResourceExhausted is memory. All parameters are zero at first.
  static Result<std::unique_ptr<TrainModel>> create(const ModelConfig& config,
                                                    const TrainOptions& options,
                                                    ThreadPool& pool,
                                                    const KernelTable& kernels);
  TrainModel(const TrainModel&) = delete;
  TrainModel& operator=(const TrainModel&) = delete;
  ~TrainModel();

  // As given to create().
  const ModelConfig& config() const;
  // As given to create().
  const TrainOptions& options() const;
  // Values and gradients; they live as long as the model and never move.
  ParameterSet& parameters();
  // The memory in use, as planned.
  TrainMemory memory() const;

  // Matrices from N(0, init_std^2), norms 1, biases 0 (paper section 3.1.2). The value of an element depends on the
  // seed, its tensor's name and its place alone.
  void initialise(uint64_t seed);

  // Takes every parameter from a checkpoint of any plain type, of the model that `expansion` made this one from. Errors
  // name the tensor, what is expected and found.
  Status load(const Checkpoint& checkpoint, const BlockExpansion& expansion = {});

  // kInvalidArgument unless the batch satisfies the conditions of TrainBatch and fits max_tokens. The passes below
  // trust their batch.
  Status check(const TrainBatch& batch) const;

  // Adds scale * d(loss) / d(parameter) to the gradients; the loss is that of TrainLosses. Over several batches of one
  // optimizer step, scale = the batch's share of the counted targets makes the sum the gradient of their mean.
  TrainLosses forward_backward(const TrainBatch& batch, double scale);

  // The losses alone: nothing is dropped, no gradient, loads are not counted for the router biases.
  TrainLosses evaluate(const TrainBatch& batch);

  // Cross entropy of every target of the last pass in nats, without its weight, 0 where not counted: [T].
  std::span<const float> token_losses() const;

  // Logits of every token: out [T, vocab_size]. Nothing is dropped.
  void logits(const TrainBatch& batch, float* out);

  // noaux_tc: b_i += u * sign(mean load - load_i) for every MoE layer, with the loads that forward_backward() has
  // counted since the last call; then starts counting again. Other gates: nothing.
  void update_router_biases();

 private:
  TrainModel();

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe
