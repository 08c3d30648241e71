// Multi-token prediction (V3 section 2.2): a layer after the last one that predicts the token after the next. What it
// needs beside the main model: its tensors and its operations.
#pragma once

#include <vector>

#include "lathe/model/backend.h"
#include "lathe/model/shapes.h"

namespace lathe {

// The tensors of the layer, stored as layer num_hidden_layers, but for embed_tokens and shared_head.head, which are
// copies of the main model's. Empty unless num_nextn_predict_layers is positive.
std::vector<ExpectedTensor> expected_mtp_tensors(const ModelConfig& config);

// A backend with the operations of the layer. Its block is layer num_hidden_layers of those of Backend, its head is
// head().
class MtpBackend : public Backend {
 public:
  // Called after a step, before the layer's operations, in place of begin_step(). A row stands for one of that step's:
  // step.token_ids has the token that follows it.
  virtual void begin_mtp(const Step& step) = 0;
  // x = W^eh [RMSNorm(E[following token]); RMSNorm(h)]; h: the step's rows as final_norm() left them.
  virtual void mtp_input(const Activations& h, Activations& x) = 0;
  // y = RMSNorm(x) before the head.
  virtual void mtp_norm(const Activations& x, Activations& y) = 0;
};

}  // namespace lathe
