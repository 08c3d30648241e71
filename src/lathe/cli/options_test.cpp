// The command line as a contract: every option is listed here, so that adding one is a visible decision.
#include "lathe/cli/options.h"

#include <gtest/gtest.h>

namespace lathe::cli {
namespace {

Result<Command> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "lathe");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data());
}

TEST(Options, HelpIsAnsweredOnEveryLevel) {
  for (const char* command : {"run",
                              "quantize",
                              "convert",
                              "generate",
                              "inspect",
                              "verify",
                              "tokenize",
                              "template",
                              "eval",
                              "pull",
                              "list",
                              "rm",
                              "doctor",
                              "bench",
                              "train"}) {
    const Result<Command> parsed = parse({command, "--help"});
    ASSERT_TRUE(parsed.has_value()) << command;
    const auto* answered = std::get_if<Answered>(&*parsed);
    ASSERT_NE(answered, nullptr) << command;
    EXPECT_NE(answered->text.find("--help"), std::string::npos) << command;
  }
  EXPECT_TRUE(parse({"--help"}).has_value());
  EXPECT_TRUE(parse({"--version"}).has_value());
}

TEST(Options, UsageErrorsAreOneLineAndNameTheCommand) {
  const std::vector<std::vector<const char*>> cases{
      {},
      {"fly"},
      {"generate"},
      {"generate", "-m", "x", "-p", "a", "--token-ids", "1"},
      {"generate", "-m", "x", "-p", "a", "--top-k", "-1"},
      {"generate", "-m", "x", "-p", "a", "--temperature", "nan"},
      {"generate", "-m", "x", "-p", "a", "-n", "1e3"},
      {"generate", "-m", "x", "-p", "a", "--cache-type", "q3"},
      {"generate", "-m", "x", "-p", "a", "--threads", "0"},
      {"generate", "-m", "x", "-p", "a", "--bogus"},
      {"tokenize", "-m", "x", "--jsonl", "-p", "a"},
      {"run", "--json-schema", "{}", "--json-object"},
      {"generate", "-m", "x", "-p", "a", "--json-schema", "{}", "--json-object"},
      {"serve", "--batch-tokens", "0"},
      {"serve", "--batch-tokens", "8193"},
      {"inspect"},
      {"bench"},
      {"bench", "-m", "x", "--synthetic", "y"},
      {"bench", "-m", "x", "--depth", "0,-1"},
      {"bench", "-m", "x", "--prompt", "5,x"},
      {"bench", "-m", "x", "--repeat", "0"},
      {"bench", "-m", "x", "--batch", "4096"},
      {"eval"},
      {"eval", "logits", "-m", "x"},
      {"eval", "perplexity", "-m", "x", "-f", "y", "--out", "a.svg"},
      {"eval", "perplexity", "-m", "x", "-f", "y", "--by-position", "0"},
      {"eval", "needle"},
      {"eval", "needle", "-m", "x", "--depths", "50,101"},
      {"eval", "needle", "-m", "x", "--lengths", "0"},
      {"eval", "needle", "-m", "x", "--samples", "0"},
      {"train"},
      {"train", "r.toml", "--set"}};
  for (const std::vector<const char*>& arguments : cases) {
    const Result<Command> parsed = parse(arguments);
    ASSERT_FALSE(parsed.has_value()) << (arguments.empty() ? "" : arguments.back());
    EXPECT_EQ(parsed.error().code, Errc::kInvalidArgument);
    EXPECT_EQ(parsed.error().message.find('\n'), std::string::npos) << parsed.error().message;
    if (arguments.size() > 1) {
      EXPECT_TRUE(parsed.error().message.starts_with(arguments.front())) << parsed.error().message;
    }
  }
}

TEST(Options, ConversionsNeedSourceDestinationAndKind) {
  for (const std::vector<const char*>& wrong :
       std::vector<std::vector<const char*>>{{"quantize", "a", "b.gguf"},
                                             {"quantize", "a", "--type", "q8_0"},
                                             {"quantize", "a", "b.gguf", "--type", "q3_k"},
                                             {"convert", "a", "b"},
                                             {"convert", "a", "b", "--to", "onnx"},
                                             {"convert", "a", "b", "--to", "hf", "--dtype", "q8_0"}}) {
    const Result<Command> parsed = parse(wrong);
    ASSERT_FALSE(parsed.has_value()) << wrong.back();
    EXPECT_EQ(parsed.error().code, Errc::kInvalidArgument);
  }
  const Result<Command> quantize =
      parse({"quantize", "a", "b.gguf", "--type", "q4_k_m", "-t", "3", "--allow-requantize", "--json", "-q"});
  ASSERT_TRUE(quantize.has_value()) << quantize.error().message;
  const auto& q = std::get<QuantizeOptions>(*quantize);
  EXPECT_EQ(q.source, "a");
  EXPECT_EQ(q.destination, "b.gguf");
  EXPECT_EQ(q.type, "q4_k_m");
  EXPECT_EQ(q.threads, 3);
  EXPECT_TRUE(q.allow_requantize && q.json && q.quiet);
  const Result<Command> convert = parse({"convert", "a", "b", "--to", "hf", "--dtype", "f32"});
  ASSERT_TRUE(convert.has_value()) << convert.error().message;
  EXPECT_EQ(std::get<ConvertOptions>(*convert).to, "hf");
  EXPECT_EQ(std::get<ConvertOptions>(*convert).dtype, "f32");
}

