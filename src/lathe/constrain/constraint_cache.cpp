#include "lathe/constrain/constraint_cache.h"

#include <algorithm>
#include <utility>

#include "lathe/base/sha256.h"
#include "lathe/base/str.h"
#include "lathe/constrain/masks.h"

namespace lathe {

ConstraintCache::ConstraintCache(const Tokenizer& tokenizer,
                                 int64_t vocab_size,
                                 std::vector<int32_t> eos,
                                 const Limits& limits)
    : tokenizer_(&tokenizer), vocab_size_(vocab_size), eos_(std::move(eos)), limits_(limits) {
  std::erase_if(eos_, [&](int32_t id) { return id < 0 || id >= vocab_size; });
}

ConstraintCache::ConstraintCache(const Tokenizer& tokenizer, int64_t vocab_size, std::vector<int32_t> eos)
    : ConstraintCache(tokenizer, vocab_size, std::move(eos), Limits{}) {}

Result<std::shared_ptr<const TokenTable>> ConstraintCache::table() {
  const std::lock_guard lock(table_mutex_);
  if (table_ == nullptr) {
    LATHE_TRY(table_, TokenTable::build(*tokenizer_, vocab_size_));
  }
  return table_;
}

std::shared_ptr<GrammarMasks> ConstraintCache::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(entries_, key, &Entry::key);
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return entries_.front().masks;
}

void ConstraintCache::keep(Entry entry) {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& e) { return e.key == entry.key; });  // compiled twice at the same time
  entries_.push_front(std::move(entry));
  size_t bytes = 0, count = 0;
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    bytes += at->masks->bytes();
    if (++count == 1 || (count <= limits_.max_grammars && bytes <= limits_.max_bytes)) continue;
    entries_.erase(at, entries_.end());
    return;
  }
}

Result<std::shared_ptr<GrammarMasks>> ConstraintCache::prepare_once(std::string_view text, const Compile& compile) {
  Hasher hasher(Hasher::Kind::kSha256);
  hasher.update(text);
  const std::string key = hasher.hex_digest();
  if (std::shared_ptr<GrammarMasks> known = find(key)) return known;
  LATHE_TRY(std::shared_ptr<const Grammar> grammar, compile());
  LATHE_TRY(std::shared_ptr<const TokenTable> table, this->table());
  LATHE_TRY(std::shared_ptr<GrammarMasks> masks, prepare_grammar(std::move(grammar), std::move(table)));
  keep({key, masks});
  return masks;
}

Result<std::shared_ptr<GrammarMasks>> ConstraintCache::prepare(const Json& schema) {
  return prepare_once("schema " + schema.dump(), [&] { return compile_json_schema(schema, limits_.schema); });
}

Result<std::shared_ptr<GrammarMasks>> ConstraintCache::prepare_object() {
  Json schema = Json::object();
  schema.set("type", "object");
  return prepare(schema);
}

Result<std::shared_ptr<GrammarMasks>> ConstraintCache::prepare_calls(const std::vector<CallableTool>& tools,
                                                                     const ToolCallSyntax& syntax,
                                                                     int32_t max_calls) {
  std::string text = str("calls ", max_calls, " ", syntax.markers_are_tokens ? "tokens" : "text");
  for (const std::string* part : {&syntax.calls_begin,
                                  &syntax.call_begin,
                                  &syntax.type,
                                  &syntax.separator,
                                  &syntax.before_arguments,
                                  &syntax.after_arguments,
                                  &syntax.call_end,
                                  &syntax.between_calls,
                                  &syntax.calls_end}) {
    text += str(" ", quoted(*part));
  }
  for (const CallableTool& tool : tools) {
    text += str(" ", quoted(tool.name), " ", tool.parameters != nullptr ? tool.parameters->dump() : "any");
  }
  return prepare_once(text, [&] { return compile_tool_calls(tools, syntax, max_calls, limits_.schema); });
}

std::unique_ptr<TokenConstraint> ConstraintCache::begin(std::shared_ptr<GrammarMasks> masks,
                                                        std::optional<int32_t> marker) const {
  const std::shared_ptr<const TokenTable> table = masks->shared_table();
  std::unique_ptr<TokenConstraint> out = make_constraint(std::move(masks), eos_);
  return marker ? constrain_after(*marker, std::move(out), table, eos_) : std::move(out);
}

size_t ConstraintCache::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace lathe
