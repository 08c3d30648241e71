#include "lathe/server/api.h"

#include <exception>
#include <utility>

#include "lathe/base/ascii.h"
#include "lathe/base/str.h"
#include "lathe/server/page.h"
#include "lathe/server/request_log.h"

namespace lathe::server {

namespace {

Reply json_reply(const Json& json) {
  return {.body = json.dump()};
}

// %2F and the like; nothing when it is no such text.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size() || hex_digit_value(text[i + 1]) < 0 || hex_digit_value(text[i + 2]) < 0) return {};
    out += static_cast<char>(hex_digit_value(text[i + 1]) * 16 + hex_digit_value(text[i + 2]));
    i += 2;
  }
  return out;
}

Json model_json(const ServedModel& model) {
  Json out = Json::object();
  out.set("id", model.id);
  out.set("object", "model");
  out.set("created", model.created);
  out.set("owned_by", "lathe");
  out.set("max_model_len", model.context);
  out.set("chat_template", model.chat_template.has_value());
  return out;
}

std::variant<Json, ApiError> tokenize(const ServedModel& model, const std::string& body) {
  TokenizeRequest request;
  if (std::optional<ApiError> error = parse_tokenize_request(body, request)) return *std::move(error);
  std::variant<std::vector<int32_t>, ApiError> ids = request.text
                                                         ? model.encode_text(*request.text, request.add_special_tokens)
                                                         : model.encode_chat_prompt(request.template_variables);
  if (auto* error = std::get_if<ApiError>(&ids)) return std::move(*error);
  const auto& tokens = std::get<std::vector<int32_t>>(ids);
  Json out = Json::object();
  out.set("count", static_cast<int64_t>(tokens.size()));
  out.set("max_model_len", model.context);
  out.set("tokens", Json::list(tokens));
  if (request.with_pieces) {
    Json pieces = Json::array();
    for (const int32_t id : tokens) pieces.push(model.tokenizer->token_bytes(id));
    out.set("token_strs", std::move(pieces));
  }
  return out;
}

std::variant<Json, ApiError> detokenize(const ServedModel& model, const std::string& body) {
  DetokenizeRequest request;
  if (std::optional<ApiError> error = parse_detokenize_request(body, model.limits, request)) return *std::move(error);
  const std::string text = model.tokenizer->decode(request.tokens, /*skip_special=*/false);
  Json out = Json::object();
  out.set("prompt", text);   // vLLM's name
  out.set("content", text);  // llama-server's
  return out;
}

std::variant<Json, ApiError> apply_template(const ServedModel& model, const std::string& body) {
  TemplateRequest request;
  if (std::optional<ApiError> error = parse_template_request(body, request)) return *std::move(error);
  std::variant<std::string, ApiError> text = model.render(request.template_variables);
  if (auto* error = std::get_if<ApiError>(&text)) return std::move(*error);
  Json out = Json::object();
  out.set("prompt", std::get<std::string>(std::move(text)));
  return out;
}

std::variant<Json, ApiError> answer_of(Endpoint endpoint, const ServedModel& model, const std::string& body) {
  switch (endpoint) {
    case Endpoint::kTokenize:
      return tokenize(model, body);
    case Endpoint::kDetokenize:
      return detokenize(model, body);
    default:
      return apply_template(model, body);
  }
}

}  // namespace

