// lathe doctor: what this machine offers, what it reaches, and what stands in the way.
#include <algorithm>
#include <utility>

#include "lathe/base/cpu.h"
#include "lathe/base/str.h"
#include "lathe/base/thread_pool.h"
#include "lathe/cli/common.h"
#include "lathe/cli/doctor_checks.h"
#include "lathe/cli/doctor_measure.h"
#include "lathe/formats/hub.h"

namespace lathe::cli {
namespace {

constexpr double kBandwidthSeconds = 0.4;  // per measurement, of which there are two
constexpr double kArithmeticSeconds = 0.25;
constexpr double kPeakSeconds = 0.1;

struct Report {
  MachineLimits limits;
  HostFacts facts;
  std::vector<Finding> findings;
  std::optional<Bandwidth> bandwidth;
  std::optional<Arithmetic> arithmetic;
  std::optional<Peak> fp32_peak;
  std::optional<Peak> int8_peak;

  void add(std::vector<Finding> more) {
    findings.insert(findings.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
};

std::string gigabytes_per_second(double rate) {
  return str(fixed(rate / 1e9, 1), " GB/s");
}

std::string gigaflops(double rate) {
  return str(fixed(rate / 1e9, 1), " GFLOP/s");
}

std::string thread_count(int threads) {
  return str(threads, threads == 1 ? " thread" : " threads");
}

// Which share of the test buffer came in huge pages, where the setting promises them.
std::optional<Finding> check_huge_pages(const MachineLimits& limits, const Bandwidth& bandwidth) {
  if (!bandwidth.huge_bytes || limits.transparent_huge_pages.empty() || limits.transparent_huge_pages == "never") {
    return std::nullopt;
  }
  Finding out{.severity = Severity::kOk,
              .what = "huge pages in use",
              .value = str(human_bytes(*bandwidth.huge_bytes), " of a buffer of ", human_bytes(bandwidth.buffer_bytes)),
              .advice = {}};
  if (*bandwidth.huge_bytes < bandwidth.buffer_bytes / 2) {
    out.severity = Severity::kWarning;
    out.advice = "memory is fragmented: as root, echo 1 > /proc/sys/vm/compact_memory";
  }
  return out;
}

// Two threads on two cores do twice the work of one; less says that the processors are siblings of one core, or that
// the machine gives less than it shows.
Finding check_peak(std::string what, const Peak& peak, std::string_view unit) {
  Finding out{.severity = Severity::kOk,
              .what = std::move(what),
              .value = str(fixed(peak.one_thread / 1e9, 1),
                           unit,
                           " with 1 thread, ",
                           fixed(peak.all_threads / 1e9, 1),
                           unit,
                           " with ",
                           thread_count(peak.threads),
                           " (multiply-adds between registers)"),
              .advice = {}};
  constexpr double kGoodShare = 0.6;
  if (peak.all_threads < kGoodShare * peak.threads * peak.one_thread) {
    out.severity = Severity::kWarning;
    out.advice = "the threads share cores or a quota, or other programs run: `-t` with fewer threads may be faster";
  }
  return out;
}

void measure(Report& report) {
  Result<std::unique_ptr<ThreadPool>> pool = ThreadPool::create(report.facts.threads);
  if (!pool) {
    report.findings.push_back(
        {Severity::kFailure, "thread pool", pool.error().message, "raise the limit of processes (ulimit -u)"});
    return;
  }
  if (!kernels_agree()) {
    report.findings.push_back(
        {Severity::kFailure,
         "arithmetic",
         str(report.facts.isa, " kernels and reference differ on the same product"),
         "the processor, its emulation or this build is broken; LATHE_ISA=reference is the way round"});
    return;
  }
  const Result<Bandwidth> bandwidth =
      measure_bandwidth(**pool, measurement_buffer_bytes(report.limits), kBandwidthSeconds);
  if (bandwidth) {
    report.bandwidth = *bandwidth;
    std::string value = str(gigabytes_per_second(bandwidth->one_thread),
                            " with 1 thread, ",
                            gigabytes_per_second(bandwidth->all_threads),
                            " with ",
                            thread_count(bandwidth->threads),
                            " (reading ",
                            human_bytes(bandwidth->buffer_bytes),
                            ")");
    const bool cached = bandwidth->buffer_bytes < 2 * last_level_cache_bytes();
    report.findings.push_back(
        {Severity::kOk, "bandwidth", std::move(value), cached ? "a part of it came from the cache" : ""});
    if (const std::optional<Finding> huge = check_huge_pages(report.limits, *bandwidth)) {
      report.findings.push_back(*huge);
    }
  } else {
    report.findings.push_back({Severity::kWarning, "bandwidth", "not measured", bandwidth.error().message});
  }
  report.arithmetic = measure_arithmetic(**pool, kArithmeticSeconds);
  report.findings.push_back({Severity::kOk,
                             "arithmetic",
                             str(gigaflops(report.arithmetic->one_thread),
                                 " with 1 thread, ",
                                 gigaflops(report.arithmetic->all_threads),
                                 " with ",
                                 thread_count(report.arithmetic->threads),
                                 " (fp32 products of ",
                                 kPeakTokens,
                                 " x ",
                                 kPeakCols,
                                 " x ",
                                 kPeakRows,
                                 " in the core's caches)"),
                             ""});
  report.fp32_peak = measure_peak(**pool, PeakKind::kFp32, kPeakSeconds);
  report.int8_peak = measure_peak(**pool, PeakKind::kInt8, kPeakSeconds);
  report.findings.push_back(check_peak("fp32 peak", *report.fp32_peak, " GFLOP/s"));
  report.findings.push_back(check_peak("int8 peak", *report.int8_peak, " Gop/s"));
}

std::string compiler() {
#if defined(__clang__)
  return str("clang ", __clang_major__, ".", __clang_minor__, ".", __clang_patchlevel__);
#elif defined(__GNUC__)
  return str("gcc ", __GNUC__, ".", __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__);
#else
  return "unknown compiler";
#endif
}

constexpr bool is_optimised() {
#if defined(__OPTIMIZE__)
  return true;
#else
  return false;
#endif
}

constexpr bool has_checks() {
#if defined(LATHE_DCHECKS)
  return true;
#else
  return false;
#endif
}

Finding check_build() {
  Finding out{.severity = Severity::kOk,
              .what = "build",
              .value = str("lathe ", LATHE_VERSION, ", ", compiler()),
              .advice = {}};
  if (!is_optimised()) {
    out.severity = Severity::kWarning;
    out.advice = "built without optimisation: configure with CMAKE_BUILD_TYPE=RelWithDebInfo";
  } else if (has_checks()) {
    out.severity = Severity::kWarning;
    out.advice = "built with LATHE_DCHECKS, which costs speed";
  }
  return out;
}

Finding check_default_model() {
  const Result<std::filesystem::path> folder = model_folder("");
  if (folder) return {Severity::kOk, "default model", folder->string(), ""};
  return {Severity::kWarning,
          "default model",
          "not found",
          "`lathe run` needs a model named; a complete installation has one"};
}

Json finding_json(const Finding& finding) {
  Json out = Json::object();
  out.set("severity", name_of(finding.severity));
  out.set("what", finding.what);
  out.set("value", finding.value);
  out.set("advice", finding.advice);
  return out;
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json machine_json(const Report& report) {
  const MachineLimits& limits = report.limits;
  const HostFacts& facts = report.facts;
  Json out = Json::object();
  out.set("cpu", facts.cpu);
  out.set("isa", facts.isa);
  out.set("usable_isas", Json::list(facts.usable_isas));
  out.set("threads", facts.threads);
  out.set("affinity_cpus", limits.affinity_cpus);
  out.set("physical_cores", limits.physical_cores);
  out.set("cgroup_cpus", or_null(limits.cgroup_cpus));
  out.set("load", or_null(facts.load));
  out.set("numa_nodes", limits.numa_nodes);
  out.set("total_memory", limits.total_memory);
  out.set("available_memory", limits.available_memory);
  out.set("cgroup_memory", or_null(limits.cgroup_memory));
  out.set("cgroup_memory_used", or_null(limits.cgroup_memory_used));
  out.set("address_space", or_null(limits.address_space));
  out.set("swap", limits.swap_total);
  out.set("transparent_huge_pages", limits.transparent_huge_pages);
  out.set("overcommit", facts.overcommit);
  out.set("open_files", facts.open_files);
  out.set("hub_cache", facts.hub_cache.string());
  out.set("hub_free_bytes", or_null(facts.hub_free_bytes));
  return out;
}

Json measured_json(const Report& report) {
  Json out = Json::object();
  if (report.bandwidth) {
    Json bandwidth = Json::object();
    bandwidth.set("one_thread_bytes_per_s", report.bandwidth->one_thread);
    bandwidth.set("all_threads_bytes_per_s", report.bandwidth->all_threads);
    bandwidth.set("buffer_bytes", report.bandwidth->buffer_bytes);
    bandwidth.set("huge_page_bytes", or_null(report.bandwidth->huge_bytes));
    out.set("bandwidth", std::move(bandwidth));
  }
  if (report.arithmetic) {
    Json arithmetic = Json::object();
    arithmetic.set("one_thread_flop_per_s", report.arithmetic->one_thread);
    arithmetic.set("all_threads_flop_per_s", report.arithmetic->all_threads);
    out.set("arithmetic", std::move(arithmetic));
  }
  const auto add_peak = [&out](std::string_view name, const std::optional<Peak>& peak) {
    if (!peak) return;
    Json json = Json::object();
    json.set("one_thread_op_per_s", peak->one_thread);
    json.set("all_threads_op_per_s", peak->all_threads);
    out.set(name, std::move(json));
  };
  add_peak("fp32_peak", report.fp32_peak);
  add_peak("int8_peak", report.int8_peak);
  return out;
}

bool has_failure(const Report& report) {
  return std::ranges::any_of(report.findings, [](const Finding& f) { return f.severity == Severity::kFailure; });
}

Json report_json(const Report& report) {
  Json findings = Json::array();
  for (const Finding& finding : report.findings) findings.push(finding_json(finding));
  Json build = Json::object();
  build.set("version", LATHE_VERSION);
  build.set("compiler", compiler());
  build.set("optimised", is_optimised());
  build.set("checks", has_checks());
  Json out = Json::object();
  out.set("ok", !has_failure(report));
  out.set("findings", std::move(findings));
  out.set("machine", machine_json(report));
  out.set("measured", measured_json(report));
  out.set("build", std::move(build));
  return out;
}

std::string report_text(const Report& report) {
  std::string out;
  for (const Finding& finding : report.findings) {
    std::string severity(name_of(finding.severity));
    severity.resize(4, ' ');
    out += str(severity, "  ", finding.what, ": ", finding.value);
    if (!finding.advice.empty()) out += str("; ", finding.advice);
    out += '\n';
  }
  return out;
}

}  // namespace

int run_doctor(const DoctorOptions& options) {
  Report report;
  report.limits = machine_limits();
  const Result<HubSettings> hub = hub_settings_from_environment();
  report.facts = host_facts(hub ? hub->cache : std::filesystem::path());
  report.add(check_processor(report.limits, report.facts));
  report.add(check_memory(report.limits, report.facts));
  if (hub) {
    report.add(check_storage(report.facts));
  } else {
    report.findings.push_back({Severity::kWarning, "hub cache", "not known", hub.error().message});
  }
  report.findings.push_back(check_default_model());
  report.findings.push_back(check_build());
  measure(report);
  const Status written = options.json ? write_json(report_json(report)) : write_stdout(report_text(report));
  if (!written) return lathe::cli::report(written.error());
  return has_failure(report) ? kExitFailure : kExitOk;
}

}  // namespace lathe::cli
