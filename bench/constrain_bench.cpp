// What a schema costs a decode step: the mask over the whole vocabulary and the acceptance of one token, per token of a
// realistic answer. `warm`: a schema whose masks are known; `cold`: the first answer of a schema; `compile`: the schema
// alone. Every mask is compared with a token-by-token check before anything is timed.
//
//   constrain_bench [--tokenizer=FOLDER] [Google Benchmark's options]
//
// Without a folder the vocabulary is made up: 100,000 tokens of words, numbers, punctuation and parts of code points.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/rng.h"
#include "lathe/constrain/constraint.h"
#include "lathe/constrain/grammar.h"
#include "lathe/constrain/masks.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {
namespace {

constexpr std::string_view kSchema = R"({
  "type": "object", "additionalProperties": false, "required": ["id", "customer", "date", "status", "items", "total"],
  "properties": {
    "id": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{6}$"},
    "customer": {"$ref": "#/$defs/person"},
    "date": {"type": "string", "format": "date"},
    "status": {"enum": ["open", "paid", "shipped", "returned", "cancelled"]},
    "note": {"type": "string", "maxLength": 200},
    "items": {"type": "array", "minItems": 1, "maxItems": 50, "items": {
      "type": "object", "additionalProperties": false, "required": ["title", "price", "count"],
      "properties": {
        "title": {"type": "string"}, "price": {"type": "number", "minimum": 0, "maximum": 100000},
        "count": {"type": "integer", "minimum": 1, "maximum": 999},
        "tags": {"type": "array", "items": {"type": "string"}},
        "extra": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}}}},
    "total": {"type": "number"}},
  "$defs": {"person": {"type": "object", "required": ["name", "email"], "properties": {
    "name": {"type": "string", "minLength": 1, "maxLength": 80}, "email": {"type": "string", "format": "email"},
    "address": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["city"], "properties": {
      "street": {"type": "string"}, "city": {"type": "string"}, "zip": {"type": "string", "pattern": "^\\d{5}$"}}}]}}}}
})";

constexpr std::string_view kAnswer = R"answer({
  "id": "ORD-104233",
  "customer": {
    "name": "Ada Lovelace",
    "email": "ada@analytical.org",
    "address": {"street": "12 St James's Square", "city": "London", "zip": "10115"}
  },
  "date": "2024-02-28",
  "status": "shipped",
  "note": "Please leave the parcel with the neighbours on the second floor; the bell does not work.",
  "items": [
    {"title": "Brass gear wheel, 48 teeth", "price": 12.5, "count": 24, "tags": ["brass", "gear", "spare part"]},
    {"title": "Punched cards (box of 500)", "price": 31, "count": 2, "extra": {"colour": "ivory", "fragile": false}},
    {"title": "Öl für Maschinen 你好", "price": 7.95, "count": 1}
  ],
  "total": 369.95
})answer";

// Words with and without a space before them, numbers, punctuation as JSON has it, bytes and parts of code points.
std::vector<std::string> made_up_vocabulary() {
  static constexpr std::string_view kSyllables[] = {"a",   "be", "con", "da",   "er", "for", "ge", "hi",
                                                    "ing", "ja", "ka",  "le",   "mo", "na",  "or", "pre",
                                                    "qu",  "re", "sta", "tion", "un", "ver"};
  static constexpr std::string_view kMarks[] = {"\"",   "\":",    "\": \"",   "\",", "\", \"", "{",   "{\"", "}",  "},",
                                                "},{",  "[",      "]",        "],",  "[\"",    "\"]", ": ",  ", ", "\n",
                                                "\n  ", "\n    ", "\n      ", "\"}", "\"},",   "'s",  "."};
  Rng rng(1);
  std::vector<std::string> out{""};
  std::map<std::string, bool> known;
  const auto add = [&](std::string token) {
    if (known.emplace(token, true).second) out.push_back(std::move(token));
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const std::string_view mark : kMarks) add(std::string(mark));
  for (int number = 0; number < 1000; ++number) add(std::to_string(number));
  for (int c = 0; c < 20'000; ++c) {
    std::string text{
        static_cast<char>(0xE4 + c / 4096), static_cast<char>(0x80 + c / 64 % 64), static_cast<char>(0x80 + c % 64)};
    add(text);
    if (c % 16 == 0) add(text.substr(0, 2));
  }
  while (out.size() < 100'000) {
    std::string word = rng.next_int(0, 1) == 0 ? " " : "";
    for (int64_t n = rng.next_int(1, 4); n > 0; --n) word += kSyllables[static_cast<size_t>(rng.next_int(0, 21))];
    if (rng.next_int(0, 30) == 0) word += kMarks[static_cast<size_t>(rng.next_int(0, 24))];
    add(std::move(word));
  }
  return out;
}

// What the cases share.
struct Setup {
  Json schema;
  std::shared_ptr<const TokenTable> table;
  std::shared_ptr<const Grammar> grammar;
  std::vector<int32_t> answer;
  std::vector<int32_t> eos;
};

template <class T>
T value_of(Result<T> result) {
  if (result) return *std::move(result);
  std::fprintf(stderr, "constrain_bench: error: %s\n", result.error().message.c_str());
  std::exit(1);
}

