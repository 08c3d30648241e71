// Global functions: range, dict, namespace, raise_exception, strftime_now, from_json.
#include <ctime>

#include "lathe/base/str.h"
#include "lathe/base/utf8.h"
#include "lathe/tokenizer/jinja_builtins.h"

namespace lathe::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as in jinja2's sandbox
constexpr size_t kMaxMessage = 1000;    // of raise_exception

Result<Value> call_range(Context& context, const Args& args) {
  if (!args.named.empty() || args.positional.empty() || args.positional.size() > 3) {
    return type_error("range: expected one to three integers");
  }
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < args.positional.size(); ++i) {
    LATHE_TRY(bounds[i], whole_argument("range", args.positional[i]));
  }
  if (args.positional.size() == 1) bounds[1] = std::exchange(bounds[0], 0);
  const auto [start, stop, step] = bounds;
  if (step == 0) return type_error("range: the step is zero");
  const double count = (static_cast<double>(stop) - static_cast<double>(start)) / static_cast<double>(step);
  if (count > static_cast<double>(kMaxRange)) {
    return Error{Errc::kResourceExhausted, str("range: more than ", kMaxRange, " numbers")};
  }
  std::vector<Value> out;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    out.push_back(Value(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return make_list(context, std::move(out), ListForm::kRange);
}

Result<Value> call_dict(Context& context, const Args& args) {
  if (args.positional.size() > 1) return type_error("dict: expected at most one positional argument");
  std::vector<std::pair<Value, Value>> entries;
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is_dict()) {
      entries = source.dict()->entries;
    } else {
      LATHE_TRY(const Value::ListPtr pairs, iterate(context, source));
      for (const Value& pair : pairs->items) {
        LATHE_TRY(const Value::ListPtr parts, iterate(context, pair));
        if (parts->items.size() != 2) return type_error("dict: expected pairs");
        entries.emplace_back(parts->items[0], parts->items[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) entries.emplace_back(Value::string(name), value);
  return make_dict(context, std::move(entries));
}

Result<Value> call_namespace(Context& context, const Args& args) {
  LATHE_TRY(const Value dict, call_dict(context, args));
  auto space = std::make_shared<Namespace>();
  for (const auto& [key, value] : dict.dict()->entries) {
    if (!key.is_string()) return type_error("namespace: attribute names must be strings");
    space->attributes.emplace_back(key.bytes(), value);
  }
  LATHE_TRY(context.budget.steps(8));
  context.namespaces.push_back(space);
  return Value(std::move(space));
}

// Only known directives, one at a time, so that the length stays bounded whatever the format says.
Result<Value> call_strftime_now(Context& context, const Args& args) {
  LATHE_TRY(const auto bound, bind("strftime_now", args, {"format"}));
  if (bound[0] == nullptr) return type_error("strftime_now: expected a format");
  LATHE_TRY(const Text format, text_argument("strftime_now", *bound[0]));
  const std::tm now = context.clock();
  TextBuilder out(context.budget);
  for (size_t at = 0; at < format.bytes.size(); ++at) {
    const char c = format.bytes[at];
    if (c != '%' || at + 1 == format.bytes.size()) {
      out.append_slice(format, at, at + 1);
      continue;
    }
    std::string directive = "%";
    if (format.bytes[at + 1] == '-' && at + 2 < format.bytes.size()) directive += format.bytes[++at];
    directive += format.bytes[++at];
    if (std::string_view("aAbBcdDeFHIjklmMnpPrRsStTuUVwWxXyYzZ%").find(directive.back()) == std::string_view::npos) {
      return type_error(str("strftime_now: unknown directive ", quoted(directive, 10)));
    }
    char buffer[128];
    out.append(std::string_view(buffer, std::strftime(buffer, sizeof buffer, directive.c_str(), &now)));
    LATHE_TRY(out.status());
  }
  return make_text(out);
}

Result<Value> call_raise_exception(const Args& args) {
  LATHE_TRY(const auto bound, bind("raise_exception", args, {"message"}));
  if (bound[0] == nullptr || !bound[0]->is_string()) return type_error("raise_exception: expected a message");
  std::string message = bound[0]->bytes().substr(0, kMaxMessage);
  while (!message.empty() && !is_valid_utf8(message)) message.pop_back();  // the cut may split a character
  for (char& c : message) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return type_error(std::move(message));
}

constexpr std::string_view kFunctions[] = {
    "range", "dict", "namespace", "raise_exception", "strftime_now", "from_json"};

}  // namespace

Value find_function(std::string_view name) {
  for (std::string_view known : kFunctions) {
    if (known != name) continue;
    return Value(std::make_shared<const Callable>(Callable{.name = std::string(name)}));
  }
  return Value::undefined(str("", quoted(name, 60), " is undefined"));
}

Result<Value> call_builtin(Context& context, const Callable& callable, const Args& args) {
  if (callable.kind == Callable::Kind::kMethod) return call_method(context, callable, args);
  if (callable.name == "range") return call_range(context, args);
  if (callable.name == "dict") return call_dict(context, args);
  if (callable.name == "namespace") return call_namespace(context, args);
  if (callable.name == "strftime_now") return call_strftime_now(context, args);
  if (callable.name == "raise_exception") return call_raise_exception(args);
  LATHE_TRY(const auto bound, bind("from_json", args, {"text"}));
  if (bound[0] == nullptr) return type_error("from_json: expected a string");
  return find_filter("from_json")(context, *bound[0], {});
}

}  // namespace lathe::jinja
