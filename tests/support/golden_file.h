// GoldenFile: typed reading of an expected.safetensors; models opened the way the golden tests want them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/formats/checkpoint.h"
#include "support/golden.h"

namespace lathe::testing {

class GoldenFile {
 public:
  explicit GoldenFile(const std::filesystem::path& path) : file_(SafetensorsFile::open(path)) {
    EXPECT_TRUE(file_.has_value()) << (file_ ? "" : file_.error().message);
  }

  bool has(const std::string& name) const { return file_->find(name) != nullptr; }

  std::vector<int64_t> shape(const std::string& name) const { return tensor(name).shape; }

  std::vector<float> floats(const std::string& name) const { return read<float>(name, DType::kF32); }

  std::vector<double> doubles(const std::string& name) const { return read<double>(name, DType::kF64); }

  std::vector<int32_t> ints(const std::string& name) const {
    if (tensor(name).dtype == DType::kI32) return read<int32_t>(name, DType::kI32);
    const std::vector<int64_t> wide = read<int64_t>(name, DType::kI64);
    return {wide.begin(), wide.end()};
  }

 private:
  const StoredTensor& tensor(const std::string& name) const {
    const StoredTensor* found = file_->find(name);
    if (found == nullptr) throw std::runtime_error("golden file has no " + name);
    return *found;
  }

  template <class T>
  std::vector<T> read(const std::string& name, DType dtype) const {
    const StoredTensor& stored = tensor(name);
    if (stored.dtype != dtype) throw std::runtime_error("golden " + name + " has another dtype");
    std::vector<T> out(static_cast<size_t>(stored.elements()));
    std::memcpy(out.data(), stored.bytes.data(), stored.bytes.size());
    return out;
  }

  Result<SafetensorsFile> file_;
};

// The model variants of tests/golden that have weights, with their prompts.
struct GoldenModel {
  std::string name;
  std::filesystem::path folder;    // config and weights
  std::filesystem::path expected;  // expected.safetensors and expected.json
  std::vector<std::string> prompts;
};

inline std::vector<GoldenModel> golden_models() {
  std::vector<GoldenModel> models;
  for (const char* name : {"v2lite-tiny",
                           "v2-tiny",
                           "v3-tiny",
                           "v3-tiny-fp8",
                           "llama-gqa-tiny",
                           "llama-mha-tiny",
                           "llama-mqa-tiny",
                           "deepseek-moe-tiny",
                           "storyteller"}) {
    GoldenModel model{name, golden_dir() / name, golden_dir() / name, {}};
    if (model.name == "storyteller") model.folder = std::filesystem::path(LATHE_SOURCE_DIR) / "models" / name;
    const Result<Json> json = read_json(model.expected / "expected.json");
    EXPECT_TRUE(json.has_value()) << name;
    for (const auto& [prompt, details] : json->find("prompts")->as_object()) model.prompts.push_back(prompt);
    models.push_back(model);
  }
  return models;
}

// |logit - expected| allowed for a prompt: 20 times the error of the float32 reference, at least 2e-4
// (tests/golden/README.md).
inline double logit_tolerance(const GoldenModel& model, const std::string& prompt) {
  const Result<Json> json = read_json(model.expected / "expected.json");
  const Json* error = json->find("prompts")->find(prompt)->find("float32_reference_max_abs_logit_error");
  return std::max(2e-4, error == nullptr ? 0.0 : 20.0 * error->as_double());
}

}  // namespace lathe::testing
