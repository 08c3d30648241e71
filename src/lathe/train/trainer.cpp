#include "lathe/train/trainer.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "lathe/base/clock.h"
#include "lathe/base/cpu.h"
#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/base/str.h"
#include "lathe/base/thread_pool.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/model_files.h"
#include "lathe/train/adamw.h"
#include "lathe/train/model_setup.h"
#include "lathe/train/muon.h"
#include "lathe/train/report.h"
#include "lathe/train/report_runs.h"
#include "lathe/train/resume_check.h"
#include "lathe/train/run_folder.h"
#include "lathe/train/run_log.h"
#include "lathe/train/schedule.h"
#include "lathe/train/spike_guard.h"
#include "lathe/train/step_losses.h"
#include "lathe/train/train_checkpoint.h"
#include "lathe/train/train_model.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

constexpr size_t kRecentLosses = 20;

class Run {
 public:
  Run(const Recipe& recipe, const RunHooks& hooks)
      : recipe_(recipe), hooks_(hooks), output_(recipe.output), schedule_(recipe), guard_(recipe.guard) {}

  Result<RunOutcome> go() {
    LATHE_TRY(const FileLock lock, lock_run_folder(output_));
    LATHE_TRY(const std::optional<fs::path> checkpoint, find_checkpoint());
    LATHE_TRY(prepare());
    if (checkpoint) LATHE_TRY(restore(*checkpoint));
    LATHE_TRY(check_disk());
    LATHE_TRY(RunLog log, RunLog::open(output_ / "metrics.jsonl", state_.step));
    log_ = std::make_unique<RunLog>(std::move(log));
    LATHE_TRY(write_run_record(output_, record(), setup_.json));
    log_settings();
    remove_old_checkpoints(output_, recipe_.checkpoint.keep);
    LATHE_TRY(loop());
    return finish();
  }

  // What the report is made of; after go().
  Result<ReportRun> report() const {
    ReportRun run = record();
    LATHE_TRY(run.lines, read_run_log(output_ / "metrics.jsonl"));
    return run;
  }

 private:
  // Its lines are those of metrics.jsonl.
  ReportRun record() const {
    return {.name = run_name(recipe_),
            .recipe = recipe_json(recipe_),
            .config = setup_.config,
            .parameters = model_->parameters().count(),
            .statistics = corpus_.statistics,
            .lines = {}};
  }

  bool stop_asked() const { return hooks_.stop && hooks_.stop(); }

  Result<std::optional<fs::path>> find_checkpoint() const {
    std::optional<fs::path> latest = latest_checkpoint(output_);
    if (latest && !hooks_.resume) {
      return Error{Errc::kInvalidArgument,
                   str("output: ",
                       output_,
                       ": expected a folder without checkpoints, or --resume to go on, found ",
                       latest->filename())};
    }
    if (!latest && hooks_.resume) log_info("no checkpoint in ", output_, " yet: starting at step 0");
    return latest;
  }

