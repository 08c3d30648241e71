// Decoder: the one place where the order norm -> attention -> residual -> norm -> FFN/MoE -> residual is written (spec
// section 2). Every backend, the reference included, runs through it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lathe/model/backend.h"
#include "lathe/model/config.h"

namespace lathe {

class MtpBackend;  // model/mtp.h, like the other
class MtpDraftBackend;

// What a forward pass computed on the way, row-major, for `eval logits --trace` and tests.
struct ForwardTrace {
  std::vector<std::vector<float>> hidden;  // [layers + 1][T * d]: after the embedding and after each block
  std::vector<float> final_norm;           // [T * d]
  std::vector<MoeTrace> routing;           // [layers]; empty vectors for dense layers
};

// Joins the trace of the next chunk of the same sequence to that of the chunks before it.
void append(ForwardTrace& trace, ForwardTrace next);

class Decoder {
 public:
  // `config` and `backend` must outlive the decoder.
  static Result<Decoder> create(const ModelConfig& config, Backend& backend);

  // Writes logits [step.logit_rows, vocab_size] and the cache rows of the step's tokens. The step must satisfy Step's
  // conditions and hold at most backend.max_tokens() tokens. `trace` may be null.
  void forward(const Step& step, float* logits, ForwardTrace* trace);

  // The multi-token prediction layer: logits of the token after the following one. `step` and `hidden` as
  // MtpBackend::begin_mtp takes them; without `hidden` only directly after forward(). `backend` is the decoder's.
  void forward_mtp(MtpBackend& backend, const Step& step, const float* hidden, float* logits);
  // Only the layer's cache rows.
  void store_mtp(MtpDraftBackend& backend, const Step& step, const float* hidden);

  // After forward() or forward_mtp(): the step's rows as they went into the head, [T, d].
  void read_normed(float* out) { backend_->read(*normed_, out); }

 private:
  Decoder(const ModelConfig& config, Backend& backend) : config_(&config), backend_(&backend) {}

  void block(int64_t layer, ForwardTrace* trace);
  void record_hidden(const Step& step, ForwardTrace* trace);

  const ModelConfig* config_;
  Backend* backend_;
  std::unique_ptr<Activations> x_;  // residual stream
  std::unique_ptr<Activations> normed_;
  std::unique_ptr<Activations> delta_;  // what a sub-layer adds
};

// Prompt tokens at positions below this use the expanded form of MLA, every other token the absorbed form: a rule of
// the prompt's length alone, in whole blocks of kExpandedBlock, so that chunking, batching and cache paging change no
// bit.
inline constexpr int64_t kExpandedBlock = 256;  // above the crossover of about 170 tokens (spec section 2.2)
int64_t canonical_expanded_until(int64_t prompt_tokens);

}  // namespace lathe
