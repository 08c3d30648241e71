// The program: parses the command line, runs one subcommand, turns what went wrong into one line and an exit code.
#include <csignal>
#include <cstdio>
#include <new>
#include <variant>

#include "lathe/base/file.h"
#include "lathe/base/log.h"
#include "lathe/cli/common.h"
#include "lathe/cli/options.h"
#include "lathe/kernels/kernel_table.h"

namespace lathe::cli {
namespace {

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};

template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

int run_command(const Command& command) {
  return std::visit(Overloaded{[](const Answered& answered) {
                                 const Status written = write_stdout(answered.text);
                                 return written ? kExitOk : report(written.error());
                               },
                               [](const RunOptions& options) { return run_run(options); },
                               [](const ServeOptions& options) { return run_serve(options); },
                               [](const GenerateOptions& options) { return run_generate(options); },
                               [](const InspectOptions& options) { return run_inspect(options); },
                               [](const VerifyOptions& options) { return run_verify(options); },
                               [](const TokenizeOptions& options) { return run_tokenize(options); },
                               [](const TemplateOptions& options) { return run_template(options); },
                               [](const EvalLogitsOptions& options) { return run_eval_logits(options); },
                               [](const EvalPerplexityOptions& options) { return run_eval_perplexity(options); },
                               [](const EvalNeedleOptions& options) { return run_eval_needle(options); },
                               [](const PullOptions& options) { return run_pull(options); },
                               [](const ListOptions& options) { return run_list(options); },
                               [](const RmOptions& options) { return run_rm(options); },
                               [](const DoctorOptions& options) { return run_doctor(options); },
                               [](const QuantizeOptions& options) { return run_quantize(options); },
                               [](const ConvertOptions& options) { return run_convert(options); },
                               [](const BenchOptions& options) { return run_bench(options); },
                               [](const TrainCommandOptions& options) { return run_train(options); }},
                    command);
}

int run_program(int argc, const char* const* argv) {
  install_map_guard();
  // A closed pipe or a file size limit becomes an error of the write, not a signal.
  (void)std::signal(SIGPIPE, SIG_IGN);  // NOLINT(concurrency-mt-unsafe)
  (void)std::signal(SIGXFSZ, SIG_IGN);  // NOLINT(concurrency-mt-unsafe)
  const Result<Command> command = parse_command_line(argc, argv);
  if (!command) return report(command.error());
  if (!std::holds_alternative<Answered>(*command)) {
    (void)kernels();
    if (!isa_error().empty()) return report(Error{Errc::kInvalidArgument, std::string(isa_error())});
  }
  return run_command(*command);
}

}  // namespace
}  // namespace lathe::cli

int main(int argc, char** argv) {
  // Lathe throws nothing, but the standard library does when memory runs out.
  try {
    return lathe::cli::run_program(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("lathe: error: memory: expected enough for this model and request, found none left\n", stderr);
    return lathe::cli::kExitFailure;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lathe: error: internal: %s\n", error.what());
    return lathe::cli::kExitFailure;
  }
}
