// Backend: the DeepSeek operations that the decoder is made of, on opaque activations. Not a tensor framework: no
// strides, broadcasting or graph. `moe` and `attention` are one operation each, so that a backend can fuse and place
// them as it likes; true lengths, page tables and expert counts are data. CpuBackend is the fast one; ReferenceBackend
// reads like the paper.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lathe/attention/cache_view.h"
#include "lathe/base/result.h"
#include "lathe/tensor/dtype.h"

namespace lathe {

// Rows of activations [rows, width] in the backend's own memory and number format. Only its backend looks inside.
class Activations {
 public:
  virtual ~Activations() = default;
};

// Consecutive tokens of one sequence in a step. Positions before `position` are in the sequence's cache already.
struct SequenceChunk {
  uint64_t sequence = 0;  // identity, for backends that keep their own history
  int64_t first_row = 0;  // row of its first token in the step
  int64_t tokens = 0;
  int64_t position = 0;               // of its first token
  int64_t expanded_until = 0;         // MLA: positions below use the expanded form (see canonical_expanded_until)
  std::span<std::byte* const> pages;  // cache pages covering positions 0 .. position + tokens - 1
};

// One pass over a packed batch: chunks of one or more sequences, end to end.
struct Step {
  std::span<const int32_t> token_ids;     // all < vocab_size
  std::span<const SequenceChunk> chunks;  // in row order, together covering token_ids
  std::span<const int64_t> logit_rows;    // rows whose logits are wanted, ascending
};

// Layout of cached rows: [layer][64 positions][row] per page, then the tail.
struct CacheLayout {
  CacheFormat format = CacheFormat::kF16;
  int64_t row_elements = 0;  // ModelConfig::cache_row_elements()
  int64_t layers = 0;
  int64_t tail_bytes = 0;  // for what else belongs to the page's tokens; a multiple of 64

  int64_t layer_bytes() const { return kPageTokens * cache_row_bytes(format, row_elements); }

  int64_t tail_offset() const { return layers * layer_bytes(); }

  int64_t page_bytes() const { return tail_offset() + tail_bytes; }
};

// Routing decisions of one MoE layer, for traces: [T, K] each, ids ascending.
struct MoeTrace {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Room for max_tokens() rows of hidden_size values.
  virtual Result<std::unique_ptr<Activations>> allocate() = 0;
  virtual int64_t max_tokens() const = 0;  // of one step

  // Called before the operations of a step; `step` outlives them.
  virtual void begin_step(const Step& step) = 0;
  virtual void embed(Activations& x) = 0;                                            // x = E[token]
  virtual void input_norm(int64_t layer, const Activations& x, Activations& y) = 0;  // y = RMSNorm(x)
  virtual void post_attention_norm(int64_t layer, const Activations& x, Activations& y) = 0;
  virtual void attention(int64_t layer, const Activations& x, Activations& y) = 0;  // MLA or MHA/GQA/MQA
  virtual void dense_ffn(int64_t layer, const Activations& x, Activations& y) = 0;
  virtual void moe(int64_t layer, const Activations& x, Activations& y, MoeTrace* trace) = 0;
  virtual void add(Activations& x, const Activations& y) = 0;  // x += y
  virtual void final_norm(const Activations& x, Activations& y) = 0;
  // Logits of the step's logit_rows for the final-normed x: out [logit_rows, vocab_size].
  virtual void head(const Activations& x, float* out) = 0;
  // The rows of x as fp32: out [T, hidden_size]. Also after the step, until the next one begins.
  virtual void read(const Activations& x, float* out) = 0;
};

}  // namespace lathe
