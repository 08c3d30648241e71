// lathe verify: nothing about this checkpoint is silently wrong.
#include "lathe/base/env.h"
#include "lathe/base/log.h"
#include "lathe/cli/common.h"
#include "lathe/cli/verify_checks.h"
#include "lathe/model/model_files.h"
#include "lathe/model/shapes.h"

namespace lathe::cli {

namespace {

std::string_view name_of_status(CheckStatus status) {
  switch (status) {
    case CheckStatus::kOk:
      return "ok";
    case CheckStatus::kWarning:
      return "warn";
    case CheckStatus::kFailed:
      return "FAIL";
  }
  return "FAIL";
}

// Binds the tensors; quantised ones are packed first, as the engine does.
Result<std::unique_ptr<const ModelWeights>> bind_weights(const ModelConfig& config,
                                                         Checkpoint checkpoint,
                                                         ThreadPool& pool) {
  LATHE_TRY(PackedPlan plan, plan_packing(config, checkpoint, std::nullopt));
  LATHE_TRY(std::shared_ptr<const PackedWeights> packed,
            PackedWeights::open(
                std::move(plan), checkpoint, pool, {.cache_folder = lathe_cache_directory(), .on_progress = {}}));
  return ModelWeights::bind(config, std::make_shared<const Checkpoint>(std::move(checkpoint)), std::move(packed));
}

std::unique_ptr<const ModelWeights> verify_tensors(const ModelFiles& files,
                                                   const ModelConfig& config,
                                                   ThreadPool& pool,
                                                   VerifyReport& report) {
  Result<Checkpoint> checkpoint = files.checkpoint();
  if (!checkpoint) {
    report.failed("container", checkpoint.error().message);
    return nullptr;
  }
  const auto count = static_cast<int64_t>(checkpoint->tensors().size());
  report.ok("container",
            str(with_commas(count), " tensors, ", human_bytes(checkpoint->total_bytes()), ", header and ranges valid"));
  Result<std::unique_ptr<const ModelWeights>> weights = bind_weights(config, std::move(*checkpoint), pool);
  if (!weights) {
    report.failed("tensors", weights.error().message);
    return nullptr;
  }
  const ModelWeights& w = **weights;
  const auto expected = static_cast<int64_t>(expected_tensors(config).size());
  std::string detail =
      str("all ", with_commas(expected), " expected ones present, of the right shape and a usable dtype");
  if (w.mtp_tensors() > 0) detail += str("; ", w.mtp_tensors(), " of multi-token prediction layers skipped");
  report.ok("tensors", detail);
  for (const std::string& warning : w.warnings()) report.warning("tensors", warning);
  if (!w.unused_tensors().empty()) {
    report.warning("tensors",
                   str(w.unused_tensors().size(),
                       " tensors are not part of this model, e.g. ",
                       quoted(w.unused_tensors().front())));
  }
  return std::move(*weights);
}

Status run_checks(const std::filesystem::path& folder, int threads, VerifyReport& report) {
  const Result<ModelFiles> opened = ModelFiles::open(folder);
  if (!opened) {
    report.failed("container", opened.error().message);
    return {};
  }
  const ModelFiles& files = *opened;
  Result<ParsedConfig> parsed = files.config();
  if (!parsed) {
    report.failed("config", parsed.error().message);
    return {};
  }
  const ModelConfig& config = parsed->config;
  report.ok("config",
            str(config.architecture,
                " (",
                name_of(config.model_type),
                "), ",
                config.num_hidden_layers,
                " layers of ",
                config.hidden_size,
                ", every known field in range and consistent"));
  for (const std::string& warning : parsed->warnings) report.warning("config", warning);
  if (const Result<GenerationDefaults> defaults = files.generation_defaults(); !defaults) {
    report.failed("generation config", defaults.error().message);
  }
  verify_formulas(config, report);
  std::optional<Tokenizer> storage;
  const Tokenizer* tokenizer = verify_tokenizer(files, config, storage, report);
  LATHE_TRY(const std::unique_ptr<ThreadPool> pool, ThreadPool::create(threads));
  const std::unique_ptr<const ModelWeights> weights = verify_tensors(files, config, *pool, report);
  if (weights == nullptr) return {};
  verify_finite(*weights, *pool, report);
  // Numbers that are not finite would only be reported again, less clearly.
  if (report.first_failure() == nullptr) verify_logits(*weights, tokenizer, *pool, report);
  return {};
}

Status print(const VerifyReport& report, const std::filesystem::path& folder, bool json) {
  if (json) {
    Json checks = Json::array();
    for (const Check& check : report.checks()) {
      Json one = Json::object();
      one.set("name", check.name);
      one.set("status", check.status == CheckStatus::kFailed ? "fail" : name_of_status(check.status));
      one.set("detail", check.detail);
      checks.push(std::move(one));
    }
    Json out = Json::object();
    out.set("model", folder.string());
    out.set("ok", report.first_failure() == nullptr);
    out.set("checks", std::move(checks));
    return write_json(out);
  }
  std::string text;
  for (const Check& check : report.checks()) {
    std::string start = str(name_of_status(check.status), "    ");
    start.resize(6, ' ');
    start += check.name;
    start.resize(std::max<size_t>(start.size() + 1, 28), ' ');
    text += start + check.detail + "\n";
  }
  return write_stdout(text);
}

Result<int> verify(const VerifyOptions& o) {
  LATHE_TRY(const std::filesystem::path folder, model_folder(o.engine.model));
  VerifyReport report;
  const int threads = o.engine.threads > 0 ? static_cast<int>(o.engine.threads) : default_thread_count();
  LATHE_TRY(run_checks(folder, threads, report));
  LATHE_TRY(print(report, folder, o.engine.json));
  const Check* failure = report.first_failure();
  if (failure == nullptr) return kExitOk;
  return Error{Errc::kInvalidData, str("verify: ", failure->name, ": ", failure->detail)};
}

}  // namespace

int run_verify(const VerifyOptions& options) {
  const Result<int> code = verify(options);
  return code ? *code : report(code.error());
}

}  // namespace lathe::cli
