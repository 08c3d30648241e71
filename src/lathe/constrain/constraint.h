// Constraints: a grammar applied to the tokens of a vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lathe/base/result.h"
#include "lathe/constrain/grammar.h"
#include "lathe/constrain/token_table.h"
#include "lathe/tokenizer/token_constraint.h"

namespace lathe {

// A grammar prepared for a vocabulary: the masks of its states, computed when they are first needed and kept. One for
// all sequences that share grammar and vocabulary; thread safe. Make one when the same schema is used again.
class GrammarMasks;

// Fails (kUnsupported) when the vocabulary cannot write what the grammar wants: not all bytes have a token of their
// own, or a special token of the grammar does not exist.
Result<std::shared_ptr<GrammarMasks>> prepare_grammar(std::shared_ptr<const Grammar> grammar,
                                                      std::shared_ptr<const TokenTable> table);

// A constraint at the beginning of its text. `eos`: ids that end the output, each below the table's vocab_size.
std::unique_ptr<TokenConstraint> make_constraint(std::shared_ptr<GrammarMasks> masks, std::vector<int32_t> eos);

// The same for one sequence.
Result<std::unique_ptr<TokenConstraint>> make_constraint(std::shared_ptr<const Grammar> grammar,
                                                         std::shared_ptr<const TokenTable> table,
                                                         std::vector<int32_t> eos);

// Lets everything but `eos` pass until the token `marker` (such as </think>) was chosen, and only then applies `inner`.
std::unique_ptr<TokenConstraint> constrain_after(int32_t marker,
                                                 std::unique_ptr<TokenConstraint> inner,
                                                 std::shared_ptr<const TokenTable> table,
                                                 std::vector<int32_t> eos);

}  // namespace lathe
