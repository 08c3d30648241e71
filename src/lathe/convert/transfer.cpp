#include "lathe/convert/transfer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "lathe/base/str.h"
#include "lathe/formats/quant/quantise.h"

namespace lathe::convert {

namespace {

constexpr int64_t kChunkValues = int64_t{1} << 22;       // 16 MiB of fp32
constexpr uint64_t kReleaseBytes = uint64_t{128} << 20;  // of the source, after which its pages are given back
constexpr std::chrono::milliseconds kReportInterval{100};

// Whether bytes can go over as they are.
bool is_copy(const OutputTensor& tensor) {
  return tensor.rows->stored() == tensor.dtype && tensor.rows->raw_row(0) != nullptr;
}

}  // namespace

// Per row, so that sums do not depend on the threads.
struct Transfer::Losses {
  std::vector<double> square_errors;
  std::vector<double> squares;
  std::vector<double> largest;
};

Transfer::Transfer(ThreadPool& pool, const Options& options, std::span<const OutputTensor> tensors)
    : pool_(pool), options_(options), started_(std::chrono::steady_clock::now()) {
  progress_.tensors = static_cast<int64_t>(tensors.size());
  for (const OutputTensor& tensor : tensors) progress_.bytes += tensor.rows->source_bytes();
  report_.tensors.reserve(tensors.size());
}

Status Transfer::copy_rows(const OutputTensor& tensor, int64_t begin, int64_t end) {
  const int64_t bytes = row_bytes(tensor.dtype, tensor.rows->cols());
  pool_.run(end - begin, 64, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      std::memcpy(encoded_.data() + r * bytes, tensor.rows->raw_row(begin + r), static_cast<size_t>(bytes));
    }
  });
  return {};
}

Status Transfer::encode_rows(const OutputTensor& tensor, int64_t begin, int64_t end, Losses& losses) {
  const int64_t cols = tensor.rows->cols();
  const int64_t bytes = row_bytes(tensor.dtype, cols);
  const int64_t granule = tensor.rows->granule();
  const int64_t count = end - begin;
  values_.resize(static_cast<size_t>(count * cols));
  losses.square_errors.assign(static_cast<size_t>(count), 0.0);
  losses.squares.assign(static_cast<size_t>(count), 0.0);
  losses.largest.assign(static_cast<size_t>(count), 0.0);
  std::atomic<int64_t> bad_row{-1};
  pool_.run((count + granule - 1) / granule, 1, [&](int64_t first, int64_t last, int) {
    const int64_t from = first * granule;
    const int64_t to = std::min(count, last * granule);
    tensor.rows->read(begin + from, begin + to, values_.data() + from * cols);
    std::vector<float> decoded(static_cast<size_t>(cols));
    for (int64_t r = from; r < to; ++r) {
      const std::span<const float> row(values_.data() + r * cols, static_cast<size_t>(cols));
      std::byte* out = encoded_.data() + r * bytes;
      if (is_block_format(tensor.dtype) && !all_finite(row)) {
        bad_row = begin + r;
        continue;
      }
      encode_row(tensor.dtype, row, out);
      decode_row(tensor.dtype, out, decoded);
      double errors = 0.0;
      double squares = 0.0;
      float largest = 0.0F;
      for (size_t i = 0; i < row.size(); ++i) {
        const float error = row[i] - decoded[i];
        errors += static_cast<double>(error) * error;
        squares += static_cast<double>(row[i]) * row[i];
        largest = std::max(largest, std::fabs(error));
      }
      losses.square_errors[static_cast<size_t>(r)] = errors;
      losses.squares[static_cast<size_t>(r)] = squares;
      losses.largest[static_cast<size_t>(r)] = largest;
    }
  });
  if (bad_row < 0) return {};
  return Error{Errc::kInvalidData,
               str(tensor.name, ": expected finite values, found infinity or NaN in row ", bad_row.load())};
}

Status Transfer::advance(const OutputTensor& tensor, uint64_t bytes) {
  progress_.bytes_done += bytes;
  if (!options_.progress) return {};
  const auto now = std::chrono::steady_clock::now();
  if (now - reported_ < kReportInterval) return {};
  reported_ = now;
  progress_.tensor = tensor.name;
  if (options_.progress(progress_)) return {};
  return Error{Errc::kCancelled, str("stopped at tensor ", tensor.name)};
}

Status Transfer::run(const OutputTensor& tensor, const Sink& sink) {
  const Rows& rows = *tensor.rows;
  const int64_t cols = rows.cols();
  const int64_t bytes = row_bytes(tensor.dtype, cols);
  const int64_t granule = rows.granule();
  const int64_t chunk = std::max<int64_t>(kChunkValues / cols / granule, 1) * granule;
  const uint64_t source_row = rows.source_bytes() / static_cast<uint64_t>(std::max<int64_t>(rows.rows(), 1));
  const bool copy = is_copy(tensor);
  Losses losses;
  double square_errors = 0.0;
  double squares = 0.0;
  double largest = 0.0;
  uint64_t held = 0;
  for (int64_t begin = 0; begin < rows.rows(); begin += chunk) {
    const int64_t end = std::min(rows.rows(), begin + chunk);
    encoded_.resize(static_cast<size_t>((end - begin) * bytes));
    if (copy) {
      LATHE_TRY(copy_rows(tensor, begin, end));
    } else {
      LATHE_TRY(encode_rows(tensor, begin, end, losses));
      for (size_t r = 0; r < losses.squares.size(); ++r) {
        square_errors += losses.square_errors[r];
        squares += losses.squares[r];
        largest = std::max(largest, losses.largest[r]);
      }
    }
    LATHE_TRY(sink(encoded_));
    const uint64_t read = static_cast<uint64_t>(end - begin) * source_row;
    held += read;
    if (held >= kReleaseBytes) {
      rows.release();
      held = 0;
    }
    LATHE_TRY(advance(tensor, read));
  }
  rows.release();
  ++progress_.tensors_done;
  square_errors_ += square_errors;
  squares_ += squares;

  TensorReport report;
  report.name = tensor.name;
  report.source_dtype = dtype_name(rows.first_dtype());
  report.dtype = tensor.dtype;
  report.shape = tensor.shape;
  report.elements = rows.rows() * cols;
  report.bytes = tensor.bytes();
  report.relative_rms = squares > 0.0 ? std::sqrt(square_errors / squares) : 0.0;
  report.largest_error = largest;
  report_.elements += report.elements;
  report_.bytes += report.bytes;
  report_.tensors.push_back(std::move(report));
  return {};
}

Report Transfer::take_report() {
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - started_;
  report_.seconds = passed.count();
  report_.relative_rms = squares_ > 0.0 ? std::sqrt(square_errors_ / squares_) : 0.0;
  if (report_.elements > 0) {
    report_.bits_per_weight = 8.0 * static_cast<double>(report_.bytes) / static_cast<double>(report_.elements);
  }
  return std::move(report_);
}

}  // namespace lathe::convert
