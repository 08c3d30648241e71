// From a checkpoint to a GGUF file or a folder in HuggingFace layout, quantising or not, tensor by tensor. Memory use
// does not depend on the size of the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/formats/quant/recipe.h"
#include "lathe/tensor/dtype.h"

namespace lathe::convert {

enum class Target { kGguf, kHf };

// What goes on; bytes are of the source.
struct Progress {
  std::string tensor;  // the one at hand
  int64_t tensors_done = 0;
  int64_t tensors = 0;
  uint64_t bytes_done = 0;
  uint64_t bytes = 0;
};

struct Options {
  std::filesystem::path source;       // folder in HuggingFace layout or .gguf file
  std::filesystem::path destination;  // .gguf file, replaced when it exists; or a folder that is new or empty
  Target target = Target::kGguf;
  std::optional<QuantType> type{};  // kGguf; unset: matrices keep their type, FP8 becomes BF16
  std::optional<DType> dtype{};     // kHf: F32, F16 or BF16; unset: what most values have, else BF16
  int threads = 0;                  // 0: as many as are useful here
  bool allow_requantise = false;    // whether block formats may be turned into other block formats

  // Called a few times per second at most from the calling thread; false stops with kCancelled. May be empty.
  std::function<bool(const Progress&)> progress{};
};

// What became of one tensor.
struct TensorReport {
  std::string name;
  std::string source_dtype;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int64_t elements = 0;
  uint64_t bytes = 0;          // in the new file
  double relative_rms = 0.0;   // root of (sum of squared errors / sum of squares); 0 when nothing was lost
  double largest_error = 0.0;  // of one value
};

// What came of a conversion; tensors in the order of the file.
struct Report {
  std::vector<TensorReport> tensors;
  int64_t elements = 0;
  uint64_t bytes = 0;       // of all tensors
  uint64_t file_bytes = 0;  // of the file, or of all files of weights
  double bits_per_weight = 0.0;
  double relative_rms = 0.0;  // over all values
  double seconds = 0.0;
};

// Converts. The destination appears complete or not at all. Errors: those of the source; kInvalidData for values that
// are not finite in a tensor to quantise; kUnsupported for block formats to be quantised again without leave and for
// what the target cannot express; kInvalidArgument for a destination that is not as Options says; kIo and
// kResourceExhausted for a full disk; kCancelled.
Result<Report> convert(const Options& options);

}  // namespace lathe::convert
