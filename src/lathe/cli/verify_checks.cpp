#include "lathe/cli/verify_checks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "lathe/attention/rope.h"
#include "lathe/base/scalar.h"
#include "lathe/kernels/kernel_table.h"
#include "lathe/model/config_rope.h"
#include "lathe/runtime/prompt.h"
#include "lathe/tensor/blocks.h"

namespace lathe::cli {

namespace {

// The same for a block format: a scale that is not finite makes its values so.
int64_t first_non_finite_block(const StoredTensor& tensor) {
  const int64_t n = block_elements(tensor.dtype);
  const int64_t bytes = block_bytes(tensor.dtype);
  std::array<float, kSuperBlock> values{};
  for (int64_t block = 0; block < tensor.elements() / n; ++block) {
    decode_blocks(tensor.dtype, tensor.bytes.data() + block * bytes, values.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      if (!std::isfinite(values[static_cast<size_t>(i)])) return block * n + i;
    }
  }
  return -1;
}

// Index of the first element that is NaN or infinite, or -1.
int64_t first_non_finite(const StoredTensor& tensor) {
  const int64_t n = tensor.elements();
  const auto* bytes = reinterpret_cast<const uint8_t*>(tensor.bytes.data());
  const auto scan16 = [&](uint16_t exponent) {
    for (int64_t i = 0; i < n; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, bytes + 2 * i, sizeof bits);
      if ((bits & exponent) == exponent) return i;
    }
    return int64_t{-1};
  };
  switch (tensor.dtype) {
    case DType::kBF16:
      return scan16(0x7f80);
    case DType::kF16:
      return scan16(0x7c00);
    case DType::kF32:
      for (int64_t i = 0; i < n; ++i) {
        uint32_t bits = 0;
        std::memcpy(&bits, bytes + 4 * i, sizeof bits);
        if ((bits & 0x7f800000U) == 0x7f800000U) return i;
      }
      return -1;
    case DType::kF8E4M3:
      for (int64_t i = 0; i < n; ++i) {
        if ((bytes[i] & 0x7f) == 0x7f) return i;
      }
      return -1;
    default:
      return is_block_format(tensor.dtype) ? first_non_finite_block(tensor) : -1;
  }
}

std::string describe_gate(const ModelConfig& c) {
  std::string out = str(c.num_experts_per_tok, " of ", c.n_routed_experts, " experts by ");
  out += c.scoring_func == ScoringFunc::kSoftmax ? "softmax over all" : "sigmoid";
  if (c.topk_method == TopkMethod::kNoauxTc) out += " plus e_score_correction_bias (selection only)";
  if (c.n_group > 1) {
    out += str(", inside the ",
               c.topk_group,
               " of ",
               c.n_group,
               " groups with the best ",
               c.topk_method == TopkMethod::kNoauxTc ? "sum of two scores" : "single score");
  }
  const bool v3 = c.model_type == ModelType::kDeepseekV3 || c.model_type == ModelType::kKimiK2;
  if (c.norm_topk_prob) out += ", weights normalised";
  if (!c.norm_topk_prob || v3) out += str(", weights times ", c.routed_scaling_factor);
  return out;
}

}  // namespace

void verify_formulas(const ModelConfig& c, VerifyReport& report) {
  const RopeParameters rope = rope_parameters(c);
  const std::string layout = c.rope_layout == RopeLayout::kInterleaved ? "pairs (2i, 2i+1)" : "pairs (i, i + d/2)";
  if (c.rope_scaling.type == RopeScalingType::kYarn) {
    const YarnBounds bounds = yarn_bounds(rope);
    report.ok("rope",
              str("YaRN factor ",
                  rope.factor,
                  " from ",
                  rope.original_max_position_embeddings,
                  " positions, ramp over pairs ",
                  bounds.low,
                  " to ",
                  bounds.high,
                  ", cos/sin times ",
                  fixed(rope_cos_sin_factor(rope), 6),
                  ", scores times ",
                  fixed(rope_softmax_factor(rope), 6),
                  " (mscale ",
                  rope.mscale,
                  "/",
                  rope.mscale_all_dim,
                  "), ",
                  layout));
  } else {
    report.ok("rope", str(name_of(c.rope_scaling.type), " scaling, theta ", c.rope_theta, ", ", layout));
  }
  const int64_t width = c.attention == AttentionKind::kMla ? c.qk_head_dim() : c.head_dim;
  report.ok("softmax scale",
            str(fixed(attention_scale(c), 10),
                " = ",
                width,
                "^-0.5 x ",
                fixed(attention_scale(c) * std::sqrt(static_cast<double>(width)), 6)));
  if (c.n_routed_experts > 0) report.ok("routing", describe_gate(c));
  if (c.attention == AttentionKind::kMla && c.rms_norm_eps != kLatentNormEps) {
    report.ok("norms", str("blocks use eps ", c.rms_norm_eps, ", latents ", kLatentNormEps));
  }
}

