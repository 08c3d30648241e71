// Which stages cut text before merging, by the names that GGUF gives to them.
#include <algorithm>
#include <span>

#include "lathe/formats/gguf_tokenizer.h"

namespace lathe {
namespace {

// Cased letters: no script of one case, so neither Chinese nor Arabic.
constexpr std::string_view kCasedLetters =
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373"
    "\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F"
    "\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77"
    "\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-"
    "\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC"
    "\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-"
    "\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3"
    "\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17"
    "\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-"
    "\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+";
constexpr std::string_view kLineBreak = "[\r\n]";
constexpr std::string_view kPunctuation = "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+";
// The range 0800-4E00 is wider than meant and covers most scripts between.
constexpr std::string_view kEastAsian = "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+";
constexpr std::string_view kEastAsianV3 = "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
constexpr std::string_view kWordsV3 =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p"
    "{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kWordsKimi =
    "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{Lm}\\p{Lo}\\"
    "p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&"
    "[^\\p{Han}]]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p"
    "{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kWordsLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*["
    "\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kWordsGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

constexpr std::string_view kDigits;  // an empty pattern stands for digits one by one

constexpr std::string_view kDeepseekLlm[] = {kLineBreak, kCasedLetters, kPunctuation, "\\s+$", kEastAsian, kDigits};
constexpr std::string_view kDeepseekCoder[] = {kLineBreak, "\\s?\\p{L}+", "\\s?\\p{P}+", kEastAsian, kDigits};
constexpr std::string_view kDeepseekV3[] = {"\\p{N}{1,3}", kEastAsianV3, kWordsV3};
constexpr std::string_view kKimi[] = {kWordsKimi};
constexpr std::string_view kLlama3[] = {kWordsLlama3};
constexpr std::string_view kGpt2[] = {kWordsGpt2};

struct PreTokenizer {
  std::string_view name;
  std::span<const std::string_view> stages;  // Split patterns, every match a piece of its own
  bool ignores_merges = false;
};

// Of two names for the same stages the first is the one that writers use.
constexpr PreTokenizer kKnown[] = {
    {"deepseek-llm", kDeepseekLlm},
    {"deepseek-coder", kDeepseekCoder},
    {"deepseek-v3", kDeepseekV3},
    {"kimi-k2", kKimi},
    {"llama-bpe", kLlama3, true},
    {"llama-v3", kLlama3, true},
    {"llama3", kLlama3, true},
    {"gpt-2", kGpt2},
    {"gpt2", kGpt2},
};

const PreTokenizer* find(std::string_view name) {
  const auto* at = std::find_if(std::begin(kKnown), std::end(kKnown), [&](const auto& p) { return p.name == name; });
  return at == std::end(kKnown) ? nullptr : at;
}

Json byte_level() {
  return Json(
      Json::Object{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
}

Json stage_of(std::string_view pattern) {
  if (pattern == kDigits) return Json(Json::Object{{"type", "Digits"}, {"individual_digits", true}});
  return Json(Json::Object{{"type", "Split"},
                           {"pattern", Json(Json::Object{{"Regex", pattern}})},
                           {"behavior", "Isolated"},
                           {"invert", false}});
}

bool has(const Json& object, std::string_view key, const Json& value) {
  const Json* found = object.find(key);
  return found != nullptr && *found == value;
}

// Whether a stage of a file is the one that the pattern stands for.
bool is_stage(const Json& stage, std::string_view pattern) {
  if (pattern == kDigits) return has(stage, "type", "Digits") && has(stage, "individual_digits", true);
  const Json* regex = stage.find("pattern");
  const Json* invert = stage.find("invert");
  return has(stage, "type", "Split") && regex != nullptr && has(*regex, "Regex", pattern) &&
         has(stage, "behavior", "Isolated") && (invert == nullptr || *invert == Json(false));
}

// A lone ByteLevel that cuts with the pattern of GPT-2.
bool is_plain_gpt2(const Json& json) {
  const Json* use_regex = json.find("use_regex");
  return has(json, "type", "ByteLevel") && has(json, "add_prefix_space", false) &&
         (use_regex == nullptr || *use_regex == Json(true));
}

}  // namespace

std::optional<Json> pre_tokenizer_of(std::string_view pre) {
  const PreTokenizer* known = find(pre);
  if (known == nullptr) return std::nullopt;
  Json stages = Json::array();
  for (const std::string_view pattern : known->stages) stages.push(stage_of(pattern));
  stages.push(byte_level());
  return Json(Json::Object{{"type", "Sequence"}, {"pretokenizers", std::move(stages)}});
}

std::optional<std::string_view> pre_tokenizer_name(const Json& pre_tokenizer) {
  if (is_plain_gpt2(pre_tokenizer)) return "gpt-2";
  const Json* list = pre_tokenizer.find("pretokenizers");
  if (!has(pre_tokenizer, "type", "Sequence") || list == nullptr || !list->is_array()) return std::nullopt;
  const Json::Array& stages = list->as_array();
  if (stages.empty() || !has(stages.back(), "type", "ByteLevel") || !has(stages.back(), "use_regex", false) ||
      !has(stages.back(), "add_prefix_space", false)) {
    return std::nullopt;
  }
  for (const PreTokenizer& known : kKnown) {
    if (stages.size() == known.stages.size() + 1 &&
        std::equal(known.stages.begin(), known.stages.end(), stages.begin(), [](std::string_view p, const Json& stage) {
          return is_stage(stage, p);
        })) {
      return known.name;
    }
  }
  return std::nullopt;
}

bool pre_tokenizer_ignores_merges(std::string_view pre) {
  const PreTokenizer* known = find(pre);
  return known != nullptr && known->ignores_merges;
}

std::vector<std::string_view> pre_tokenizer_names() {
  std::vector<std::string_view> names;
  for (const PreTokenizer& known : kKnown) names.push_back(known.name);
  return names;
}

}  // namespace lathe
