// From syntax tree to program: see regex.h.
#include "lathe/tokenizer/regex.h"

#include <algorithm>
#include <utility>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/regex_syntax.h"

namespace lathe {
namespace {

using Kind = RegexNode::Kind;
using Op = RegexInstruction::Op;
using Bytes = std::array<bool, 256>;

constexpr size_t kMaxPatternBytes = 16384;
constexpr size_t kMaxInstructions = 2048;
constexpr size_t kMaxSets = 64;

std::string utf8(char32_t c) {
  std::string out;
  append_utf8(out, c);
  return out;
}

// Adds the bytes that a match of `node` may begin with; false when it can match without consuming.
bool add_first_bytes(const RegexNode& node, Bytes& bytes) {
  switch (node.kind) {
    case Kind::kLiteral:
      bytes[static_cast<unsigned char>(utf8(node.literal)[0])] = true;
      return true;
    case Kind::kSet:
      node.set.add_first_bytes(bytes);
      return true;
    case Kind::kConcat:
      for (const RegexNode& child : node.children) {
        if (add_first_bytes(child, bytes)) return true;
      }
      return false;
    case Kind::kAlternate: {
      bool consumes = true;
      for (const RegexNode& child : node.children) consumes = add_first_bytes(child, bytes) && consumes;
      return consumes;
    }
    case Kind::kRepeat:
      return (node.max == 0 || add_first_bytes(node.children[0], bytes)) && node.min > 0;
    default:
      return false;
  }
}

class Generator {
 public:
  Result<RegexProgram> generate(const RegexNode& root) {
    LATHE_TRY(emit(root));
    LATHE_TRY(add({}));
    for (size_t pc = 0; pc < program_.code.size(); ++pc) finish_run(pc);
    for (RegexInstruction& in : program_.code) {
      const bool remembered = in.op == Op::kSplit || in.op == Op::kSplitLazy || in.op == Op::kRun;
      if (remembered) in.slot = program_.slots++;
    }
    add_first_bytes(root, program_.first);
    for (const unicode::RangeSet& set : sets_) program_.sets.emplace_back(set);
    return std::move(program_);
  }

 private:
  int32_t here() const { return static_cast<int32_t>(program_.code.size()); }

  Status add(RegexInstruction in) {
    if (program_.code.size() >= kMaxInstructions) {
      return Error{Errc::kUnsupported, str("pattern needs more than ", kMaxInstructions, " steps")};
    }
    program_.code.push_back(in);
    return {};
  }

  RegexInstruction& at(int32_t pc) { return program_.code[static_cast<size_t>(pc)]; }

  Result<int32_t> set_index(const unicode::RangeSet& set) {
    for (size_t i = 0; i < sets_.size(); ++i) {
      if (std::ranges::equal(sets_[i].ranges(), set.ranges())) return static_cast<int32_t>(i);
    }
    if (sets_.size() >= kMaxSets) {
      return Error{Errc::kUnsupported, str("pattern needs more than ", kMaxSets, " classes")};
    }
    sets_.push_back(set);
    return static_cast<int32_t>(sets_.size() - 1);
  }

  Status emit(const RegexNode& node) {
    switch (node.kind) {
      case Kind::kEmpty:
        return {};
      case Kind::kLiteral: {
        RegexInstruction in{.op = Op::kLiteral};
        const std::string bytes = utf8(node.literal);
        in.literal_size = static_cast<uint8_t>(bytes.size());
        std::copy(bytes.begin(), bytes.end(), in.literal.begin());
        return add(in);
      }
      case Kind::kSet: {
        LATHE_TRY(const int32_t set, set_index(node.set));
        return add({.op = Op::kSet, .set = set});
      }
      case Kind::kConcat:
        for (const RegexNode& child : node.children) LATHE_TRY(emit(child));
        return {};
      case Kind::kAlternate:
        return emit_alternatives(node);
      case Kind::kRepeat:
        return emit_repeat(node);
      case Kind::kLineStart:
        return add({.op = Op::kLineStart});
      case Kind::kLineEnd:
        return add({.op = Op::kLineEnd});
      case Kind::kLookAhead: {
        const int32_t look = here();
        LATHE_TRY(add({.op = Op::kLookAhead, .negative = node.negative}));
        LATHE_TRY(emit(node.children[0]));
        LATHE_TRY(add({}));
        at(look).target = here();
        return {};
      }
    }
    return {};
  }

  // A split before the path `node`, which follows at pc + 1.
  Status emit_split(Op op, const RegexNode& node) {
    RegexInstruction in{.op = op};
    Bytes bytes{};
    if (op == Op::kSplit && add_first_bytes(node, bytes)) {
      in.first = static_cast<int32_t>(program_.first_bytes.size());
      program_.first_bytes.push_back(bytes);
    }
    return add(in);
  }

