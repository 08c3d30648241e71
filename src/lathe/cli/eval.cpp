// lathe eval logits: logits of every position.
#include "lathe/cli/common.h"
#include "lathe/formats/checkpoint.h"

namespace lathe::cli {

namespace {

template <class T>
StoredTensor stored(const std::string& name,
                    DType dtype,
                    const std::vector<int64_t>& shape,
                    const std::vector<T>& values) {
  return {.name = name, .dtype = dtype, .shape = shape, .bytes = std::as_bytes(std::span(values))};
}

// The contract of `eval logits`: logits, and with --trace hidden, final_norm and routing per MoE layer.
Status eval_logits(const EvalLogitsOptions& o) {
  LATHE_TRY(const std::unique_ptr<Engine> engine, open_engine(o.engine));
  LATHE_TRY(const std::vector<int32_t> ids, parse_token_ids(o.token_ids));
  const ModelConfig& config = engine->config();
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<float> logits;
  ForwardTrace trace;
  LATHE_TRY(engine->score(
      ids,
      [&](int64_t, int64_t rows, const float* values) {
        logits.insert(logits.end(), values, values + rows * config.vocab_size);
        return true;
      },
      o.trace ? &trace : nullptr));
  std::vector<StoredTensor> tensors;
  tensors.push_back(stored("logits", DType::kF32, {tokens, config.vocab_size}, logits));
  std::vector<float> hidden;
  if (o.trace) {
    for (const std::vector<float>& layer : trace.hidden) hidden.insert(hidden.end(), layer.begin(), layer.end());
    const auto layers = static_cast<int64_t>(trace.hidden.size());
    tensors.push_back(stored("hidden", DType::kF32, {layers, tokens, config.hidden_size}, hidden));
    tensors.push_back(stored("final_norm", DType::kF32, {tokens, config.hidden_size}, trace.final_norm));
    for (size_t i = 0; i < trace.routing.size(); ++i) {
      if (trace.routing[i].experts.empty()) continue;
      const std::vector<int64_t> shape{tokens, config.num_experts_per_tok};
      tensors.push_back(stored(str("layer", i, ".router_idx"), DType::kI32, shape, trace.routing[i].experts));
      tensors.push_back(stored(str("layer", i, ".router_weight"), DType::kF32, shape, trace.routing[i].weights));
    }
  }
  LATHE_TRY(write_safetensors(o.out, tensors));
  if (!o.engine.json) return {};
  Json out = Json::object();
  out.set("out", o.out);
  out.set("tokens", tokens);
  out.set("vocab_size", config.vocab_size);
  return write_json(out);
}

}  // namespace

int run_eval_logits(const EvalLogitsOptions& options) {
  const Status status = eval_logits(options);
  return status ? kExitOk : report(status.error());
}

}  // namespace lathe::cli
