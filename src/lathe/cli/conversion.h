// What `lathe quantize` and `lathe convert` share: progress on stderr, the report of every tensor on stdout, signals.
#pragma once

#include <cstdint>
#include <string>

#include "lathe/base/json.h"
#include "lathe/convert/convert.h"

namespace lathe::cli {

// Runs the conversion and prints what came of it; gives the exit code. The source of `options` is already a path.
int run_conversion(convert::Options options, bool json, bool quiet);

// The report as text: one line per tensor, its loss where there is one, then the totals.
std::string describe_report(const convert::Report& report);

// {"tensors": [...], "elements", "bytes", "file_bytes", "bits_per_weight", "relative_rms", "seconds"}
Json report_json(const convert::Report& report);

// "12/96 blk.3.attn_q.weight, 1.20 GiB of 4.00 GiB, 30 %, 45.0 MiB/s, 1:02 left" after that many seconds.
std::string describe_progress(const convert::Progress& progress, double seconds);

}  // namespace lathe::cli