  Status emit_alternatives(const RegexNode& node) {
    std::vector<int32_t> jumps;
    for (size_t i = 0; i < node.children.size(); ++i) {
      const bool last = i + 1 == node.children.size();
      const int32_t split = here();
      if (!last) LATHE_TRY(emit_split(Op::kSplit, node.children[i]));
      LATHE_TRY(emit(node.children[i]));
      if (last) break;
      jumps.push_back(here());
      LATHE_TRY(add({.op = Op::kJump}));
      at(split).target = here();
    }
    for (const int32_t jump : jumps) at(jump).target = here();
    return {};
  }

  Status emit_repeat(const RegexNode& node) {
    const RegexNode& body = node.children[0];
    const bool single = body.kind == Kind::kSet || body.kind == Kind::kLiteral;
    if (single && node.mode != RegexNode::Mode::kLazy) {
      unicode::RangeSet set = body.set;
      if (body.kind == Kind::kLiteral) set.add(body.literal, body.literal + 1);
      LATHE_TRY(const int32_t index, set_index(set));
      return add({.op = Op::kRun,
                  .possessive = node.mode == RegexNode::Mode::kPossessive,
                  .set = index,
                  .min = node.min,
                  .max = node.max});
    }
    for (int32_t i = 0; i < node.min; ++i) LATHE_TRY(emit(body));
    const Op split = node.mode == RegexNode::Mode::kLazy ? Op::kSplitLazy : Op::kSplit;
    if (node.max == RegexNode::kUnlimited) {
      const int32_t loop = here();
      LATHE_TRY(emit_split(split, body));
      LATHE_TRY(emit(body));
      LATHE_TRY(add({.op = Op::kJump, .target = loop}));
      at(loop).target = here();
      return {};
    }
    std::vector<int32_t> splits;
    for (int32_t i = node.min; i < node.max; ++i) {
      splits.push_back(here());
      LATHE_TRY(emit_split(split, body));
      LATHE_TRY(emit(body));
    }
    for (const int32_t pc : splits) at(pc).target = here();
    return {};
  }

  // A run need not be able to give back what it took when that cannot help: at the end of the pattern, or before
  // something that begins with no code point of the run.
  void finish_run(size_t pc) {
    RegexInstruction& run = program_.code[pc];
    if (run.op != Op::kRun || run.possessive) return;
    size_t next = pc + 1;
    while (program_.code[next].op == Op::kJump) {
      const auto target = static_cast<size_t>(program_.code[next].target);
      if (target <= next) return;  // back to the head of a loop
      next = target;
    }
    const RegexInstruction& follower = program_.code[next];
    const unicode::RangeSet& taken = sets_[static_cast<size_t>(run.set)];
    if (follower.op == Op::kMatch) {
      run.possessive = true;
    } else if (follower.op == Op::kSet || (follower.op == Op::kRun && follower.min > 0)) {
      run.possessive = taken.intersected(sets_[static_cast<size_t>(follower.set)]).ranges().empty();
    } else if (follower.op == Op::kLiteral) {
      size_t position = 0;
      run.possessive = !taken.contains(decode_utf8({follower.literal.data(), follower.literal_size}, position));
    }
  }

  RegexProgram program_;
  std::vector<unicode::RangeSet> sets_;
};

Status check_pattern(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return Error{Errc::kUnsupported, str("longer than ", kMaxPatternBytes, " bytes")};
  }
  if (!is_valid_utf8(pattern)) return Error{Errc::kInvalidData, "not valid UTF-8"};
  return {};
}

Result<RegexProgram> compile_program(std::string_view pattern) {
  LATHE_TRY(const RegexNode root, parse_regex(pattern));
  if (root.nullable()) return Error{Errc::kUnsupported, "can match the empty string"};
  return Generator().generate(root);
}

}  // namespace

Result<Regex> Regex::compile(std::string_view pattern, RegexEngine engine) {
  const auto failed = [&](const Error& error) { return error.at(str("regex ", quoted(pattern))); };
  if (const Status checked = check_pattern(pattern); !checked) return failed(checked.error());
  Regex out;
  if (engine != RegexEngine::kPcre2) {
    Result<RegexProgram> program = compile_program(pattern);
    if (program) {
      out.program_ = std::make_shared<const RegexProgram>(*std::move(program));
      return out;
    }
    if (engine == RegexEngine::kOwn) return failed(program.error());
  }
  Result<PcreRegex> pcre = PcreRegex::compile(pattern);
  if (!pcre) return failed(pcre.error());
  out.pcre_ = std::make_shared<const PcreRegex>(*std::move(pcre));
  return out;
}

Result<Regex> Regex::literal(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte >= 0x80 || byte <= ' ' || is_ascii_alnum(c);
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return compile(pattern, RegexEngine::kOwn);
}

}  // namespace lathe