// The longest token of the vocabulary at every place.
std::vector<int32_t> longest_tokens(const std::vector<std::string>& vocabulary, std::string_view text) {
  std::unordered_map<std::string, int32_t> ids;
  size_t longest = 1;
  for (size_t id = 1; id < vocabulary.size(); ++id) {
    ids.emplace(vocabulary[id], static_cast<int32_t>(id));
    longest = std::max(longest, vocabulary[id].size());
  }
  std::vector<int32_t> out;
  for (size_t at = 0; at < text.size();) {
    size_t size = std::min(longest, text.size() - at);
    while (!ids.contains(std::string(text.substr(at, size)))) --size;
    out.push_back(ids[std::string(text.substr(at, size))]);
    at += size;
  }
  return out;
}

Setup make_setup(const std::string& folder) {
  Setup out;
  out.schema = value_of(parse_json(kSchema));
  out.grammar = value_of(compile_json_schema(out.schema));
  if (folder.empty()) {
    const std::vector<std::string> vocabulary = made_up_vocabulary();
    out.table = value_of(TokenTable::build(vocabulary, {}));
    out.answer = longest_tokens(vocabulary, kAnswer);
    out.eos = {0};
  } else {
    const Tokenizer tokenizer = value_of(Tokenizer::open(folder));
    out.table = value_of(TokenTable::build(tokenizer, tokenizer.vocabulary_size()));
    out.answer = tokenizer.encode(kAnswer, AddedTokens::kText);
    out.eos = {tokenizer.eos_id().value_or(0)};
  }
  return out;
}

std::shared_ptr<GrammarMasks> fresh_masks(const Setup& s) {
  return value_of(prepare_grammar(s.grammar, s.table));
}

// Every mask on the way through the answer against the slow twin.
void check(const Setup& s) {
  const std::unique_ptr<TokenConstraint> constraint = make_constraint(fresh_masks(s), s.eos);
  Recognizer twin(*s.grammar);
  std::vector<uint64_t> mask(s.table->mask_words());
  int32_t set = twin.start();
  for (const int32_t chosen : s.answer) {
    constraint->allowed(mask);
    for (int32_t id = 0; id < s.table->vocab_size(); ++id) {
      const std::string_view bytes = s.table->bytes(id);
      const bool expected = !bytes.empty() && twin.step(set, bytes) != Recognizer::kDead;
      const bool found = (mask[static_cast<size_t>(id) / 64] >> (static_cast<size_t>(id) % 64) & 1) != 0;
      if (expected != found && id != s.eos[0]) {
        std::fprintf(stderr, "constrain_bench: error: token %d: expected %d, found %d\n", id, expected, found);
        std::exit(1);
      }
    }
    if (!constraint->accept(chosen)) {
      std::fprintf(stderr, "constrain_bench: error: token %d of the answer is not allowed\n", chosen);
      std::exit(1);
    }
    set = twin.step(set, s.table->bytes(chosen));
  }
}

void write_answer(const Setup& s, const std::shared_ptr<GrammarMasks>& masks, std::vector<uint64_t>& mask) {
  const std::unique_ptr<TokenConstraint> constraint = make_constraint(masks, s.eos);
  for (const int32_t id : s.answer) {
    constraint->allowed(mask);
    benchmark::DoNotOptimize(mask.data());
    benchmark::DoNotOptimize(constraint->accept(id));
  }
}

void count_tokens(benchmark::State& state, const Setup& s) {
  const auto tokens = static_cast<double>(s.answer.size());
  state.counters["us_per_token"] =
      benchmark::Counter(tokens * 1e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["tokens"] = tokens;
  state.counters["vocabulary"] = static_cast<double>(s.table->vocab_size());
}

void warm(benchmark::State& state, const Setup& s) {
  const std::shared_ptr<GrammarMasks> masks = fresh_masks(s);
  std::vector<uint64_t> mask(s.table->mask_words());
  write_answer(s, masks, mask);
  for (auto _ : state) write_answer(s, masks, mask);
  count_tokens(state, s);
}

void cold(benchmark::State& state, const Setup& s) {
  std::vector<uint64_t> mask(s.table->mask_words());
  for (auto _ : state) write_answer(s, fresh_masks(s), mask);
  count_tokens(state, s);
}

void compile(benchmark::State& state, const Setup& s) {
  for (auto _ : state) benchmark::DoNotOptimize(compile_json_schema(s.schema));
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  std::string folder;
  constexpr std::string_view kOption = "--tokenizer=";
  if (argc > 1 && std::string_view(argv[1]).starts_with(kOption)) {
    folder = argv[1] + kOption.size();
    argv[1] = argv[0];
    ++argv;
    --argc;
  }
  benchmark::Initialize(&argc, argv);
  const lathe::Setup setup = lathe::make_setup(folder);
  lathe::check(setup);
  using Case = void (*)(benchmark::State&, const lathe::Setup&);
  for (const auto& [name, run] :
       {std::pair<const char*, Case>("compile", lathe::compile), {"cold", lathe::cold}, {"warm", lathe::warm}}) {
    benchmark::RegisterBenchmark(name, [&setup, run = run](benchmark::State& state) {
      run(state, setup);
    })->Unit(benchmark::kMillisecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