void verify_finite(const ModelWeights& weights, ThreadPool& pool, VerifyReport& report) {
  const std::vector<const StoredTensor*> tensors = weights.checkpoint().tensors();
  std::vector<int64_t> found(tensors.size(), -1);
  pool.run_each(std::ssize(tensors), [&](int) {
    return [&](int64_t i) {
      const auto index = static_cast<size_t>(i);
      found[index] = first_non_finite(*tensors[index]);
    };
  });
  uint64_t elements = 0;
  size_t bad = 0;
  std::string first;
  for (size_t i = 0; i < tensors.size(); ++i) {
    elements += static_cast<uint64_t>(tensors[i]->elements());
    if (found[i] < 0) continue;
    ++bad;
    if (first.empty()) first = str(tensors[i]->name, " element ", found[i]);
  }
  if (bad == 0) {
    report.ok("finite", str(with_commas(static_cast<int64_t>(elements)), " stored values, no NaN or infinity"));
  } else {
    report.failed("finite", str("expected finite values, found NaN or infinity in ", bad, " tensors, first ", first));
  }
}

namespace {

// The ids that config.json and the tokenizer give to the same special token must agree.
void compare_special(std::string_view name,
                     const std::optional<int32_t>& tokenizer_id,
                     const std::vector<int64_t>& config_ids,
                     VerifyReport& report) {
  if (!tokenizer_id || config_ids.empty()) return;
  if (std::ranges::find(config_ids, *tokenizer_id) != config_ids.end()) return;
  report.warning("special tokens",
                 str(name, ": config.json has ", config_ids.front(), ", the tokenizer ", *tokenizer_id));
}

void verify_template(const Tokenizer& tokenizer, VerifyReport& report) {
  if (tokenizer.chat_template().empty()) {
    report.ok("chat template", "none in the checkpoint");
    return;
  }
  const Result<ChatTemplate> chat = open_chat_template(tokenizer, std::nullopt);
  if (!chat) return report.failed("chat template", chat.error().message);
  // A user who writes the model's own special tokens must not end up with their ids in the prompt.
  const std::string forged = str(tokenizer.eos_text(), "Hello");
  const Json messages(Json::Array{Json(Json::Object{{"role", "user"}, {"content", forged}})});
  const Result<Json> variables = template_variables(tokenizer, messages);
  if (!variables) return report.failed("chat template", variables.error().message);
  const Result<std::string> text = render_chat(*chat, *variables);
  if (!text) return report.failed("chat template", text.error().message);
  const Result<std::vector<int32_t>> ids = encode_chat(tokenizer, *chat, *variables);
  if (!ids) return report.failed("chat template", ids.error().message);
  if (text->find("Hello") == std::string::npos) {
    return report.failed("chat template", "expected the user's text in the rendered prompt, found none");
  }
  if (tokenizer.eos_id() && std::ranges::count(*ids, *tokenizer.eos_id()) > 0) {
    return report.failed("chat template",
                         "expected special tokens in user text to stay text, found their ids in the prompt");
  }
  const bool doubled =
      tokenizer.bos_id() && ids->size() > 1 && (*ids)[0] == *tokenizer.bos_id() && (*ids)[1] == *tokenizer.bos_id();
  if (doubled) return report.failed("chat template", "expected one BOS, found two");
  report.ok("chat template",
            str("renders; ", ids->size(), " tokens for a short user message; special tokens in user text stay text"));
}

}  // namespace

const Tokenizer* verify_tokenizer(const ModelFiles& files,
                                  const ModelConfig& config,
                                  std::optional<Tokenizer>& tokenizer,
                                  VerifyReport& report) {
  if (!files.has_tokenizer()) {
    report.warning("tokenizer", files.missing_tokenizer() + ": only token ids can be generated");
    return nullptr;
  }
  Result<Tokenizer> opened = files.tokenizer();
  if (!opened) {
    report.failed("tokenizer", opened.error().message);
    return nullptr;
  }
  tokenizer.emplace(std::move(*opened));
  const Tokenizer& t = *tokenizer;
  if (t.vocabulary_size() > config.vocab_size) {
    report.failed("vocabulary",
                  str("expected at most vocab_size ", config.vocab_size, " tokens, found ", t.vocabulary_size()));
    return nullptr;
  }
  int64_t known = 0;
  for (int32_t id = 0; id < t.vocabulary_size(); ++id) known += t.contains(id);
  const std::string detail = str(with_commas(known),
                                 " tokens for ",
                                 with_commas(config.vocab_size),
                                 " rows; ",
                                 config.vocab_size - known,
                                 " rows masked");
  // Another model's tokenizer covers half of the rows or less.
  if (known * 2 < config.vocab_size) {
    report.warning("vocabulary", detail + ": does this tokenizer belong to this model?");
  } else {
    report.ok("vocabulary", detail);
  }
  const std::string sample = "Hello, world! 3.14159\n\n  naïve café — 你好，世界 🙂";
  if (t.decode_bytes(t.encode(sample, AddedTokens::kPlain), false) == sample) {
    report.ok("tokenizer", "text of several scripts survives encoding and decoding");
  } else {
    report.failed("tokenizer", "expected decode(encode(text)) to be the text, found another");
  }
  std::vector<int64_t> bos;
  if (config.bos_token_id) bos.push_back(*config.bos_token_id);
  compare_special("bos_token_id", t.bos_id(), bos, report);
  compare_special("eos_token_id", t.eos_id(), config.eos_token_ids, report);
  if (config.eos_token_ids.empty() && !t.eos_id()) {
    report.warning("special tokens", "no end-of-sequence token: answers end at the context's end only");
  } else {
    report.ok("special tokens",
              str("BOS ",
                  t.bos_id() ? str(*t.bos_id()) : std::string("none"),
                  ", EOS ",
                  t.eos_id() ? str(*t.eos_id()) : std::string("none")));
  }
  verify_template(t, report);
  return &t;
}

}  // namespace lathe::cli
