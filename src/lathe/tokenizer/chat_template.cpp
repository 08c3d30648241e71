#include "lathe/tokenizer/chat_template.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "lathe/base/str.h"
#include "lathe/tokenizer/chat_template_builtin.h"
#include "lathe/tokenizer/jinja_evaluator.h"
#include "lathe/tokenizer/jinja_parser.h"

namespace lathe {
namespace {

constexpr size_t kMaxSourceBytes = size_t{1} << 20;
// Strings a rendering may build or search in all, as a multiple of the output: a template handles each message a
// few times before it is printed.
constexpr int64_t kWorkPerOutputByte = 16;

std::tm local_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::localtime_r(&now, &parts);
  return parts;
}

Status check_limits(const TemplateLimits& limits) {
  if (limits.max_steps <= 0 || limits.max_output_bytes <= 0 || limits.max_output_bytes > (int64_t{1} << 40) ||
      limits.max_depth <= 0 || limits.max_depth > 64) {
    return Error{Errc::kInvalidArgument,
                 str("template limits: expected max_steps and max_output_bytes above 0 and max_depth in 1..64, found ",
                     limits.max_steps,
                     ", ",
                     limits.max_output_bytes,
                     " and ",
                     limits.max_depth)};
  }
  return {};
}

// `text` without marks on its bytes [begin, end).
jinja::Text unmarked(const jinja::Text& text, size_t begin, size_t end) {
  jinja::Text out(text.bytes);
  for (const jinja::ByteRange& range : text.literal) {
    if (range.begin < begin) out.literal.push_back({range.begin, std::min(range.end, begin)});
    if (range.end > end) out.literal.push_back({std::max(range.begin, end), range.end});
  }
  return out;
}

// The messages without marks on what is trusted. Whatever is no message with a text for its content stays as it is.
jinja::Value with_trusted(const jinja::Value& messages, std::span<const TrustedText> trusted) {
  if (!messages.is_list()) return messages;
  jinja::List list = *messages.list();
  for (const TrustedText& part : trusted) {
    if (part.begin >= part.end || part.message >= list.items.size() || !list.items[part.message].is_dict()) continue;
    jinja::Dict message = *list.items[part.message].dict();
    for (auto& [key, value] : message.entries) {
      if (key.bytes() != "content" || !value.is_string()) continue;
      value = jinja::Value(unmarked(value.text(), part.begin, part.end));
    }
    list.items[part.message] = jinja::Value(std::make_shared<const jinja::Dict>(std::move(message)));
  }
  return jinja::Value(std::make_shared<const jinja::List>(std::move(list)));
}

}  // namespace

struct ChatTemplate::State {
  std::string text;
  jinja::Template source;
  TemplateLimits limits;
  std::function<std::tm()> clock = local_now;
};

ChatTemplate::ChatTemplate() : state_(std::make_unique<State>()) {}

ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::compile(std::string_view source, const TemplateLimits& limits) {
  LATHE_TRY(check_limits(limits));
  if (source.size() > kMaxSourceBytes) {
    return Error{Errc::kInvalidData, str("chat template: ", source.size(), " bytes exceed ", kMaxSourceBytes)};
  }
  ChatTemplate result;
  result.state_->limits = limits;
  result.state_->text = source;
  LATHE_TRY(result.state_->source, jinja::parse_template(source, limits.max_depth));
  return result;
}

Result<ChatTemplate> ChatTemplate::builtin(std::string_view name) {
  const std::string_view source = builtin_template_source(name);
  if (source.empty()) {
    return Error{Errc::kNotFound, str("chat template ", quoted(name, 40), ": expected \"v2\" or \"v3\"")};
  }
  return compile(source);
}

const std::string& ChatTemplate::source() const {
  return state_->text;
}

void ChatTemplate::set_clock(std::function<std::tm()> clock) {
  state_->clock = std::move(clock);
}

Result<std::vector<RenderedPiece>> ChatTemplate::render_pieces(const Json& variables,
                                                               std::span<const TrustedText> trusted) const {
  if (!variables.is_object()) {
    return Error{Errc::kInvalidArgument,
                 str("chat template variables: expected an object, found ", variables.kind_name())};
  }
  std::vector<std::pair<int, jinja::Value>> values;
  const std::vector<std::string>& symbols = state_->source.symbols;
  for (size_t i = 0; i < symbols.size(); ++i) {
    const Json* variable = variables.find(symbols[i]);
    if (variable == nullptr) continue;
    Result<jinja::Value> value = jinja::from_json(*variable, /*literal=*/!symbols[i].ends_with("_token"));
    if (!value) return value.error().at(symbols[i]);
    if (symbols[i] == "messages" && !trusted.empty()) value = with_trusted(*value, trusted);
    values.emplace_back(static_cast<int>(i), *std::move(value));
  }
  const TemplateLimits& limits = state_->limits;
  jinja::Context context(jinja::Budget(limits.max_steps, limits.max_output_bytes * kWorkPerOutputByte), state_->clock);
  jinja::Evaluator evaluator(
      state_->source, context, {.max_output_bytes = limits.max_output_bytes, .max_depth = limits.max_depth});
  LATHE_TRY(const jinja::Text text, evaluator.run(std::move(values)));
  std::vector<RenderedPiece> pieces;
  jinja::for_each_piece(text, [&](std::string_view piece, bool literal) {
    pieces.push_back(RenderedPiece{std::string(piece), literal});
  });
  return pieces;
}

Result<std::string> ChatTemplate::render(const Json& variables) const {
  LATHE_TRY(const std::vector<RenderedPiece> pieces, render_pieces(variables));
  std::string out;
  for (const RenderedPiece& piece : pieces) out += piece.text;
  return out;
}

std::string_view builtin_template_for(bool has_user_and_assistant_tokens) {
  return has_user_and_assistant_tokens ? "v3" : "v2";
}

}  // namespace lathe
