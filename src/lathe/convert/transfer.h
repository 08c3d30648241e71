// The loop that every conversion runs: rows are read, encoded and measured in chunks on all threads and handed on in
// order.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/base/thread_pool.h"
#include "lathe/convert/convert.h"
#include "lathe/convert/plan.h"

namespace lathe::convert {

// Takes the next bytes of the tensor at hand.
using Sink = std::function<Status(std::span<const std::byte>)>;

class Transfer {
 public:
  // Borrows all three.
  Transfer(ThreadPool& pool, const Options& options, std::span<const OutputTensor> tensors);

  // Writes all rows of one tensor; adds to the report.
  Status run(const OutputTensor& tensor, const Sink& sink);

  // Totals of everything that ran; file_bytes is the caller's.
  Report take_report();

 private:
  struct Losses;
  Status copy_rows(const OutputTensor& tensor, int64_t begin, int64_t end);
  Status encode_rows(const OutputTensor& tensor, int64_t begin, int64_t end, Losses& losses);
  Status advance(const OutputTensor& tensor, uint64_t bytes);

  ThreadPool& pool_;
  const Options& options_;
  Report report_;
  Progress progress_;
  double square_errors_ = 0.0;
  double squares_ = 0.0;
  std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::time_point reported_;
  std::vector<std::byte> encoded_;
  std::vector<float> values_;
};

}  // namespace lathe::convert