  // Everything that does not depend on where the run stands. Errors of the recipe come before the long work.
  Status prepare() {
    const int threads = recipe_.threads > 0 ? static_cast<int>(recipe_.threads) : default_thread_count();
    LATHE_TRY(const ModelSetup first, set_up_model(recipe_, nullptr));
    LATHE_TRY(check_memory(first.config, threads));
    const fs::path cache = data_folder(recipe_);
    LATHE_TRY(PreparedTokenizer tokenizer, prepare_tokenizer(recipe_, cache, hooks_.stop));
    tokenizer_folder_ = tokenizer.folder;
    LATHE_TRY(corpus_, prepare_corpus(recipe_, tokenizer, cache, hooks_.stop));
    LATHE_TRY(setup_, set_up_model(recipe_, &tokenizer.tokenizer));
    LATHE_TRY(pool_, ThreadPool::create(threads, ThreadPool::kSpinLong));
    LATHE_TRY(model_, TrainModel::create(setup_.config, options_, *pool_, kernels()));
    LATHE_TRY(make_optimizer());
    LATHE_TRY(Loader loader,
              Loader::create(corpus_.train,
                             {.sequence_length = recipe_.train.sequence_length,
                              .cross_documents = recipe_.train.cross_documents,
                              .seed = recipe_.seed}));
    loader_ = std::make_unique<Loader>(std::move(loader));
    if (recipe_.model.from.empty()) {
      model_->initialise(recipe_.seed);
    } else {
      LATHE_TRY(const ModelFiles files, ModelFiles::open(recipe_.model.from));
      LATHE_TRY(const Checkpoint weights, files.checkpoint());
      LATHE_TRY(model_->load(weights, setup_.expansion));
      const std::vector<int64_t>& after = recipe_.model.expand_after;
      log_info("weights: of ", files.path(), after.empty() ? "" : str(", a new layer behind each of ", after));
    }
    evaluation_ = evaluation_rows(corpus_.valid,
                                  recipe_.train.sequence_length,
                                  micro_batch_rows(recipe_.train),
                                  recipe_.eval.tokens,
                                  recipe_.train.cross_documents);
    return {};
  }

  bool with_muon() const { return recipe_.optimizer.kind == OptimizerKind::kMuon; }

  Status make_optimizer() {
    const OptimizerRecipe& o = recipe_.optimizer;
    LATHE_TRY(AdamW optimizer,
              AdamW::create({.beta1 = o.beta1,
                             .beta2 = o.beta2,
                             .epsilon = o.epsilon,
                             .weight_decay = o.weight_decay,
                             .hidden_matrices = !with_muon()},
                            model_->parameters().size(),
                            *pool_,
                            kernels()));
    optimizer_ = std::make_unique<AdamW>(std::move(optimizer));
    if (!with_muon()) return {};
    LATHE_TRY(
        Muon muon,
        Muon::create({.momentum = o.momentum, .weight_decay = o.weight_decay, .iterations = o.newton_schulz_steps},
                     model_->parameters().list(),
                     *pool_,
                     kernels()));
    muon_ = std::make_unique<Muon>(std::move(muon));
    return {};
  }

  // Muon's momenta are where AdamW's first moments of those matrices would be, so checkpoints are alike.
  void update(double rate, double norm) {
    const double factor = AdamW::clip_factor(norm, recipe_.optimizer.clip);
    optimizer_->step(model_->parameters(), rate, factor);
    if (muon_ != nullptr) muon_->step(model_->parameters(), optimizer_->first_moments(), rate, factor);
  }

  // Plans the memory, by which options_ are chosen.
  Status check_memory(const ModelConfig& config, int threads) {
    const uint64_t room = usable_memory(machine_limits());
    LATHE_TRY(options_, train_options(recipe_, config, threads, room));
    LATHE_TRY(const TrainMemory plan, plan_train_memory(config, options_, threads));
    const int64_t muon =
        with_muon() ? Muon::memory_floats(model_parameters(config), threads) * static_cast<int64_t>(sizeof(float)) : 0;
    const auto total = static_cast<uint64_t>(plan.total_with_moments() + muon);
    log_info("memory: values ",
             human_bytes(static_cast<uint64_t>(plan.values)),
             ", gradients ",
             human_bytes(static_cast<uint64_t>(plan.gradients)),
             ", moments ",
             human_bytes(static_cast<uint64_t>(plan.moments())),
             ", activations ",
             human_bytes(static_cast<uint64_t>(plan.activations + muon)),
             " (computed again: ",
             name_of(options_.recompute),
             "), in all ",
             human_bytes(total));
    if (total <= room) return {};
    return Error{Errc::kResourceExhausted,
                 str("memory plan: expected ",
                     human_bytes(total),
                     " for this recipe (train.micro_batch_sequences and train.recompute make it less), found ",
                     human_bytes(room),
                     " available")};
  }

