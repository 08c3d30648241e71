#include "lathe/cli/conversion.h"

#include <algorithm>

#include "lathe/base/clock.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/cli/common.h"
#include "lathe/cli/progress.h"

namespace lathe::cli {

namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t extent : shape) out += str(out.empty() ? "" : " x ", extent);
  return out;
}

// Four significant digits; small losses in powers of ten.
std::string loss_text(double value) {
  if (value == 0.0) return "0";
  if (value >= 1e-4) return fixed(value, 6);
  int exponent = 0;
  while (value < 1.0 && exponent > -400) {
    value *= 10.0;
    --exponent;
  }
  return str(fixed(value, 2), "e", exponent);
}

void pad(std::string& line, size_t width) {
  if (line.size() < width) line.append(width - line.size(), ' ');
  line += "  ";
}

}  // namespace

std::string describe_progress(const convert::Progress& progress, double seconds) {
  const double share =
      progress.bytes == 0 ? 1.0 : static_cast<double>(progress.bytes_done) / static_cast<double>(progress.bytes);
  const double rate = seconds > 0.0 ? static_cast<double>(progress.bytes_done) / seconds : 0.0;
  const double left = share > 0.0 ? seconds * (1.0 - share) / share : -1.0;
  return str(progress.tensors_done + 1,
             "/",
             progress.tensors,
             " ",
             progress.tensor,
             ", ",
             human_bytes(progress.bytes_done),
             " of ",
             human_bytes(progress.bytes),
             ", ",
             fixed(100.0 * share, 0),
             " %, ",
             human_bytes(static_cast<uint64_t>(rate)),
             "/s, ",
             clock_text(left),
             " left");
}

std::string describe_report(const convert::Report& report) {
  size_t name_width = 6;
  size_t shape_width = 5;
  for (const convert::TensorReport& tensor : report.tensors) {
    name_width = std::max(name_width, tensor.name.size());
    shape_width = std::max(shape_width, shape_text(tensor.shape).size());
  }
  std::string out = "tensor";
  pad(out, name_width);
  std::string head = "shape";
  pad(head, shape_width);
  out += head + "from     to      relative rms  largest error\n";
  for (const convert::TensorReport& tensor : report.tensors) {
    std::string line = tensor.name;
    pad(line, name_width);
    line += shape_text(tensor.shape);
    pad(line, name_width + 2 + shape_width);
    std::string types = tensor.source_dtype;
    pad(types, 7);
    types += dtype_name(tensor.dtype);
    pad(types, 15);
    types += loss_text(tensor.relative_rms);
    pad(types, 29);
    out += str(line, types, loss_text(tensor.largest_error), "\n");
  }
  out += str(with_commas(static_cast<int64_t>(report.tensors.size())),
             " tensors, ",
             with_commas(report.elements),
             " values, ",
             human_bytes(report.file_bytes),
             ", ",
             fixed(report.bits_per_weight, 3),
             " bits per weight, relative rms ",
             loss_text(report.relative_rms),
             ", ",
             fixed(report.seconds, 1),
             " s\n");
  return out;
}

Json report_json(const convert::Report& report) {
  Json tensors = Json::array();
  for (const convert::TensorReport& tensor : report.tensors) {
    Json entry = Json::object();
    entry.set("name", tensor.name);
    entry.set("shape", Json::list(tensor.shape));
    entry.set("from", tensor.source_dtype);
    entry.set("to", dtype_name(tensor.dtype));
    entry.set("bytes", tensor.bytes);
    entry.set("relative_rms", tensor.relative_rms);
    entry.set("largest_error", tensor.largest_error);
    tensors.push(std::move(entry));
  }
  Json out = Json::object();
  out.set("tensors", std::move(tensors));
  out.set("elements", report.elements);
  out.set("bytes", report.bytes);
  out.set("file_bytes", report.file_bytes);
  out.set("bits_per_weight", report.bits_per_weight);
  out.set("relative_rms", report.relative_rms);
  out.set("seconds", report.seconds);
  return out;
}

int run_conversion(convert::Options options, bool json, bool quiet) {
  if (quiet) set_log_level(LogLevel::kWarning);
  const SignalScope signals;
  StatusLine line(quiet);
  const double began = now_seconds();
  options.progress = [&line, began](const convert::Progress& progress) {
    if (line.due(false)) line.show(describe_progress(progress, now_seconds() - began), false);
    return SignalScope::caught() == 0;
  };
  const Result<convert::Report> report = convert::convert(options);
  line.clear();
  if (!report) {
    const int code = cli::report(report.error());
    return SignalScope::caught() != 0 ? SignalScope::exit_code() : code;
  }
  const Status written = json ? write_json(report_json(*report)) : write_stdout(describe_report(*report));
  return written ? kExitOk : cli::report(written.error());
}

}  // namespace lathe::cli