TEST(Options, ValuesReachTheirFields) {
  const Result<Command> parsed =
      parse({"generate", "-m",           "dir",    "--token-ids", "1,2", "-n",           "7",   "--temperature",
             "0",        "--top-k",      "5",      "--top-p",     "0.9", "--min-p",      "0.1", "--seed",
             "42",       "--stop",       "a",      "--stop",      "b",   "--min-tokens", "3",   "--json-schema",
             "{}",       "--ignore-eos", "--json", "-t",          "2",   "-c",           "100", "--cache-type",
             "bf16",     "--compute",    "f32",    "--logprobs",  "3"});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const auto& o = std::get<GenerateOptions>(*parsed);
  EXPECT_EQ(o.engine.model, "dir");
  EXPECT_EQ(o.token_ids, "1,2");
  EXPECT_EQ(o.max_tokens, 7);
  EXPECT_EQ(o.min_tokens, 3);
  EXPECT_EQ(o.format.json_schema, "{}");
  EXPECT_EQ(o.sampling.temperature, 0.0);
  EXPECT_EQ(o.sampling.top_k, 5);
  EXPECT_EQ(o.sampling.top_p, 0.9);
  EXPECT_EQ(o.sampling.min_p, 0.1);
  EXPECT_EQ(o.sampling.seed, 42U);
  EXPECT_EQ(o.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(o.ignore_eos);
  EXPECT_TRUE(o.engine.json);
  EXPECT_EQ(o.engine.threads, 2);
  EXPECT_EQ(o.engine.ctx_size, 100);
  EXPECT_EQ(o.engine.cache_type, "bf16");
  EXPECT_EQ(o.engine.compute, "f32");
  EXPECT_EQ(o.logprobs, 3);
}

TEST(Options, RepeatedSettingsOfARecipe) {
  const Result<Command> parsed = parse({"train", "--set", "a.b=1", "r.toml", "--set", "c=[1, 2]", "--resume"});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const auto& options = std::get<TrainCommandOptions>(*parsed);
  EXPECT_EQ(options.recipe, "r.toml");
  EXPECT_EQ(options.set, (std::vector<std::string>{"a.b=1", "c=[1, 2]"}));
  EXPECT_TRUE(options.resume);
}

TEST(Options, ListsOfTheBenchmark) {
  const Result<Command> parsed = parse({"bench",
                                        "-m",
                                        "dir",
                                        "--prompt",
                                        "128,512",
                                        "--depth",
                                        "0,4096,16384",
                                        "--repeat",
                                        "3",
                                        "--gen",
                                        "0",
                                        "--signature",
                                        "--batch",
                                        "2048"});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const auto& o = std::get<BenchOptions>(*parsed);
  EXPECT_EQ(o.engine.model, "dir");
  EXPECT_EQ(o.prompt, (std::vector<int64_t>{128, 512}));
  EXPECT_EQ(o.depth, (std::vector<int64_t>{0, 4096, 16384}));
  EXPECT_EQ(o.repeat, 3);
  EXPECT_EQ(o.gen, 0);
  EXPECT_EQ(o.batch, 2048);
  EXPECT_TRUE(o.signature);
  const Result<Command> plain = parse({"bench", "--synthetic", "config.json"});
  ASSERT_TRUE(plain.has_value()) << plain.error().message;
  EXPECT_EQ(std::get<BenchOptions>(*plain).prompt, (std::vector<int64_t>{512}));
  EXPECT_EQ(std::get<BenchOptions>(*plain).depth, (std::vector<int64_t>{0}));
}

TEST(Options, ListsOfTheNeedleTest) {
  const Result<Command> parsed = parse({"eval",
                                        "needle",
                                        "-m",
                                        "dir",
                                        "--lengths",
                                        "1024,4096",
                                        "--depths",
                                        "0,50,100",
                                        "--samples",
                                        "3",
                                        "--seed",
                                        "9",
                                        "-f",
                                        "text",
                                        "--out",
                                        "a.html",
                                        "--plain",
                                        "--json"});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const auto& o = std::get<EvalNeedleOptions>(*parsed);
  EXPECT_EQ(o.engine.model, "dir");
  EXPECT_EQ(o.lengths, (std::vector<int64_t>{1024, 4096}));
  EXPECT_EQ(o.depths, (std::vector<int64_t>{0, 50, 100}));
  EXPECT_EQ(o.samples, 3);
  EXPECT_EQ(o.seed, 9U);
  EXPECT_EQ(o.file, "text");
  EXPECT_EQ(o.out, "a.html");
  EXPECT_TRUE(o.plain && o.engine.json);
}

TEST(Options, VariablesFillInAndTheCommandLineWins) {
  ::setenv("LATHE_THREADS", "3", 1);     // NOLINT(concurrency-mt-unsafe)
  ::setenv("LATHE_MAX_TOKENS", "9", 1);  // NOLINT(concurrency-mt-unsafe)
  const Result<Command> parsed = parse({"generate", "-m", "dir", "-p", "x", "-n", "4"});
  ::unsetenv("LATHE_THREADS");     // NOLINT(concurrency-mt-unsafe)
  ::unsetenv("LATHE_MAX_TOKENS");  // NOLINT(concurrency-mt-unsafe)
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(std::get<GenerateOptions>(*parsed).engine.threads, 3);
  EXPECT_EQ(std::get<GenerateOptions>(*parsed).max_tokens, 4);
}

}  // namespace
}  // namespace lathe::cli
