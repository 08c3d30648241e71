// Grammars in tests: schemas from text, and whether a grammar accepts a text.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lathe/base/json.h"
#include "lathe/constrain/grammar.h"
#include "lathe/constrain/recognizer.h"

namespace lathe::test {

// Throws where the text is no JSON or the schema does not compile, which fails the test.
inline Json json(std::string_view text) {
  Result<Json> value = parse_json(text);
  if (!value) throw std::runtime_error(std::string(text) + ": " + value.error().message);
  return *std::move(value);
}

inline std::shared_ptr<const Grammar> compile(std::string_view schema) {
  Result<std::shared_ptr<const Grammar>> grammar = compile_json_schema(json(schema));
  if (!grammar) throw std::runtime_error(std::string(schema) + ": " + grammar.error().message);
  return *std::move(grammar);
}

inline bool accepts(const Grammar& grammar, std::string_view text) {
  Recognizer recognizer(grammar);
  const int32_t set = recognizer.step(recognizer.start(), text);
  return recognizer.set(set).complete;
}

// Whether some accepted text begins like this.
inline bool accepts_beginning(const Grammar& grammar, std::string_view text) {
  Recognizer recognizer(grammar);
  return recognizer.step(recognizer.start(), text) != Recognizer::kDead;
}

}  // namespace lathe::test
