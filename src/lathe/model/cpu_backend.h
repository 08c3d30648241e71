// CpuBackend: the decoder's operations on the CPU, over a kernel table and a thread pool.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lathe/attention/rope.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/mtp.h"
#include "lathe/model/weights.h"
#include "lathe/tensor/workspace.h"

namespace lathe {

class CpuBackend final : public MtpDraftBackend {
 public:
  // `weights` and `pool` must outlive the backend. Operations of the multi-token prediction layer are for weights that
  // have it; its attention is MLA.
  static Result<std::unique_ptr<CpuBackend>> create(const ModelWeights& weights,
                                                    const CacheLayout& cache,
                                                    ThreadPool& pool,
                                                    const KernelTable& kernels,
                                                    int64_t max_tokens);

  // Floats of the workspace of a backend of that size.
  static int64_t scratch_floats(const ModelConfig& config,
                                int64_t max_tokens,
                                int threads,
                                MtpLayer mtp = MtpLayer::kSkip);
  // The same with the decoder's activations, one row of logits, and for drafts the final-normed rows of two steps: what
  // the memory plan calls scratch.
  static int64_t total_floats(const ModelConfig& config,
                              int64_t max_tokens,
                              int threads,
                              MtpLayer mtp = MtpLayer::kSkip);

  Result<std::unique_ptr<Activations>> allocate() override;

  int64_t max_tokens() const override { return max_tokens_; }

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
  // `hidden` must be given.
  void begin_mtp(const Step& step, const float* hidden) override;
  void mtp_input(const Activations& h, Activations& x) override;
  void mtp_norm(const Activations& x, Activations& y) override;
  void store_rows(int64_t layer, const Activations& x) override;

 private:
  CpuBackend(const ModelWeights& weights,
             const CacheLayout& cache,
             ThreadPool& pool,
             const KernelTable& kernels,
             int64_t max_tokens);

  CpuContext cpu() { return {kernels_, pool_, workspace_}; }

  int64_t tokens() const { return tokens_; }

  // first_key: of the step's sequences (AttentionSegment).
  void begin(const Step& step, int64_t first_key);
  void embed_token(int32_t id, float* row);
  // The caches of the step's segments become those of the layer.
  void point_at(int64_t layer);
  MlaArgs mla_args(int64_t layer, const Activations& x);
  void norm(const float* weight, const Activations& x, Activations& y);

  const ModelWeights& weights_;
  CacheLayout cache_;
  ThreadPool& pool_;
  const KernelTable& kernels_;
  int64_t max_tokens_;
  MlaShape mla_;
  GqaShape gqa_;
  MoeShape moe_;
  Workspace workspace_;
  RopeTable rope_;
  std::vector<float> rope_cos_;  // [T, pairs] of the current step
  std::vector<float> rope_sin_;
  std::vector<AttentionSegment> segments_;
  const Step* step_ = nullptr;
  int64_t tokens_ = 0;             // of the step; read() is called after it
  const float* hidden_ = nullptr;  // of begin_mtp()
};

}  // namespace lathe
