// Multi-token prediction (V3 section 2.2): a layer after the last one that predicts the token after the next. What it
// needs beside the main model: its tensors and its operations.
#pragma once

#include <vector>

#include "lathe/formats/checkpoint.h"
#include "lathe/model/backend.h"
#include "lathe/model/shapes.h"

namespace lathe {

// The tensors of the layer, stored as layer num_hidden_layers, but for embed_tokens and shared_head.head, which are
// copies of the main model's. Empty unless num_nextn_predict_layers is positive.
std::vector<ExpectedTensor> expected_mtp_tensors(const ModelConfig& config);

// Whether the checkpoint has the layer: many have none although their configuration counts one.
bool has_mtp_layer(const ModelConfig& config, const Checkpoint& checkpoint);

// Whether weights are bound and packed with the layer.
enum class MtpLayer { kSkip, kUse };

// The cache of a model that drafts with the layer: one layer more, and per page the final-normed row of its last
// position (fp32), which the layer's first row in the next page is made of.
CacheLayout with_mtp_layer(CacheLayout main, const ModelConfig& config);

// A backend with the operations of the layer. Its block is layer num_hidden_layers of those of Backend, its head is
// head().
class MtpBackend : public Backend {
 public:
  // Called before the layer's operations, in place of begin_step(). step.token_ids has the token that follows the one a
  // row stands for. `hidden` [T, d]: h of the rows; null: they are rows of the step before, which the backend chose.
  virtual void begin_mtp(const Step& step, const float* hidden) = 0;
  // x = W^eh [RMSNorm(E[following token]); RMSNorm(h)]; h is `hidden`, or the last step's rows as final_norm() left
  // them.
  virtual void mtp_input(const Activations& h, Activations& x) = 0;
  // y = RMSNorm(x) before the head.
  virtual void mtp_norm(const Activations& x, Activations& y) = 0;
};

// One with a cache, for drafts. In it the row for h_p and token p + 1 has position p + 1, that of the token it reads,
// so that the rows of a page follow from the page's tokens and those before; position 0 has none. (Training counts from
// 0. Attention knows nothing but differences of positions.)
class MtpDraftBackend : public MtpBackend {
 public:
  // The cache rows of attention(layer, x), and nothing else.
  virtual void store_rows(int64_t layer, const Activations& x) = 0;
};

}  // namespace lathe
