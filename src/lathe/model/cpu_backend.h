// CpuBackend: the decoder's operations on the CPU, over a kernel table and a thread pool.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lathe/attention/rope.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/backend.h"
#include "lathe/model/weights.h"
#include "lathe/tensor/workspace.h"

namespace lathe {

class CpuBackend final : public Backend {
 public:
  // `weights` and `pool` must outlive the backend.
  static Result<std::unique_ptr<CpuBackend>> create(const ModelWeights& weights,
                                                    const CacheLayout& cache,
                                                    ThreadPool& pool,
                                                    const KernelTable& kernels,
                                                    int64_t max_tokens);

  // Floats of the workspace of a backend of that size.
  static int64_t scratch_floats(const ModelConfig& config, int64_t max_tokens, int threads);
  // The same with the decoder's activations and one row of logits: what the memory plan calls scratch.
  static int64_t total_floats(const ModelConfig& config, int64_t max_tokens, int threads);

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

 private:
  CpuBackend(const ModelWeights& weights,
             const CacheLayout& cache,
             ThreadPool& pool,
             const KernelTable& kernels,
             int64_t max_tokens);

  CpuContext cpu() { return {kernels_, pool_, workspace_}; }

  int64_t tokens() const { return static_cast<int64_t>(step_->token_ids.size()); }

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
};

}  // namespace lathe
