#include "lathe/tokenizer/pretokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "lathe/base/str.h"

namespace lathe {
namespace {

constexpr size_t kMaxStages = 32;
constexpr int kMaxDepth = 8;

// The pattern of GPT-2, which ByteLevel applies when use_regex is set.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::array<std::pair<std::string_view, Pretokenizer::Behavior>, 5> kBehaviors{{
    {"Isolated", Pretokenizer::Behavior::kIsolated},
    {"Removed", Pretokenizer::Behavior::kRemoved},
    {"MergedWithPrevious", Pretokenizer::Behavior::kMergedWithPrevious},
    {"MergedWithNext", Pretokenizer::Behavior::kMergedWithNext},
    {"Contiguous", Pretokenizer::Behavior::kContiguous},
}};

Error wrong(const std::string& where, std::string_view what) {
  return {Errc::kInvalidData, str(where, ": ", what)};
}

// A boolean member; `fallback` when it is absent.
Result<bool> bool_member(const Json& json, std::string_view key, bool fallback, const std::string& where) {
  const Json* value = json.find(key);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) return wrong(str(where, ".", key), str("expected a boolean, found ", value->kind_name()));
  return value->as_bool();
}

Result<std::string_view> string_member(const Json& json, std::string_view key, const std::string& where) {
  const Json* value = json.find(key);
  if (value == nullptr) return wrong(where, str("missing ", key));
  if (!value->is_string()) return wrong(str(where, ".", key), str("expected a string, found ", value->kind_name()));
  return std::string_view(value->as_string());
}

Result<Regex> split_pattern(const Json& json, const std::string& where) {
  const Json* pattern = json.find("pattern");
  if (pattern == nullptr || !pattern->is_object() || pattern->as_object().size() != 1) {
    return wrong(str(where, ".pattern"), "expected {\"Regex\": ...} or {\"String\": ...}");
  }
  const auto& [kind, value] = pattern->as_object()[0];
  if ((kind != "Regex" && kind != "String") || !value.is_string()) {
    return wrong(str(where, ".pattern"), "expected {\"Regex\": ...} or {\"String\": ...}");
  }
  Result<Regex> regex = kind == "Regex" ? Regex::compile(value.as_string()) : Regex::literal(value.as_string());
  if (!regex) return regex.error().at(str(where, ".pattern"));
  return regex;
}

}  // namespace

Result<Pretokenizer> Pretokenizer::parse(const Json& json) {
  Pretokenizer out;
  if (!json.is_null()) LATHE_TRY(out.add_stage(json, "pre_tokenizer", 0));
  if (!out.byte_level_) {
    return Error{Errc::kUnsupported, "pre_tokenizer: no ByteLevel stage; only byte-level BPE is supported"};
  }
  out.isolating_from_ = out.stages_.size();
  while (out.isolating_from_ > 0 && !out.prefix_space_) {
    const Stage& stage = out.stages_[out.isolating_from_ - 1];
    if (stage.behavior != Behavior::kIsolated || stage.prefix_space) break;
    --out.isolating_from_;
  }
  if (out.prefix_space_) out.isolating_from_ = out.stages_.size() + 1;
  return out;
}

Status Pretokenizer::add_stage(const Json& json, const std::string& where, int depth) {
  if (!json.is_object()) return wrong(where, str("expected an object, found ", json.kind_name()));
  LATHE_TRY(const std::string_view type, string_member(json, "type", where));
  if (byte_level_) return Error{Errc::kUnsupported, str(where, ": unsupported stage after ByteLevel")};
  if (type == "Sequence") {
    const Json* list = json.find("pretokenizers");
    if (list == nullptr || !list->is_array()) return wrong(where, "expected an array pretokenizers");
    if (depth >= kMaxDepth) return wrong(where, "sequences nested too deeply");
    for (size_t i = 0; i < list->as_array().size(); ++i) {
      LATHE_TRY(add_stage(list->as_array()[i], str(where, ".pretokenizers[", i, "]"), depth + 1));
    }
    return {};
  }
  if (stages_.size() >= kMaxStages) return Error{Errc::kUnsupported, str(where, ": more than ", kMaxStages, " stages")};
  if (type == "Split") return add_split(json, where);
  if (type == "ByteLevel") return add_byte_level(json, where);
  if (type == "Digits") {
    LATHE_TRY(const bool individual, bool_member(json, "individual_digits", false, where));
    LATHE_TRY(Regex regex, Regex::compile(individual ? R"(\p{N})" : R"(\p{N}+)"));
    stages_.push_back({.regex = std::move(regex)});
    return {};
  }
  return Error{Errc::kUnsupported, str(where, ": unsupported type ", quoted(type))};
}

