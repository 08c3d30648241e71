// Masks and constraints against a slow twin: token by token through the recognizer, on random schemas, vocabularies and
// texts.
#include "lathe/constrain/masks.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/rng.h"
#include "lathe/constrain/constraint.h"
#include "support/grammar.h"

namespace lathe {
namespace {

using test::json;

constexpr int32_t kEos = 0;

// Tokens 1 to 256 are the bytes; the others span symbols of JSON, parts of code points and whole values.
std::vector<std::string> vocabulary(Rng& rng, int64_t size) {
  static const std::vector<std::string> kPieces = {
      "\"",   "\":",        "\": ",  "\",",     "\", \"",  "{\"",      "\"}",      "\"}]",     "}",
      "},",   "]",          "],",    "[",       "[[",      "{",        ":",        ",",        ", ",
      "\n",   "\n  ",       "\n\n",  "  ",      " ",       "\\",       "\\u",      "\\n",      "\\u00",
      "true", "false",      "null",  "nul",     "a",       "ab",       "abc",      "b",        "c",
      "a\":", "b\": ",      "\"a\"", "\"a\":1", "\"ab\":", "0",        "1",        "12",       "123",
      "0.5",  "-1",         "1,",    "1}",      "e9",      "\xC3",     "\xA9",     "\xC3\xA9", "\xF0",
      "\x9F", "\xF0\x9F",   "\xE2",  "\x80",    "\xFF",    "\xED\xA0", "\":\"",    "\"\"",     "{}",
      "[]",   "{\"a\":[1,", "}}",    "a\",\"",  "x\":{\"", "\\\"",     "\":\":\"", "}}}}",     "]]"};
  std::vector<std::string> tokens{""};
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  while (std::ssize(tokens) < size) {
    std::string token;
    for (int64_t parts = rng.next_int(1, 3); parts > 0; --parts) {
      token += kPieces[static_cast<size_t>(rng.next_int(0, std::ssize(kPieces) - 1))];
    }
    tokens.push_back(token);
  }
  return tokens;
}

// Schemas that use every kind of rule: counters, patterns, keys, recursion, ambiguity.
class RandomSchemas {
 public:
  explicit RandomSchemas(Rng& rng) : rng_(&rng) {}

  Json any(int depth) {
    switch (rng_->next_int(0, depth > 0 ? 11 : 5)) {
      case 0:
        return json(R"({"type":"null"})");
      case 1:
        return json(R"({"enum":["a","ab","abc",1,12,null]})");
      case 2:
        return number();
      case 3:
        return string();
      case 4:
        return json(R"({"type":["boolean","integer","string"]})");
      case 5:
        return json(R"({"type":"number"})");
      case 6:
      case 7:
      case 8:
        return object(depth);
      case 9:
        return array(depth);
      case 10: {
        Json out;
        out.set("anyOf", Json::Array{any(depth - 1), any(depth - 1), any(depth - 1)});
        return out;
      }
      default: {
        Json out;
        out.set("$ref", "#");
        return any_of_null(std::move(out));
      }
    }
  }

 private:
  static Json any_of_null(Json schema) {
    Json out;
    out.set("anyOf", Json::Array{std::move(schema), json(R"({"type":"null"})")});
    return out;
  }

  bool chance(int64_t of) { return rng_->next_int(0, of - 1) == 0; }

  Json number() {
    Json out;
    out.set("type", chance(2) ? "integer" : "number");
    if (chance(2)) out.set("minimum", rng_->next_int(-20, 5));
    if (chance(2)) out.set("maximum", rng_->next_int(5, 130));
    if (chance(3)) out.set("type", "integer").set("multipleOf", rng_->next_int(1, 9));
    return out;
  }

  Json string() {
    static constexpr std::array kPatterns = {"^[ab]*c$", "b", "^(a|ab)(c|bcd)*$", "^\\w{2,5}$", "^[^a]+$", "\\d$"};
    Json out = json(R"({"type":"string"})");
    if (chance(2)) out.set("pattern", kPatterns[static_cast<size_t>(rng_->next_int(0, std::ssize(kPatterns) - 1))]);
    if (chance(3)) out.set("minLength", rng_->next_int(0, 4)).set("maxLength", rng_->next_int(4, 9));
    return out;
  }