  Status check_disk() const {
    LATHE_TRY(const uint64_t room, free_disk_bytes(output_));
    const uint64_t one = checkpoint_bytes(model_->parameters(), recipe_.checkpoint.dtype);
    // The new one is written before the oldest goes.
    const int64_t most = (recipe_.train.max_steps + recipe_.checkpoint.every - 1) / recipe_.checkpoint.every;
    const int64_t kept = recipe_.checkpoint.keep == 0 ? most : std::min(most, recipe_.checkpoint.keep + 1);
    const uint64_t needed = one * static_cast<uint64_t>(std::max<int64_t>(1, kept - (state_.step > 0 ? 1 : 0)));
    if (needed <= room) return {};
    return Error{Errc::kResourceExhausted,
                 str("output: ",
                     output_,
                     ": expected ",
                     human_bytes(needed),
                     " of free disk for checkpoints of ",
                     human_bytes(one),
                     ", found ",
                     human_bytes(room))};
  }

  Status restore(const fs::path& checkpoint) {
    Result<RunState> state = load_run_state(checkpoint);
    if (!state) return state.error();
    LATHE_TRY(check_same_recipe(state->recipe, recipe_json(recipe_)));
    if (state->corpus != corpus_.name()) {
      return Error{Errc::kInvalidArgument,
                   "--resume: data: expected the text, filters and tokenizer of the checkpoint, found others"};
    }
    LATHE_TRY(load_arrays(checkpoint, model_->parameters(), *optimizer_));
    LATHE_TRY(loader_->restore(state->loader));
    LATHE_TRY(guard_.restore(state->guard));
    state_ = *std::move(state);
    checkpoint_ = checkpoint;
    log_info("going on from ", checkpoint, ": step ", state_.step, " of ", recipe_.train.max_steps);
    return {};
  }

  // Every coefficient in effect, and what it is applied to.
  void log_settings() const {
    const ModelConfig& c = setup_.config;
    log_info("model: ",
             name_of(c.model_type),
             ", ",
             with_commas(model_->parameters().count()),
             " parameters, ",
             c.num_hidden_layers,
             " layers of ",
             c.hidden_size,
             ", ",
             c.n_routed_experts,
             " routed experts, ",
             c.num_experts_per_tok,
             " chosen, ",
             c.n_shared_experts,
             " shared");
    int64_t train_tokens = 0;
    for (const TokenSet& set : corpus_.train) train_tokens += set.tokens();
    log_info("data: ",
             with_commas(train_tokens),
             " training tokens, ",
             with_commas(corpus_.valid.tokens()),
             " validation tokens, vocabulary ",
             c.vocab_size);
    log_info(
        "plan: ",
        recipe_.train.max_steps,
        " steps, ",
        with_commas(schedule_.total_tokens()),
        " tokens, ",
        fixed(static_cast<double>(schedule_.total_tokens()) / static_cast<double>(std::max<int64_t>(train_tokens, 1)),
              2),
        " passes over the data");
    const Json json = recipe_json(recipe_);
    for (const char* section : {"train", "optimizer", "schedule", "balance", "guard", "checkpoint", "eval"}) {
      std::string line = str(section, ':');
      for (const auto& [key, value] : json.find(section)->as_object()) line += str(' ', key, '=', value.dump());
      log_info(line);
    }
  }

  Status loop() {
    const double begun = now_seconds();
    double idle = 0.0;  // evaluation and checkpoints
    const int64_t tokens_before = state_.tokens;
    while (state_.step < recipe_.train.max_steps && !stopped_) {
      StepReport report;
      LATHE_TRY(step(report));
      const double busy = now_seconds() - begun - idle;
      tokens_per_s_ = busy > 0.0 ? static_cast<double>(state_.tokens - tokens_before) / busy : 0.0;
      report.tokens_per_s = tokens_per_s_;
      const auto left = static_cast<double>(schedule_.total_tokens() - state_.tokens);
      report.seconds_left = tokens_per_s_ > 0.0 ? left / tokens_per_s_ : 0.0;
      if (hooks_.step) hooks_.step(report);
      const double pause = now_seconds();
      stopped_ = stop_asked() && state_.step < recipe_.train.max_steps;
      LATHE_TRY(after_step());
      idle += now_seconds() - pause;
    }
    return {};
  }