Reply error_reply(const ApiError& error) {
  Reply reply{.status = error.status, .body = to_json(error).dump()};
  if (error.retry_after_s > 0) reply.headers.emplace_back("Retry-After", str(error.retry_after_s));
  if (!error.allow.empty()) reply.headers.emplace_back("Allow", error.allow);
  if (error.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

Api::Api(const ServedModel& model, Service& service, Post post, ApiOptions options)
    : model_(model),
      options_(std::move(options)),
      state_{.model = model,
             .service = service,
             .post = std::move(post),
             .max_queue = options_.max_queue,
             .log_requests = options_.log_requests} {}

void Api::handle(const Route& route, Call call, std::shared_ptr<Exchange> exchange) {
  switch (route.endpoint) {
    case Endpoint::kChatCompletions:
      return generate(/*chat=*/true, std::move(call), std::move(exchange));
    case Endpoint::kCompletions:
      return generate(/*chat=*/false, std::move(call), std::move(exchange));
    case Endpoint::kTokenize:
    case Endpoint::kDetokenize:
    case Endpoint::kApplyTemplate:
      return answer_later(route.endpoint, std::move(call), std::move(exchange));
    case Endpoint::kModels:
    case Endpoint::kModel:
      return respond(call, *exchange, models_reply(call, route.endpoint));
    case Endpoint::kHealth: {
      Json out = Json::object();
      out.set("status", state_.draining ? "draining" : "ok");
      Reply reply = json_reply(out);
      reply.status = state_.draining ? 503 : 200;
      return respond(call, *exchange, std::move(reply));
    }
    case Endpoint::kVersion: {
      Json out = Json::object();
      out.set("version", options_.version);
      return respond(call, *exchange, json_reply(out));
    }
    case Endpoint::kMetrics:
      return respond(call,
                     *exchange,
                     {.content_type = "text/plain; version=0.0.4; charset=utf-8",
                      .body = state_.metrics.render(options_.metrics_prefix, model_.id, state_.service.stats())});
    case Endpoint::kPage:
      return respond(call, *exchange, page_reply(call.if_none_match));
  }
}

void Api::respond(const Call& call, Exchange& exchange, Reply reply) {
  const Route* route = find_route(call.path);
  const int status = reply.status;
  state_.metrics.count_response(route != nullptr ? route->path : "other", status);
  if (options_.log_requests && (route == nullptr || !route->quiet)) {
    log_request({.client = call.client, .method = call.method, .path = call.path, .status = status});
  }
  exchange.reply(std::move(reply));
}

Reply Api::models_reply(const Call& call, Endpoint endpoint) const {
  if (endpoint == Endpoint::kModel) {
    const std::string name =
        percent_decoded(std::string_view(call.path).substr(std::string_view("/v1/models/").size()));
    if (name == model_.id) return json_reply(model_json(model_));
    return error_reply(
        not_found(str("model: expected ", quoted(model_.id), ", found ", quoted(name)), "model_not_found"));
  }
  Json list = Json::array();
  list.push(model_json(model_));
  Json out = Json::object();
  out.set("object", "list");
  out.set("data", std::move(list));
  return json_reply(out);
}

void Api::generate(bool chat, Call call, std::shared_ptr<Exchange> exchange) {
  if (state_.draining) return respond(call, *exchange, error_reply(unavailable("the server is shutting down")));
  if (state_.waiting >= state_.max_queue) return respond(call, *exchange, error_reply(queue_full()));
  auto generation = std::make_shared<Generation>(state_, std::move(exchange));
  active_.insert(generation);
  generation->start(chat, std::move(call), [this, raw = std::weak_ptr<Generation>(generation)] {
    active_.erase(raw.lock());
    check_idle();
  });
}

void Api::answer_later(Endpoint endpoint, Call call, std::shared_ptr<Exchange> exchange) {
  if (state_.draining) return respond(call, *exchange, error_reply(unavailable("the server is shutting down")));
  if (state_.waiting >= state_.max_queue) return respond(call, *exchange, error_reply(queue_full()));
  ++pending_;
  ++state_.waiting;
  // The call's body goes with the task, the rest stays for the log.
  Call head{.method = call.method, .path = call.path, .client = call.client};
  state_.service.prepare([this, endpoint, call = std::move(call), head = std::move(head), exchange]() mutable {
    Reply reply = error_reply(internal_error());
    try {
      std::variant<Json, ApiError> result = answer_of(endpoint, model_, call.body);
      const auto* error = std::get_if<ApiError>(&result);
      reply = error != nullptr ? error_reply(*error) : json_reply(std::get<Json>(result));
    } catch (const std::exception& e) {
      log_internal_error(e.what());
    }
    call = {};
    auto shared = std::make_shared<Reply>(std::move(reply));
    state_.post([this, head = std::move(head), exchange = std::move(exchange), shared] {
      --pending_;
      --state_.waiting;
      respond(head, *exchange, std::move(*shared));
      check_idle();
    });
  });
}

void Api::drain(std::function<void()> on_idle) {
  state_.draining = true;
  on_idle_ = std::move(on_idle);
  check_idle();
}

void Api::abort_all() {
  const std::set<std::shared_ptr<Generation>> active = active_;
  for (const std::shared_ptr<Generation>& generation : active) {
    generation->abort(unavailable("the server is shutting down"));
  }
}

void Api::check_idle() {
  if (state_.draining && active_.empty() && pending_ == 0 && on_idle_) std::exchange(on_idle_, {})();
}

}  // namespace lathe::server