  Json array(int depth) {
    Json out = json(R"({"type":"array"})");
    if (!chance(3)) out.set("items", any(depth - 1));
    if (chance(2)) out.set("minItems", rng_->next_int(0, 3));
    if (chance(2)) out.set("maxItems", rng_->next_int(3, 6));
    if (chance(4)) out.set("prefixItems", Json::Array{any(depth - 1), any(depth - 1)});
    return out;
  }

  Json object(int depth) {
    Json out = json(R"({"type":"object"})");
    Json properties = Json::object(), required = Json::array();
    for (const char* key : {"a", "ab", "b\"c"}) {
      if (chance(2)) continue;
      properties.set(key, any(depth - 1));
      if (chance(2)) required.push(key);
    }
    const bool named = !properties.as_object().empty();
    if (named) out.set("properties", properties).set("required", required);
    switch (rng_->next_int(0, 3)) {
      case 0:
        out.set("additionalProperties", any(depth - 1));
        break;
      case 1:
        out.set("additionalProperties", json(R"({"type":"integer"})"));
        if (!named) out.set("minProperties", rng_->next_int(0, 3)).set("maxProperties", rng_->next_int(3, 5));
        break;
      case 2:
        out.set("patternProperties", json(R"({"^a":{"type":"integer"},"b$":{"type":["string","integer"]}})"));
        break;
      default:
        break;
    }
    return out;
  }