  // Evaluation and checkpoint where they are due.
  Status after_step() {
    const bool last = state_.step == recipe_.train.max_steps;
    const bool evaluate_now = recipe_.eval.every > 0 && state_.step % recipe_.eval.every == 0;
    if ((evaluate_now || last) && !stopped_) LATHE_TRY(evaluate());
    if (last || stopped_ || state_.step % recipe_.checkpoint.every == 0) LATHE_TRY(save());
    return {};
  }

  Status step(StepReport& report) {
    const int64_t rows = schedule_.rows(state_.tokens);
    const double rate = schedule_.learning_rate(state_.step, state_.tokens);
    const StepLosses losses = forward_backward(rows);
    const double norm = optimizer_->global_norm(model_->parameters());
    const bool bad = guard_.is_bad(losses.mean(), norm);
    if (bad) {
      LATHE_TRY(handle_bad_step(losses.mean(), norm));
    } else {
      update(rate, norm);
      state_.recent_losses.push_back(losses.mean());
      if (state_.recent_losses.size() > kRecentLosses) state_.recent_losses.erase(state_.recent_losses.begin());
    }
    // After a bad step too, since it starts counting anew.
    model_->update_router_biases();
    state_.step += 1;
    state_.tokens += rows * recipe_.train.sequence_length;
    report = {.step = state_.step,
              .max_steps = recipe_.train.max_steps,
              .tokens = state_.tokens,
              .loss = losses.mean(),
              .learning_rate = rate,
              .gradient_norm = norm,
              .load_ratio = losses.load_ratio(),
              .dropped_share = losses.dropped_share(),
              .bad = bad};
    return log_step(report, losses, rows);
  }

  StepLosses forward_backward(int64_t rows) {
    ParameterSet& parameters = model_->parameters();
    parameters.zero_gradients(*pool_);
    StepLosses losses;
    const int64_t micro = micro_batch_rows(recipe_.train);
    const auto all = static_cast<double>(rows * recipe_.train.sequence_length);  // rows are full
    for (int64_t done = 0; done < rows; done += micro) {
      loader_->next(std::min(micro, rows - done), rows_);
      const double share = static_cast<double>(rows_.counted) / all;
      losses.add(model_->forward_backward(rows_.batch(), share), share);
    }
    return losses;
  }

  Status handle_bad_step(double loss, double norm) {
    const std::string what = str("step ",
                                 state_.step + 1,
                                 ": loss ",
                                 fixed(loss, 4),
                                 ", gradient norm ",
                                 fixed(norm, 4),
                                 ", running mean of the loss ",
                                 fixed(guard_.mean(), 4));
    if (recipe_.guard.action == GuardAction::kStop || guard_.in_a_row() >= recipe_.guard.patience) {
      return Error{Errc::kInvalidData,
                   str("guard: ",
                       what,
                       ": expected at most ",
                       recipe_.guard.patience - 1,
                       " such steps in a row, found ",
                       guard_.in_a_row(),
                       "; the last checkpoint is ",
                       checkpoint_.empty() ? std::string("none") : checkpoint_.string())};
    }
    const bool back = recipe_.guard.action == GuardAction::kRollback && !checkpoint_.empty();
    log_warning(what, back ? ": weights of the last checkpoint, data go on" : ": update left out");
    if (back) LATHE_TRY(load_arrays(checkpoint_, model_->parameters(), *optimizer_));
    return {};
  }

