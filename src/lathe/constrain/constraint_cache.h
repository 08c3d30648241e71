// ConstraintCache: constraints for the answers of one model. Grammars that were compiled for a schema are kept with the
// masks found so far, least recently used first to go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/result.h"
#include "lathe/constrain/constraint.h"
#include "lathe/constrain/grammar.h"
#include "lathe/constrain/tool_grammar.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {

// Thread safe.
class ConstraintCache {
 public:
  struct Limits {
    size_t max_grammars = 64;
    size_t max_bytes = size_t{256} << 20;  // of grammars and masks; the newest stays in any case
    SchemaLimits schema = {};
  };

  // `tokenizer` must outlive it. `vocab_size`: that of the logits. `eos`: ids that end an answer; those that the
  // vocabulary does not have are ignored.
  ConstraintCache(const Tokenizer& tokenizer, int64_t vocab_size, std::vector<int32_t> eos, const Limits& limits);
  ConstraintCache(const Tokenizer& tokenizer, int64_t vocab_size, std::vector<int32_t> eos);

  // The grammar of a schema (grammar.h) for this vocabulary: milliseconds, where it is new. The first call also sorts
  // the vocabulary: about half a second for 100,000 tokens. Errors are those of compile_json_schema and
  // prepare_grammar.
  Result<std::shared_ptr<GrammarMasks>> prepare(const Json& schema);

  // The same for any JSON object.
  Result<std::shared_ptr<GrammarMasks>> prepare_object();

  // The same for forced tool calls; errors are those of compile_tool_calls and prepare_grammar.
  Result<std::shared_ptr<GrammarMasks>> prepare_calls(const std::vector<CallableTool>& tools,
                                                      const ToolCallSyntax& syntax,
                                                      int32_t max_calls);

  // A constraint for one answer, from its beginning or from behind the first token `marker` on.
  std::unique_ptr<TokenConstraint> begin(std::shared_ptr<GrammarMasks> masks, std::optional<int32_t> marker = {}) const;

  // Grammars that are kept now.
  size_t size() const;

 private:
  struct Entry {
    std::string key;  // digest of what was compiled
    std::shared_ptr<GrammarMasks> masks;
  };

  using Compile = std::function<Result<std::shared_ptr<const Grammar>>()>;

  // What was compiled for `text` before, or now.
  Result<std::shared_ptr<GrammarMasks>> prepare_once(std::string_view text, const Compile& compile);
  Result<std::shared_ptr<const TokenTable>> table();
  std::shared_ptr<GrammarMasks> find(const std::string& key);
  void keep(Entry entry);

  const Tokenizer* tokenizer_;
  int64_t vocab_size_;
  std::vector<int32_t> eos_;
  Limits limits_;
  std::mutex table_mutex_;  // of the table
  std::shared_ptr<const TokenTable> table_;
  mutable std::mutex mutex_;  // of the entries
  std::list<Entry> entries_;  // most recently used first
};

}  // namespace lathe
