#include "lathe/model/decoder.h"

#include "lathe/base/check.h"
#include "lathe/model/mtp.h"

namespace lathe {

int64_t canonical_expanded_until(int64_t prompt_tokens) {
  return prompt_tokens / kExpandedBlock * kExpandedBlock;
}

void append(ForwardTrace& trace, ForwardTrace next) {
  const auto join = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  trace.hidden.resize(next.hidden.size());
  trace.routing.resize(next.routing.size());
  for (size_t i = 0; i < next.hidden.size(); ++i) join(trace.hidden[i], next.hidden[i]);
  for (size_t i = 0; i < next.routing.size(); ++i) {
    join(trace.routing[i].experts, next.routing[i].experts);
    join(trace.routing[i].weights, next.routing[i].weights);
  }
  join(trace.final_norm, next.final_norm);
}

Result<Decoder> Decoder::create(const ModelConfig& config, Backend& backend) {
  Decoder decoder(config, backend);
  LATHE_TRY(decoder.x_, backend.allocate());
  LATHE_TRY(decoder.normed_, backend.allocate());
  LATHE_TRY(decoder.delta_, backend.allocate());
  return decoder;
}

void Decoder::record_hidden(const Step& step, ForwardTrace* trace) {
  if (trace == nullptr) return;
  std::vector<float>& rows =
      trace->hidden.emplace_back(step.token_ids.size() * static_cast<size_t>(config_->hidden_size));
  backend_->read(*x_, rows.data());
}

void Decoder::block(int64_t layer, ForwardTrace* trace) {
  Backend& b = *backend_;
  b.input_norm(layer, *x_, *normed_);
  b.attention(layer, *normed_, *delta_);
  b.add(*x_, *delta_);
  b.post_attention_norm(layer, *x_, *normed_);
  MoeTrace* routing = trace != nullptr ? &trace->routing.emplace_back() : nullptr;
  if (config_->is_moe_layer(layer)) {
    b.moe(layer, *normed_, *delta_, routing);
  } else {
    b.dense_ffn(layer, *normed_, *delta_);
  }
  b.add(*x_, *delta_);
}

void Decoder::forward(const Step& step, float* logits, ForwardTrace* trace) {
  LATHE_CHECK(static_cast<int64_t>(step.token_ids.size()) <= backend_->max_tokens());
  Backend& b = *backend_;
  b.begin_step(step);
  b.embed(*x_);
  record_hidden(step, trace);
  for (int64_t layer = 0; layer < config_->num_hidden_layers; ++layer) {
    block(layer, trace);
    record_hidden(step, trace);
  }
  b.final_norm(*x_, *normed_);
  if (trace != nullptr) {
    trace->final_norm.resize(step.token_ids.size() * static_cast<size_t>(config_->hidden_size));
    b.read(*normed_, trace->final_norm.data());
  }
  b.head(*normed_, logits);
}

void Decoder::forward_mtp(MtpBackend& backend, const Step& step, const float* hidden, float* logits) {
  LATHE_CHECK(&backend == backend_);
  LATHE_CHECK(static_cast<int64_t>(step.token_ids.size()) <= backend.max_tokens());
  backend.begin_mtp(step, hidden);
  backend.mtp_input(*normed_, *x_);
  block(config_->num_hidden_layers, nullptr);
  backend.mtp_norm(*x_, *normed_);
  backend.head(*normed_, logits);
}

void Decoder::store_mtp(MtpDraftBackend& backend, const Step& step, const float* hidden) {
  LATHE_CHECK(&backend == backend_);
  LATHE_CHECK(static_cast<int64_t>(step.token_ids.size()) <= backend.max_tokens());
  const int64_t layer = config_->num_hidden_layers;
  backend.begin_mtp(step, hidden);
  backend.mtp_input(*normed_, *x_);
  backend.input_norm(layer, *x_, *normed_);
  backend.store_rows(layer, *normed_);
}

}  // namespace lathe