Status Pretokenizer::add_split(const Json& json, const std::string& where) {
  Stage stage;
  LATHE_TRY(const std::string_view behavior, string_member(json, "behavior", where));
  const auto known =
      std::find_if(kBehaviors.begin(), kBehaviors.end(), [&](const auto& entry) { return entry.first == behavior; });
  if (known == kBehaviors.end()) {
    return wrong(
        str(where, ".behavior"),
        str("expected Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous, found ", quoted(behavior)));
  }
  stage.behavior = known->second;
  LATHE_TRY(stage.invert, bool_member(json, "invert", false, where));
  LATHE_TRY(stage.regex, split_pattern(json, where));
  stages_.push_back(std::move(stage));
  return {};
}

Status Pretokenizer::add_byte_level(const Json& json, const std::string& where) {
  byte_level_ = true;
  LATHE_TRY(const bool prefix_space, bool_member(json, "add_prefix_space", true, where));
  LATHE_TRY(const bool use_regex, bool_member(json, "use_regex", true, where));
  if (!use_regex) {
    prefix_space_ = prefix_space;
    return {};
  }
  LATHE_TRY(Regex regex, Regex::compile(kGpt2Pattern));
  stages_.push_back({.regex = std::move(regex), .prefix_space = prefix_space});
  return {};
}

PretokenizerRun::PretokenizerRun(const Pretokenizer& pretokenizer) : pretokenizer_(&pretokenizer) {
  searches_.reserve(pretokenizer.stages().size());
  for (const Pretokenizer::Stage& stage : pretokenizer.stages()) searches_.emplace_back(stage.regex);
}

void PretokenizerRun::run_stage(size_t index, std::string_view piece, PieceSink& sink) {
  if (piece.empty()) return;
  if (piece.size() == 1 && pretokenizer_->keeps_single_bytes(index)) return sink.piece(piece);
  const bool last = index == searches_.size();
  if (last ? pretokenizer_->prefix_space() : pretokenizer_->stages()[index].prefix_space) {
    if (piece[0] != ' ') {
      prefixed_ = ' ';
      prefixed_ += piece;
      piece = prefixed_;
    }
  }
  if (last) return sink.piece(piece);
  const Pretokenizer::Stage& stage = pretokenizer_->stages()[index];
  const bool isolated = stage.behavior == Pretokenizer::Behavior::kIsolated;
  if (!isolated && stage.behavior != Pretokenizer::Behavior::kRemoved) return merge_segments(index, piece, sink);
  RegexSearch& search = searches_[index];
  search.reset(piece);
  size_t done = 0, begin = 0, end = 0;
  while (search.next(done, begin, end)) {
    if (isolated || !stage.invert) run_stage(index + 1, piece.substr(done, begin - done), sink);
    if (isolated || stage.invert) run_stage(index + 1, piece.substr(begin, end - begin), sink);
    done = end;
  }
  // What a search had to leave unread is one piece, and is never dropped.
  if (isolated || !stage.invert || search.gave_up()) run_stage(index + 1, piece.substr(done), sink);
}

// The three behaviours that join neighbouring segments.
void PretokenizerRun::merge_segments(size_t index, std::string_view piece, PieceSink& sink) {
  using Behavior = Pretokenizer::Behavior;
  const Pretokenizer::Stage& stage = pretokenizer_->stages()[index];
  RegexSearch& search = searches_[index];
  search.reset(piece);
  Segment open{0, 0, false};  // what is not handed on yet
  bool first = true;
  const auto add = [&](size_t begin, size_t end, bool match) {
    match = match != stage.invert;
    bool joins = false;
    switch (stage.behavior) {
      case Behavior::kContiguous:
        joins = match == open.match;
        break;
      case Behavior::kMergedWithPrevious:
        joins = match && !open.match;
        break;
      default:  // kMergedWithNext
        joins = open.match && !match;
        break;
    }
    if (!joins || first) {
      run_stage(index + 1, piece.substr(open.begin, open.end - open.begin), sink);
      open.begin = begin;
    }
    open.end = end;
    open.match = match;
    first = false;
  };
  size_t done = 0, begin = 0, end = 0;
  while (search.next(done, begin, end)) {
    if (done < begin) add(done, begin, false);
    add(begin, end, true);  // an empty match parts what is around it
    done = end;
  }
  if (done < piece.size()) add(done, piece.size(), false);
  run_stage(index + 1, piece.substr(open.begin, open.end - open.begin), sink);
}

}  // namespace lathe
