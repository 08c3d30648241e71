// ParameterSet: what training changes. The values of all parameters in one allocation and their gradients in another,
// both flat, in the order of the checkpoint's tensors; a parameter is a range of both.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/model/config.h"
#include "lathe/tensor/workspace.h"

namespace lathe {

// One tensor, row-major fp32, under its name in the checkpoint.
struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // of its first value in the flat arrays
  int64_t size = 0;
  bool decay = false;   // weight decay applies: matrices yes, norms and biases no
  bool hidden = false;  // a matrix between hidden values: neither the embedding nor the head
};

// See the head of this file. Between parameters there may be a few floats of padding, which are zero in both arrays and
// stay zero. e_score_correction_bias (noaux_tc) is a parameter whose gradient is always zero: the optimizer leaves it
// alone, TrainModel::update_router_biases() changes it.
class ParameterSet {
 public:
  // Values and gradients are zero. kResourceExhausted without memory.
  static Result<ParameterSet> create(std::vector<Parameter> list);

  std::span<const Parameter> list() const { return list_; }

  // Floats of each flat array, padding included.
  int64_t size() const { return size_; }

  // Sum of the sizes: what one calls the number of parameters.
  int64_t count() const { return count_; }

  std::span<float> values() { return {values_, static_cast<size_t>(size_)}; }

  std::span<const float> values() const { return {values_, static_cast<size_t>(size_)}; }

  std::span<float> gradients() { return {gradients_, static_cast<size_t>(size_)}; }

  std::span<const float> gradients() const { return {gradients_, static_cast<size_t>(size_)}; }

  // Of parameter `index` of list().
  std::span<float> values(int64_t index) { return view(values(), index); }

  std::span<float> gradients(int64_t index) { return view(gradients(), index); }

  // Position in list(), -1 when there is no such parameter.
  int64_t find(std::string_view name) const;

  // Sets every gradient to 0, over the threads of the pool.
  void zero_gradients(ThreadPool& pool);

 private:
  std::span<float> view(std::span<float> all, int64_t index) const {
    const Parameter& p = list_[static_cast<size_t>(index)];
    return all.subspan(static_cast<size_t>(p.offset), static_cast<size_t>(p.size));
  }

  std::vector<Parameter> list_;
  std::vector<int64_t> by_name_;  // positions in list_, sorted by name
  Workspace memory_;
  float* values_ = nullptr;
  float* gradients_ = nullptr;
  int64_t size_ = 0;
  int64_t count_ = 0;
};

// The parameters of a model in the order of expected_tensors() and expected_mtp_tensors(), without the optional biases.
// offset and size are filled in: tensors begin at multiples of 16 floats, except that up_proj directly follows
// gate_proj, so that both are one matrix.
std::vector<Parameter> model_parameters(const ModelConfig& config);

}  // namespace lathe
