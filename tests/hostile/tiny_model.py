"""Two tiny valid models that the hostile cases break one piece at a time. Standard library only; same bytes every time.

A Model holds the parts of a model folder as plain Python values; `write` makes the folder. `files` overrides: a file
name maps to bytes, to None (not written) or to a function that gets the path (links, pipes, folders).
"""

import copy
import json
import os
import random
import struct

DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}

BOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
EOS = "<\uff5cend\u2581of\u2581sentence\uff5c>"
USER = "<\uff5cUser\uff5c>"
ASSISTANT = "<\uff5cAssistant\uff5c>"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

MESSAGES = {"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True}


def elements(shape):
    count = 1
    for extent in shape:
        count *= extent
    return count


def safetensors_bytes(tensors, metadata=None, pad=True):
    """tensors: name -> (dtype, shape, bytes), written in this order."""
    header = {"__metadata__": metadata or {"format": "pt"}}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def raw_safetensors(header, data=b"", length=None):
    """A file from a header given as text, bytes or JSON value, with any length field."""
    if not isinstance(header, (str, bytes)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def bf16_bytes(values):
    return b"".join(struct.pack("<f", v)[2:] for v in values)


def byte_alphabet():
    """The 256 printable stand-ins of byte-level BPE, by byte."""
    plain = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    out, extra = {}, 0
    for b in range(256):
        if b in plain:
            out[b] = chr(b)
        else:
            out[b] = chr(0x100 + extra)
            extra += 1
    return out


def make_tokenizer():
    alphabet = byte_alphabet()
    vocab = {alphabet[b]: b for b in range(256)}
    merges = ["h e", "l l", "he ll", "\u0120 w", "o r", "\u0120w or", "h i", "i n"]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    first = len(vocab)
    added = [
        {
            "id": first + i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, text in enumerate([BOS, EOS, USER, ASSISTANT])
    ]
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}"}, "behavior": "Isolated", "invert": False}
    words = {
        "type": "Split",
        "behavior": "Isolated",
        "invert": False,
        "pattern": {
            "Regex": (r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
        },
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, words, level]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


VOCAB = 256 + 8 + 4


def make_config(v3):
    config = {
        "architectures": ["DeepseekV3ForCausalLM" if v3 else "DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v3" if v3 else "deepseek_v2",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": VOCAB - 4,
        "eos_token_id": VOCAB - 3,
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "kv_lora_rank": 16,
        "max_position_embeddings": 256,
        "moe_intermediate_size": 16,
        "moe_layer_freq": 1,
        "n_group": 4,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "norm_topk_prob": v3,
        "num_attention_heads": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 4,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 64,
            "type": "yarn",
        },
        "rope_theta": 10000,
        "routed_scaling_factor": 1.0,
        "scoring_func": "sigmoid" if v3 else "softmax",
        "tie_word_embeddings": False,
        "topk_group": 2,
        "topk_method": "noaux_tc" if v3 else "group_limited_greedy",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "v_head_dim": 8,
        "vocab_size": VOCAB,
    }
    if v3:
        config["quantization_config"] = {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [128, 128],
        }
    else:
        config["aux_loss_alpha"] = 0.001
        config["seq_aux"] = True
    return config


def tensor_shapes(c):
    """name -> shape of every tensor, in forward order."""
    d, h = c["hidden_size"], c["num_attention_heads"]
    nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    out = {"model.embed_tokens.weight": [c["vocab_size"], d]}
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        attention, mlp = layer + "self_attn.", layer + "mlp."
        out[layer + "input_layernorm.weight"] = [d]
        out[attention + "q_a_proj.weight"] = [c["q_lora_rank"], d]
        out[attention + "q_a_layernorm.weight"] = [c["q_lora_rank"]]
        out[attention + "q_b_proj.weight"] = [h * (nope + rope), c["q_lora_rank"]]
        out[attention + "kv_a_proj_with_mqa.weight"] = [c["kv_lora_rank"] + rope, d]
        out[attention + "kv_a_layernorm.weight"] = [c["kv_lora_rank"]]
        out[attention + "kv_b_proj.weight"] = [h * (nope + v), c["kv_lora_rank"]]
        out[attention + "o_proj.weight"] = [d, h * v]
        out[layer + "post_attention_layernorm.weight"] = [d]
        blocks = {mlp: c["intermediate_size"]}
        if i >= c["first_k_dense_replace"]:
            e = c["moe_intermediate_size"]
            out[mlp + "gate.weight"] = [c["n_routed_experts"], d]
            if c["topk_method"] == "noaux_tc":
                out[mlp + "gate.e_score_correction_bias"] = [c["n_routed_experts"]]
            blocks = {f"{mlp}experts.{x}.": e for x in range(c["n_routed_experts"])}
            blocks[mlp + "shared_experts."] = e * c["n_shared_experts"]
        for prefix, width in blocks.items():
            out[prefix + "gate_proj.weight"] = [width, d]
            out[prefix + "up_proj.weight"] = [width, d]
            out[prefix + "down_proj.weight"] = [d, width]
    out["model.norm.weight"] = [d]
    out["lm_head.weight"] = [c["vocab_size"], d]
    return out


def make_tensors(config):
    rng = random.Random(20240506)
    fp8 = "quantization_config" in config
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        n = elements(shape)
        if name.endswith("e_score_correction_bias"):
            tensors[name] = ("F32", shape, struct.pack(f"<{n}f", *[rng.gauss(0, 0.1) for _ in range(n)]))
        elif "norm" in name:
            tensors[name] = ("BF16", shape, bf16_bytes([1.0] * n))
        elif fp8 and "_proj" in name:
            codes = bytes((rng.randrange(0x20, 0x50) | rng.choice((0, 0x80))) for _ in range(n))
            tensors[name] = ("F8_E4M3", shape, codes)
            blocks = [-(-extent // 128) for extent in shape]
            count = elements(blocks)
            tensors[name + "_scale_inv"] = ("F32", blocks, struct.pack(f"<{count}f", *[0.02] * count))
        else:
            tensors[name] = ("BF16", shape, bf16_bytes([rng.gauss(0, 0.1) for _ in range(n)]))
    return tensors


class Model:
    """The parts of a model folder. Change them, then write()."""

    def __init__(self, v3):
        self.v3 = v3
        self.config = make_config(v3)
        self.generation = {
            "bos_token_id": VOCAB - 4,
            "eos_token_id": VOCAB - 3,
            "do_sample": True,
            "temperature": 0.3,
            "top_p": 0.95,
        }
        self.tokenizer = make_tokenizer()
        self.tokenizer_config = {
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": EOS,
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "model_max_length": 256,
            "tokenizer_class": "LlamaTokenizerFast",
            "unk_token": None,
            "chat_template": CHAT_TEMPLATE,
        }
        self.messages = MESSAGES
        self.tensors = make_tensors(self.config)
        self.shards = None  # name -> list of tensor names; None: one file
        self.weight_map = None  # overrides what follows from shards
        self.files = {}

    def copy(self):
        return copy.deepcopy(self)

    def weights_bytes(self):
        return safetensors_bytes(self.tensors)

    def split(self, count=2):
        """Deals the tensors out to shards."""
        names = list(self.tensors)
        self.shards = {f"model-{i + 1:05}-of-{count:05}.safetensors": names[i::count] for i in range(count)}
        return list(self.shards)

    def parts(self):
        """file name -> bytes, before `files` is applied."""
        out = {}
        for name, value in (
            ("config.json", self.config),
            ("generation_config.json", self.generation),
            ("tokenizer.json", self.tokenizer),
            ("tokenizer_config.json", self.tokenizer_config),
            ("messages.json", self.messages),
        ):
            out[name] = json.dumps(value, indent=1).encode()
        if self.shards is None:
            if "model.safetensors" not in self.files:
                out["model.safetensors"] = self.weights_bytes()
            return out
        for shard, names in self.shards.items():
            out[shard] = safetensors_bytes({n: self.tensors[n] for n in names})
        weight_map = {n: shard for shard, names in self.shards.items() for n in names}
        total = sum(len(data) for _, _, data in self.tensors.values())
        out["model.safetensors.index.json"] = json.dumps(
            {
                "metadata": {"total_size": total},
                "weight_map": weight_map if self.weight_map is None else self.weight_map,
            },
            indent=1,
        ).encode()
        return out

    def write(self, folder):
        os.makedirs(folder)
        parts = self.parts()
        parts.update(self.files)
        for name, content in parts.items():
            path = os.path.join(folder, name)
            if callable(content):
                content(path)
            elif content is not None:
                with open(path, "wb") as file:
                    file.write(content)