  Status log_step(const StepReport& report, const StepLosses& losses, int64_t rows) {
    Json line = Json::object();
    line.set("step", report.step);
    line.set("tokens", report.tokens);
    line.set("rows", rows);
    line.set("loss", report.loss);
    line.set("lr", report.learning_rate);
    line.set("grad_norm", report.gradient_norm);
    line.set("tokens_per_s", tokens_per_s_);
    const TrainLosses& sum = losses.sum();
    line.set("expert_balance", sum.expert_balance);
    line.set("device_balance", sum.device_balance);
    line.set("communication_balance", sum.communication_balance);
    line.set("sequence_balance", sum.sequence_balance);
    line.set("mtp", sum.mtp);
    line.set("load_ratio", report.load_ratio);
    line.set("dropped", report.dropped_share);
    if (report.bad) line.set("bad", true);
    const bool with_load = report.step % recipe_.train.log_every == 0 || report.step == recipe_.train.max_steps;
    if (with_load && !sum.expert_load.empty()) {
      Json load = Json::array();
      for (const std::vector<int64_t>& layer : sum.expert_load) load.push(Json::list(layer));
      line.set("expert_load", std::move(load));
    }
    return log_->add(line);
  }

  Status evaluate() {
    if (evaluation_.empty()) return {};
    double sum = 0.0;
    int64_t targets = 0;
    for (const Rows& rows : evaluation_) {
      const TrainLosses losses = model_->evaluate(rows.batch());
      sum += losses.lm;
      targets += losses.targets;
    }
    state_.valid_loss = sum / static_cast<double>(targets);
    state_.has_valid_loss = true;
    Json line = Json::object();
    line.set("step", state_.step);
    line.set("tokens", state_.tokens);
    line.set("valid_loss", state_.valid_loss);
    line.set("valid_tokens", targets);
    log_info("step ",
             state_.step,
             ": validation loss ",
             fixed(state_.valid_loss, 4),
             " on ",
             with_commas(targets),
             " tokens");
    return log_->add(line);
  }

  Status save() {
    state_.loader = loader_->position();
    state_.guard = guard_.state();
    state_.recipe = recipe_json(recipe_);
    state_.corpus = corpus_.name();
    LATHE_TRY(checkpoint_,
              save_checkpoint(output_,
                              {.config = setup_.json,
                               .tokenizer_folder = tokenizer_folder_,
                               .start_folder = recipe_.model.from,
                               .dtype = recipe_.checkpoint.dtype},
                              state_,
                              model_->parameters(),
                              *optimizer_));
    log_info("saved ", checkpoint_);
    remove_old_checkpoints(output_, recipe_.checkpoint.keep);
    return write_report();
  }

  Status write_report() const {
    LATHE_TRY(const ReportRun run, report());
    return write_report_file(output_, run.name, std::span(&run, 1));
  }

  RunOutcome finish() const {
    double sum = 0.0;
    for (const double loss : state_.recent_losses) sum += loss;
    return {.steps = state_.step,
            .tokens = state_.tokens,
            .train_loss = state_.recent_losses.empty() ? 0.0 : sum / static_cast<double>(state_.recent_losses.size()),
            .valid_loss = state_.valid_loss,
            .has_valid_loss = state_.has_valid_loss,
            .tokens_per_s = tokens_per_s_,
            .checkpoint = checkpoint_,
            .stopped = stopped_};
  }

  const Recipe& recipe_;
  const RunHooks& hooks_;
  fs::path output_;
  Schedule schedule_;
  SpikeGuard guard_;
  fs::path tokenizer_folder_;
  PreparedCorpus corpus_;
  ModelSetup setup_;
  TrainOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<TrainModel> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<Muon> muon_;  // null: AdamW moves everything
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<RunLog> log_;
  std::vector<Rows> evaluation_;
  RunState state_;
  Rows rows_;
  fs::path checkpoint_;
  double tokens_per_s_ = 0.0;
  bool stopped_ = false;
};

}  // namespace

Result<RunOutcome> run_recipe(const Recipe& recipe, const RunHooks& hooks, ReportRun* report) {
  Run run(recipe, hooks);
  LATHE_TRY(RunOutcome outcome, run.go());
  if (report != nullptr) {
    LATHE_TRY(*report, run.report());
  }
  return outcome;
}

}  // namespace lathe::train