  Rng* rng_;
};

std::vector<uint64_t> mask_of(TokenConstraint& constraint, const TokenTable& table) {
  std::vector<uint64_t> mask(table.mask_words(), ~uint64_t{0});
  constraint.allowed(mask);
  return mask;
}

bool has(const std::vector<uint64_t>& mask, int32_t id) {
  return (mask[static_cast<size_t>(id) / 64] >> (static_cast<size_t>(id) % 64) & 1) != 0;
}

// Writes one text token by token, comparing every mask with what the recognizer says of every token. Tokens that end
// something are preferred towards the end. False where the text did not end within the limit.
bool write_and_compare(const Grammar& grammar,
                       const std::shared_ptr<GrammarMasks>& masks,
                       const TokenTable& table,
                       Rng& rng,
                       std::string& text) {
  const std::unique_ptr<TokenConstraint> constraint = make_constraint(masks, {kEos});
  Recognizer twin(grammar);
  int32_t set = twin.start();
  for (int step = 0; step < 60; ++step) {
    const std::vector<uint64_t> mask = mask_of(*constraint, table);
    std::vector<int32_t> allowed;
    for (int32_t id = 1; id < table.vocab_size(); ++id) {
      const bool expected = twin.step(set, table.bytes(id)) != Recognizer::kDead;
      if (expected) allowed.push_back(id);
      if (has(mask, id) != expected) {
        ADD_FAILURE() << "behind " << text << ": token " << table.bytes(id) << " expected " << expected;
        return true;
      }
    }
    EXPECT_EQ(has(mask, kEos), twin.set(set).complete) << text;
    EXPECT_EQ(constraint->finished(), allowed.empty() && twin.set(set).complete) << text;
    if (twin.set(set).complete && (allowed.empty() || rng.next_int(0, 3) == 0)) return true;
    if (allowed.empty()) {
      ADD_FAILURE() << "nothing may follow " << text;
      return true;
    }
    int32_t id = allowed[static_cast<size_t>(rng.next_int(0, std::ssize(allowed) - 1))];
    if (step > 20) {
      for (const int32_t other : allowed) {
        if (table.bytes(other).find_first_of("\"]}") != std::string_view::npos) id = other;
      }
    }
    EXPECT_TRUE(twin.set(set).complete || !constraint->accept(kEos)) << text;
    EXPECT_TRUE(constraint->accept(id)) << text;
    set = twin.step(set, table.bytes(id));
    text += table.bytes(id);
  }
  return false;
}

TEST(Masks, EqualTheSlowTwinOnRandomSchemas) {
  int finished = 0, written = 0;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Rng rng(seed);
    const Json schema = RandomSchemas(rng).any(3);
    const auto grammar = compile_json_schema(schema);
    if (!grammar) {  // such as a type that is not there; never an accident
      EXPECT_EQ(grammar.error().code, Errc::kInvalidArgument) << schema.dump() << "\n" << grammar.error().message;
      continue;
    }
    SCOPED_TRACE(schema.dump());
    const auto table = TokenTable::build(vocabulary(rng, 600), {});
    ASSERT_TRUE(table) << table.error().message;
    const auto masks = prepare_grammar(*grammar, *table);
    ASSERT_TRUE(masks) << masks.error().message;
    for (int i = 0; i < 3; ++i) {
      std::string text;
      ++written;
      if (!write_and_compare(**grammar, *masks, **table, rng, text)) continue;
      ++finished;
      const Result<Json> value = parse_json(text);
      EXPECT_TRUE(value) << text << "\n" << value.error().message;
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(written, 300);
  EXPECT_GT(finished, written / 2);
}

// A vocabulary without some bytes: what cannot be written is not begun.
TEST(Masks, LeadNowhereOnlyWhereTheVocabularyGoes) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Rng rng(seed);
    std::vector<std::string> tokens{""};
    for (const char c : std::string_view("{}[]:,\"abc1290-. \n\\untrefals")) tokens.emplace_back(1, c);
    for (const char* token : {"\"a\"", "\xC3", "ab\":", "\xC3\xA9", "\"}"}) tokens.emplace_back(token);
    const auto grammar = compile_json_schema(RandomSchemas(rng).any(3));
    if (!grammar) continue;
    const auto table = TokenTable::build(tokens, {});
    const auto masks = prepare_grammar(*grammar, *table);
    if (!masks) {
      EXPECT_EQ(masks.error().code, Errc::kUnsupported);
      continue;
    }
    std::string text;
    write_and_compare((*masks)->grammar(), *masks, **table, rng, text);
    if (HasFailure()) return;
  }
}

TEST(Masks, AVocabularyThatCannotWriteIsRefused) {
  const auto table = TokenTable::build(std::vector<std::string>{"", "a", "\""}, {});
  const auto masks = prepare_grammar(test::compile(R"({"type":"integer"})"), *table);
  ASSERT_FALSE(masks);
  EXPECT_EQ(masks.error().code, Errc::kUnsupported);
  EXPECT_EQ(masks.error().message, "grammar: expected a vocabulary that can write it, found one without the bytes");
}

std::shared_ptr<const TokenTable> byte_table(std::vector<std::string> more) {
  std::vector<std::string> tokens{""};
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.insert(tokens.end(), more.begin(), more.end());
  return *TokenTable::build(tokens, {});
}

TEST(Constraint, EndsOnlyWhereTheValueIsComplete) {
  const auto table = byte_table({});
  const auto constraint = *make_constraint(test::compile(R"({"type":"integer"})"), table, {kEos});
  EXPECT_FALSE(has(mask_of(*constraint, *table), kEos));
  EXPECT_FALSE(constraint->accept(kEos));
  EXPECT_FALSE(constraint->accept('a' + 1));
  EXPECT_TRUE(constraint->accept('1' + 1));
  EXPECT_TRUE(has(mask_of(*constraint, *table), kEos));
  EXPECT_TRUE(has(mask_of(*constraint, *table), '2' + 1));
  EXPECT_FALSE(constraint->finished());
  EXPECT_TRUE(constraint->accept(kEos));
  EXPECT_TRUE(constraint->finished());
  EXPECT_FALSE(constraint->accept('1' + 1));
  EXPECT_FALSE(constraint->accept(-1));
}

TEST(Constraint, AValueThatCannotGoOnIsFinished) {
  const auto table = byte_table({});
  const auto constraint = *make_constraint(test::compile(R"({"const":true})"), table, {kEos});
  for (const char c : std::string_view("true")) EXPECT_TRUE(constraint->accept(c + 1));
  EXPECT_TRUE(constraint->finished());
  const std::vector<uint64_t> mask = mask_of(*constraint, *table);
  for (int32_t id = 0; id < table->vocab_size(); ++id) EXPECT_EQ(has(mask, id), id == kEos) << id;
}

TEST(Constraint, PartsOfACodePointFitTogether) {
  const auto table = byte_table({"\xF0\x9F", "\x98\x80\"", "\x98", "\xA0\x80"});
  const auto constraint = *make_constraint(test::compile(R"({"type":"string","maxLength":1})"), table, {kEos});
  EXPECT_TRUE(constraint->accept('"' + 1));
  EXPECT_TRUE(constraint->accept(257));  // the first half
  std::vector<uint64_t> mask = mask_of(*constraint, *table);
  EXPECT_TRUE(has(mask, 258));  // the rest with the quote
  EXPECT_TRUE(has(mask, 259));
  EXPECT_TRUE(has(mask, 260));
  EXPECT_FALSE(has(mask, '"' + 1));
  EXPECT_TRUE(constraint->accept(259));
  EXPECT_TRUE(constraint->accept(0x80 + 1));
  mask = mask_of(*constraint, *table);
  for (int32_t id = 0; id < table->vocab_size(); ++id) EXPECT_EQ(has(mask, id), id == '"' + 1) << id;
}

TEST(Constraint, ATokenMayHoldAWholeObject) {
  const auto table = byte_table({"{\"a\": 1, \"b\": [", "true]}", "{\"a\": 1, \"b\": [2"});
  const char* schema =
      R"({"type":"object","properties":{"a":{"const":1},"b":{"type":"array","items":{"type":"boolean"}}},"required":["a","b"]})";
  const auto constraint = *make_constraint(test::compile(schema), table, {kEos});
  EXPECT_TRUE(has(mask_of(*constraint, *table), 257));
  EXPECT_FALSE(has(mask_of(*constraint, *table), 259));
  EXPECT_FALSE(constraint->accept(259));
  EXPECT_TRUE(constraint->accept(257));
  EXPECT_TRUE(constraint->accept(258));
  EXPECT_TRUE(constraint->finished());
}

TEST(Constraint, KeysNeverComeTwice) {
  const auto table = byte_table({"\"k\":", "\"k\":1,", "k\":1"});
  const char* schema = R"({"type":"object","additionalProperties":{"type":"integer"}})";
  const auto constraint = *make_constraint(test::compile(schema), table, {kEos});
  for (const char c : std::string_view("{\"k\":1,")) ASSERT_TRUE(constraint->accept(c + 1));
  const std::vector<uint64_t> mask = mask_of(*constraint, *table);
  for (const int32_t id : {257, 258}) EXPECT_FALSE(has(mask, id)) << id;
  ASSERT_TRUE(constraint->accept('"' + 1));
  EXPECT_FALSE(has(mask_of(*constraint, *table), 259));
  ASSERT_TRUE(constraint->accept('k' + 1));
  EXPECT_FALSE(has(mask_of(*constraint, *table), '"' + 1));
  EXPECT_TRUE(has(mask_of(*constraint, *table), 'k' + 1));
}

TEST(Constraint, BeginsBehindAMarker) {
  const auto table = byte_table({"</think>"});
  auto inner = *make_constraint(test::compile(R"({"const":1})"), table, {kEos});
  const auto constraint = constrain_after(257, std::move(inner), table, {kEos});
  EXPECT_FALSE(has(mask_of(*constraint, *table), kEos));
  EXPECT_TRUE(has(mask_of(*constraint, *table), 'x' + 1));
  EXPECT_FALSE(constraint->accept(kEos));
  EXPECT_TRUE(constraint->accept('x' + 1));
  EXPECT_TRUE(constraint->accept(257));
  EXPECT_FALSE(has(mask_of(*constraint, *table), 'x' + 1));
  EXPECT_TRUE(constraint->accept('1' + 1));
  EXPECT_TRUE(constraint->finished());
}

// Long texts do not make the recognizer grow without end, and what it forgets it does not need.
TEST(Constraint, LongTextsKeepTheirMeaning) {
  const auto table = byte_table({});
  const auto constraint = *make_constraint(test::compile(R"({"type":"object"})"), table, {kEos});
  std::string text = "{";
  for (int i = 0; i < 3000; ++i) text += "\"key" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  for (const char c : text) ASSERT_TRUE(constraint->accept(static_cast<unsigned char>(c) + 1));
  for (const char c : std::string_view("\"key7")) ASSERT_TRUE(constraint->accept(c + 1));
  EXPECT_FALSE(has(mask_of(*constraint, *table), '"' + 1));
  EXPECT_FALSE(constraint->accept('"' + 1));
  for (const char c : std::string_view("x\":0}")) ASSERT_TRUE(constraint->accept(c + 1));
  EXPECT_TRUE(constraint->finished());
}

}  // namespace
}  // namespace lathe
