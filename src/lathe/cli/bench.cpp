// lathe bench: speed of a model's forward pass, beside what this machine reaches in the same run.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "lathe/base/clock.h"
#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/cli/bench_report.h"
#include "lathe/cli/common.h"
#include "lathe/cli/doctor_measure.h"
#include "lathe/cli/progress.h"
#include "lathe/model/memory_plan.h"
#include "lathe/model/model_files.h"
#include "lathe/model/shapes.h"
#include "lathe/model/synthetic_weights.h"

namespace lathe::cli {
namespace {

constexpr double kMeasureSeconds = 0.25;
constexpr uint64_t kSeed = 1;

// Prompts first, each at every depth, then generation.
std::vector<BenchCase> cases_of(const BenchOptions& o) {
  std::vector<BenchCase> out;
  for (const int64_t tokens : o.prompt) {
    if (tokens == 0) continue;
    for (const int64_t depth : o.depth) out.push_back({BenchKind::kPrompt, tokens, depth});
  }
  if (o.gen == 0) return out;
  for (const int64_t depth : o.depth) out.push_back({BenchKind::kGeneration, o.gen, depth});
  return out;
}

// The largest resident size since the last reset, where the system counts it.
uint64_t peak_resident_bytes() {
  const Result<std::string> text = read_file("/proc/self/status", 1 << 16);
  if (!text) return 0;
  constexpr std::string_view kKey = "VmHWM:";
  const size_t at = text->find(kKey);
  if (at == std::string::npos) return 0;
  std::string_view rest = std::string_view(*text).substr(at + kKey.size());
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  int64_t kib = 0;
  return parse_int(rest.substr(0, rest.find(' ')), kib) && kib > 0 ? static_cast<uint64_t>(kib) * 1024 : 0;
}

// Starts the count anew, so that the buffer of the bandwidth is not in it. Where the system refuses, it stays in.
void reset_peak_resident() {
  const int fd = ::open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  (void)write_all(fd, "5", "clear_refs");
  (void)::close(fd);
}

// The weights to measure, and who keeps them.
struct Opened {
  std::unique_ptr<Engine> engine;               // of a checkpoint
  std::unique_ptr<const ModelWeights> made_up;  // of a configuration
  const ModelWeights* weights = nullptr;
  CacheFormat cache_type = CacheFormat::kF16;
  std::string name;
  double load_s = 0.0;
};

Status check_room(const ModelConfig& config,
                  const BenchOptions& o,
                  const std::vector<BenchCase>& cases,
                  std::optional<QuantType> type,
                  CacheFormat cache_type,
                  int threads) {
  const int64_t positions = ModelBench::positions(config, cases);
  const int64_t batch = std::min(o.batch, positions);
  LATHE_TRY(const uint64_t weight_bytes, synthetic_weight_bytes(config, type));
  LATHE_TRY(const MemoryPlan plan,
            plan_memory(config,
                        {.context = positions,
                         .cache_format = cache_type,
                         .cache_page_tokens = kPageTokens,
                         .max_batch_tokens = batch,
                         .threads = threads,
                         .weight_bytes = weight_bytes,
                         .scratch_floats = CpuBackend::total_floats(config, batch, threads)}));
  if (!o.engine.quiet) log_plan(plan);
  const uint64_t usable = usable_memory(machine_limits());
  if (plan.total <= usable) return {};
  return Error{Errc::kResourceExhausted,
               str("memory plan: expected at most ", human_bytes(usable), ", found ", human_bytes(plan.total))};
}

Result<Opened> open_synthetic(const BenchOptions& o, const std::vector<BenchCase>& cases, ThreadPool& pool) {
  Opened out;
  LATHE_TRY(const ModelFiles files, ModelFiles::open(o.synthetic));
  LATHE_TRY(const ParsedConfig parsed, files.config());
  for (const std::string& warning : parsed.warnings) log_warning(warning);
  LATHE_TRY(const std::optional<CacheFormat> cache_type, parse_cache_type(o.engine.cache_type));
  out.cache_type = cache_type.value_or(o.engine.compute == "f32" ? CacheFormat::kF32 : CacheFormat::kF16);
  const std::optional<QuantType> type = quant_type_from_name(o.engine.type);
  LATHE_TRY(check_room(parsed.config, o, cases, type, out.cache_type, pool.threads()));
  const double start = now_seconds();
  LATHE_TRY(out.made_up, synthetic_weights(parsed.config, type, kSeed, pool));
  out.load_s = now_seconds() - start;
  out.weights = out.made_up.get();
  out.name = o.synthetic;
  return out;
}

Result<Opened> open_model(const BenchOptions& o, const std::vector<BenchCase>& cases) {
  Opened out;
  EngineFlags flags = o.engine;
  if (flags.ctx_size == 0) {
    LATHE_TRY(const std::filesystem::path folder, model_folder(flags.model));
    LATHE_TRY(const ModelFiles files, ModelFiles::open(folder));
    LATHE_TRY(const ParsedConfig parsed, files.config());
    flags.ctx_size = std::min(ModelBench::positions(parsed.config, cases), parsed.config.max_position_embeddings);
  }
  LATHE_TRY(out.engine, open_engine(flags));
  out.load_s = out.engine->load_seconds();
  out.weights = &out.engine->weights();
  if (out.weights->packed() != nullptr) out.weights->packed()->settle();
  out.cache_type = out.engine->cache_type();
  out.name = flags.model;
  return out;
}

void add_type(BenchedModel& model, const WeightMatrix& matrix) {
  if (!matrix.empty()) model.type_bytes[matrix.dtype] += stored_bytes(matrix);
}

void add_types(BenchedModel& model, const SwigluWeights& w) {
  for (const WeightMatrix* matrix : {&w.gate_proj, &w.up_proj, &w.down_proj}) add_type(model, *matrix);
}

BenchedModel describe(const Opened& opened, const CacheLayout& layout) {
  const ModelWeights& weights = *opened.weights;
  const ModelConfig& config = weights.config();
  const ParameterCounts counts = count_parameters(config);
  BenchedModel out;
  out.name = opened.name;
  out.synthetic = opened.made_up != nullptr;
  out.architecture = config.architecture;
  out.parameters = counts.total;
  out.active_parameters = counts.active;
  out.weight_bytes = weights.stored_bytes();
  out.cache_type = cache_format_name(layout.format);
  out.cache_bytes_per_token = layout.page_bytes() / kPageTokens;
  add_type(out, weights.embed_tokens());
  if (!config.tie_word_embeddings) add_type(out, weights.lm_head());
  for (const LayerWeights& layer : weights.layers()) {
    const MlaWeights& m = layer.mla;
    const GqaWeights& g = layer.gqa;
    for (const WeightMatrix* matrix : {&m.q_proj,
                                       &m.q_a_proj,
                                       &m.q_b_proj,
                                       &m.kv_a_proj_with_mqa,
                                       &m.kv_b_proj,
                                       &m.k_b_proj,
                                       &m.v_b_proj,
                                       &m.o_proj,
                                       &g.q_proj,
                                       &g.k_proj,
                                       &g.v_proj,
                                       &g.o_proj,
                                       &layer.moe.gate}) {
      add_type(out, *matrix);
    }
    add_types(out, layer.dense);
    add_types(out, layer.moe.shared);
    for (const SwigluWeights& expert : layer.moe.experts) add_types(out, expert);
  }
  return out;
}

// Takes the better of what was measured before, since other programs can only take away.
Status measure_machine(BenchMachine& machine, ThreadPool& pool) {
  LATHE_TRY(const Bandwidth bandwidth,
            measure_bandwidth(pool, measurement_buffer_bytes(machine.limits), kMeasureSeconds));
  machine.bandwidth = std::max(machine.bandwidth, bandwidth.all_threads);
  machine.fp32_peak = std::max(machine.fp32_peak, measure_peak(pool, PeakKind::kFp32, kMeasureSeconds / 2).all_threads);
  machine.int8_peak = std::max(machine.int8_peak, measure_peak(pool, PeakKind::kInt8, kMeasureSeconds / 2).all_threads);
  return {};
}

Status check_cases(const BenchOptions& o, const std::vector<BenchCase>& cases) {
  if (cases.empty() && !o.signature) {
    return Error{Errc::kInvalidArgument, "bench: expected --prompt or --gen above 0, found neither"};
  }
  for (const BenchCase& one : cases) {
    if (o.engine.ctx_size == 0 || one.tokens + one.depth <= o.engine.ctx_size) continue;
    return Error{Errc::kInvalidArgument,
                 str("bench: expected at most --ctx-size ",
                     o.engine.ctx_size,
                     " positions, found ",
                     one.tokens,
                     " tokens at depth ",
                     one.depth)};
  }
  return {};
}

// Loads the model, runs the cases and forgets the model.
Status measure_model(const BenchOptions& o,
                     const std::vector<BenchCase>& cases,
                     ThreadPool& pool,
                     BenchReport& report) {
  LATHE_TRY(const Opened opened, o.synthetic.empty() ? open_model(o, cases) : open_synthetic(o, cases, pool));
  LATHE_TRY(const std::unique_ptr<ModelBench> bench,
            ModelBench::create(*opened.weights,
                               pool,
                               kernels(),
                               {.cases = cases,
                                .repeats = static_cast<int>(o.repeat),
                                .batch_tokens = o.batch,
                                .cache_type = opened.cache_type,
                                .seed = kSeed}));
  report.signature = bench->signature();
  report.model = describe(opened, bench->layout());
  report.load_s = opened.load_s;
  StatusLine line(o.engine.quiet);
  report.rows = bench->run([&line](int64_t done, int64_t total, const BenchCase& one) {
    if (!line.due(false)) return;
    line.show(str("bench: ", done, " of ", total, ": ", name_of(one.kind), " ", one.tokens, " at depth ", one.depth),
              false);
  });
  line.clear();
  report.peak_rss_bytes = peak_resident_bytes();
  return {};
}

// The machine is measured without the model: what that takes is not part of the plan.
Result<BenchReport> bench(const BenchOptions& o) {
  const std::vector<BenchCase> cases = o.signature ? std::vector<BenchCase>() : cases_of(o);
  LATHE_TRY(check_cases(o, cases));
  BenchReport report;
  report.repeats = o.repeat;
  report.batch_tokens = o.batch;
  BenchMachine& machine = report.machine;
  machine.limits = machine_limits();
  machine.facts = host_facts({});
  machine.threads = o.engine.threads > 0 ? static_cast<int>(o.engine.threads) : default_thread_count();
  LATHE_TRY(const std::unique_ptr<ThreadPool> pool, ThreadPool::create(machine.threads));
  if (!o.signature) {
    LATHE_TRY(measure_machine(machine, *pool));
    reset_peak_resident();
  }
  LATHE_TRY(measure_model(o, cases, *pool, report));
  if (!o.signature) LATHE_TRY(measure_machine(machine, *pool));
  return report;
}

}  // namespace

int run_bench(const BenchOptions& options) {
  const Result<BenchReport> found = bench(options);
  if (!found) return report(found.error());
  Status written;
  if (!options.signature) {
    written = options.engine.json ? write_json(bench_json(*found)) : write_stdout(bench_text(*found));
  } else if (options.engine.json) {
    Json out = Json::object();
    out.set("signature", found->signature);
    written = write_json(out);
  } else {
    written = write_stdout(found->signature + "\n");
  }
  return written ? kExitOk : report(written.error());
}

}  // namespace lathe::cli
