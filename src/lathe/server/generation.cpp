#include "lathe/server/generation.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "lathe/base/clock.h"
#include "lathe/server/request_log.h"

namespace lathe::server {

std::variant<Generation::Prepared, ApiError> Generation::prepare_body(const ServedModel& model,
                                                                      bool chat,
                                                                      const std::string& body) {
  Prepared out;
  std::optional<ApiError> error = chat ? parse_chat_request(body, model.limits, out.request)
                                       : parse_completion_request(body, model.limits, out.request);
  if (error) return *std::move(error);
  std::variant<PreparedRequest, ApiError> prepared = prepare(model, out.request);
  if (auto* wrong = std::get_if<ApiError>(&prepared)) return std::move(*wrong);
  out.engine = std::move(std::get<PreparedRequest>(prepared));
  return out;
}

void Generation::start(bool chat, Call call, std::function<void()> on_ended) {
  on_ended_ = std::move(on_ended);
  path_ = call.path;
  client_ = call.client;
  key_ = call.key;
  started_at_ = now_seconds();
  waiting_share_ = 1;
  ++state_.waiting;
  ++state_.metrics.preparing;
  exchange_->on_closed = [self = shared_from_this()] { self->client_left(); };
  exchange_->on_drained = [self = shared_from_this()] { self->pump(); };
  state_.service.prepare([self = shared_from_this(), chat, call = std::move(call)]() mutable {
    std::variant<Prepared, ApiError> result = internal_error();
    // Nothing here throws but the standard library where memory runs out: the request fails, not the server.
    try {
      result = prepare_body(self->state_.model, chat, call.body);
    } catch (const std::exception& e) {
      log_internal_error(e.what());
    }
    call = {};
    const Post post = self->state_.post;
    auto shared = std::make_shared<std::variant<Prepared, ApiError>>(std::move(result));
    post([self = std::move(self), shared] { self->on_prepared(std::move(*shared)); });
  });
}

void Generation::on_prepared(std::variant<Prepared, ApiError> result) {
  --state_.metrics.preparing;
  if (ended_) return;
  if (const auto* error = std::get_if<ApiError>(&result)) return fail(*error);
  Prepared& prepared = std::get<Prepared>(result);
  const auto answers = std::ssize(prepared.engine.requests);
  // A request with many answers waits for its turn like as many requests; alone it may always go.
  if (state_.waiting > waiting_share_ && state_.waiting + answers - 1 > state_.max_queue) return fail(queue_full());
  state_.waiting += answers - 1;
  waiting_share_ = answers;
  n_ = prepared.request.n;
  stream_ = prepared.request.stream;
  answer_.emplace(state_.model, prepared.request, prepared.engine.prompts, prepared.engine.answer);
  last_token_at_.resize(static_cast<size_t>(answers));
  finished_.resize(static_cast<size_t>(answers));
  state_.metrics.params_n.observe(static_cast<double>(n_));
  if (prepared.request.max_tokens >= 0) {
    state_.metrics.params_max_tokens.observe(static_cast<double>(prepared.request.max_tokens));
  }
  for (Request& request : prepared.engine.requests) request.cache_scope = key_;
  // The job is woken by the engine's thread; it must not keep this alive, nor be kept by it.
  const Post post = state_.post;
  job_ = std::make_shared<Job>(std::move(prepared.engine.requests), [weak = weak_from_this(), post] {
    post([weak] {
      if (const std::shared_ptr<Generation> self = weak.lock()) self->pump();
    });
  });
  state_.service.submit(job_);
}

void Generation::pump() {
  if (ended_ || !answer_) return;
  // News wait in the job, where they take little room, until the client has read what it has.
  if (exchange_->unsent() > kHighWater) return;
  std::vector<Update> updates = job_->take();
  if (updates.empty()) return;
  record(updates);
  std::string events = answer_->take(std::move(updates));
  if (job_->overflowed()) {
    return fail(
        {.status = 408, .message = "the client reads too slowly: its answer was given up", .code = "client_too_slow"});
  }
  if (answer_->error()) return fail(*answer_->error());
  if (stream_ && !stream_begun_ && (!events.empty() || answer_->done())) {
    stream_begun_ = true;
    exchange_->begin_stream();
  }
  if (!events.empty()) exchange_->write(std::move(events));
  if (answer_->done()) complete();
}

void Generation::record(const std::vector<Update>& updates) {
  Metrics& m = state_.metrics;
  for (const Update& update : updates) {
    double& last = last_token_at_[update.choice];
    auto tokens = std::ssize(update.tokens);
    const bool first = last == 0.0 && (tokens > 0 || update.finished);
    if (first) {
      --waiting_share_;
      --state_.waiting;
    }
    if (tokens > 0) {
      if (first) {
        m.time_to_first_token.observe(update.first_at - started_at_);
        last = update.first_at;
        --tokens;
      }
      if (tokens > 0) {
        m.time_between_tokens.observe((update.at - last) / static_cast<double>(tokens), static_cast<uint64_t>(tokens));
      }
      last = update.at;
    }
    if (!update.finished) continue;
    finished_[update.choice] = true;
    if (!update.finished->has_value()) {
      ++m.finished["error"];
      continue;
    }
    const Completion& c = **update.finished;
    ++m.finished[c.finish_reason == FinishReason::kCancelled ? "abort" : std::string(name_of(c.finish_reason))];
    m.queue_time.observe(c.queued_s);
    m.prefill_time.observe(c.prefill_s - c.queued_s);
    m.decode_time.observe(c.decode_s);
    m.prompt_tokens.observe(static_cast<double>(c.prompt_tokens));
    m.generation_tokens.observe(static_cast<double>(c.completion_tokens));
  }
}

void Generation::fail(const ApiError& error) {
  if (job_ != nullptr) state_.service.cancel(job_);
  if (stream_begun_) {
    exchange_->write(stream_event(to_json(error)));
    exchange_->end_stream();
  } else {
    Reply reply{.status = error.status, .body = to_json(error).dump()};
    if (error.retry_after_s > 0) reply.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
    exchange_->reply(std::move(reply));
  }
  end(error.status);
}

void Generation::complete() {
  if (stream_) {
    exchange_->write(answer_->end_of_stream());
    exchange_->end_stream();
  } else {
    exchange_->reply({.body = answer_->document().dump()});
  }
  state_.metrics.request_latency.observe(now_seconds() - started_at_);
  end(200);
}

void Generation::client_left() {
  if (ended_) return;
  ++state_.metrics.disconnects;
  if (job_ != nullptr) state_.service.cancel(job_);
  end(499);
}

void Generation::abort(const ApiError& error) {
  if (!ended_) fail(error);
}

void Generation::end(int status) {
  ended_ = true;
  state_.waiting -= std::exchange(waiting_share_, 0);
  // Answers whose end nobody waits for any more.
  state_.metrics.finished["abort"] += static_cast<uint64_t>(std::ranges::count(finished_, false));
  state_.metrics.count_response(path_, status);
  if (state_.log_requests) {
    log_request({.client = client_,
                 .method = "POST",
                 .path = path_,
                 .status = status,
                 .seconds = now_seconds() - started_at_,
                 .prompt_tokens = answer_ ? answer_->usage().prompt_tokens : 0,
                 .cached_tokens = answer_ ? answer_->usage().cached_tokens : 0,
                 .completion_tokens = answer_ ? answer_->usage().completion_tokens : 0});
  }
  const std::shared_ptr<Generation> self = shared_from_this();
  exchange_->on_closed = {};
  exchange_->on_drained = {};
  exchange_.reset();
  if (on_ended_) std::exchange(on_ended_, {})();
}

}  // namespace lathe::server
