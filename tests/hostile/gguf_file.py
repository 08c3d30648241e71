"""The tiny model as a GGUF file whose every piece can be changed before it is put together. Standard library only."""

import struct

ALIGNMENT = 32
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
FORMATS = {
    UINT8: "<B",
    INT8: "<b",
    UINT16: "<H",
    INT16: "<h",
    UINT32: "<I",
    INT32: "<i",
    FLOAT32: "<f",
    BOOL: "<B",
    UINT64: "<Q",
    INT64: "<q",
    FLOAT64: "<d",
}
TENSOR_TYPES = {"F32": 0, "F16": 1, "BF16": 30}

LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.kv_b_proj.weight": "attn_kv_b.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.shared_experts.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_experts.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_experts.down_proj.weight": "ffn_down_shexp.weight",
}


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    return text(value) if kind == STRING else struct.pack(FORMATS[kind], value)


def array(kind, values):
    """The bytes of an array value."""
    return struct.pack("<IQ", kind, len(values)) + b"".join(scalar(kind, v) for v in values)


class Tensor:
    def __init__(self, name, ne, kind, data):
        self.name, self.ne, self.kind, self.data = name, list(ne), kind, data
        self.offset = None  # None: where it follows from the order
        self.rank = None  # None: the number of extents

    def info(self, offset):
        rank = len(self.ne) if self.rank is None else self.rank
        where = offset if self.offset is None else self.offset
        extents = b"".join(struct.pack("<Q", n) for n in self.ne)
        return text(self.name) + struct.pack("<I", rank) + extents + struct.pack("<IQ", self.kind, where)


class Gguf:
    """metadata: key -> (type, bytes of the value); tensors in file order."""

    def __init__(self, model):
        self.magic, self.version = b"GGUF", 3
        self.entry_count = self.tensor_count = None
        self.extra_entries = []  # raw bytes after the metadata, counted
        self.metadata = {}
        self.tensors = []
        self.add_metadata(model)
        self.add_tensors(model)

    def set(self, key, kind, value):
        self.metadata[key] = (kind, scalar(kind, value))

    def set_array(self, key, kind, values):
        self.metadata[key] = (ARRAY, array(kind, values))

    def tensor(self, name):
        return next(t for t in self.tensors if t.name == name)

    def add_metadata(self, model):
        c = model.config
        self.set("general.architecture", STRING, "deepseek2")
        a = "deepseek2."
        for key, field in {
            "block_count": "num_hidden_layers",
            "context_length": "max_position_embeddings",
            "embedding_length": "hidden_size",
            "feed_forward_length": "intermediate_size",
            "attention.head_count": "num_attention_heads",
            "attention.head_count_kv": "num_attention_heads",
            "attention.q_lora_rank": "q_lora_rank",
            "attention.kv_lora_rank": "kv_lora_rank",
            "attention.value_length": "v_head_dim",
            "rope.dimension_count": "qk_rope_head_dim",
            "vocab_size": "vocab_size",
            "leading_dense_block_count": "first_k_dense_replace",
            "expert_count": "n_routed_experts",
            "expert_used_count": "num_experts_per_tok",
            "expert_shared_count": "n_shared_experts",
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_group_count": "n_group",
            "expert_group_used_count": "topk_group",
        }.items():
            self.set(a + key, UINT32, c[field])
        self.set(a + "attention.key_length", UINT32, c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
        self.set(a + "attention.layer_norm_rms_epsilon", FLOAT32, c["rms_norm_eps"])
        self.set(a + "rope.freq_base", FLOAT32, c["rope_theta"])
        scaling = c["rope_scaling"]
        self.set(a + "rope.scaling.type", STRING, scaling["type"])
        self.set(a + "rope.scaling.factor", FLOAT32, scaling["factor"])
        original = scaling["original_max_position_embeddings"]
        self.set(a + "rope.scaling.original_context_length", UINT32, original)
        self.set(a + "rope.scaling.yarn_log_multiplier", FLOAT32, 0.1 * scaling["mscale_all_dim"])
        self.set(a + "expert_weights_scale", FLOAT32, c["routed_scaling_factor"])
        self.set(a + "expert_weights_norm", BOOL, c["norm_topk_prob"])
        self.add_tokenizer(model)

    def add_tokenizer(self, model):
        vocabulary = {i: token for token, i in model.tokenizer["model"]["vocab"].items()}
        added = {t["id"]: t["content"] for t in model.tokenizer["added_tokens"]}
        ids = range(len(vocabulary) + len(added))
        t = "tokenizer.ggml."
        self.set(t + "model", STRING, "gpt2")
        self.set(t + "pre", STRING, "deepseek-v3")
        self.set_array(t + "tokens", STRING, [vocabulary.get(i) or added[i] for i in ids])
        self.set_array(t + "token_type", INT32, [3 if i in added else 1 for i in ids])
        self.set_array(t + "merges", STRING, model.tokenizer["model"]["merges"])
        self.set(t + "bos_token_id", UINT32, model.config["bos_token_id"])
        self.set(t + "eos_token_id", UINT32, model.config["eos_token_id"])
        self.set(t + "add_bos_token", BOOL, True)
        self.set("tokenizer.chat_template", STRING, model.tokenizer_config["chat_template"])

    def add_tensors(self, model):
        def put(name, dtype, shape, data):
            self.tensors.append(Tensor(name, reversed(shape), TENSOR_TYPES[dtype], data))

        tensors = model.tensors
        put("token_embd.weight", *tensors["model.embed_tokens.weight"])
        for i in range(model.config["num_hidden_layers"]):
            prefix = f"model.layers.{i}."
            for source, name in LAYER_NAMES.items():
                if prefix + source in tensors:
                    put(f"blk.{i}.{name}", *tensors[prefix + source])
            for what in ("gate", "up", "down"):
                experts = range(model.config["n_routed_experts"])
                names = [f"{prefix}mlp.experts.{e}.{what}_proj.weight" for e in experts]
                if names[0] not in tensors:
                    continue
                dtype, shape, _ = tensors[names[0]]
                data = b"".join(tensors[n][2] for n in names)
                put(f"blk.{i}.ffn_{what}_exps.weight", dtype, [len(names)] + list(shape), data)
        put("output_norm.weight", *tensors["model.norm.weight"])
        put("output.weight", *tensors["lm_head.weight"])

    def header(self):
        entries = [text(key) + struct.pack("<I", kind) + data for key, (kind, data) in self.metadata.items()]
        entries += self.extra_entries
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        entry_count = len(entries) if self.entry_count is None else self.entry_count
        out = self.magic + struct.pack("<IQQ", self.version, tensor_count, entry_count) + b"".join(entries)
        offset = 0
        for tensor in self.tensors:
            out += tensor.info(offset)
            offset += len(tensor.data) + -len(tensor.data) % ALIGNMENT
        return out

    def bytes(self):
        out = self.header()
        out += b"\0" * (-len(out) % ALIGNMENT)
        for tensor in self.tensors:
            out += tensor.data + b"\0" * (-len(tensor.data) % ALIGNMENT)
        return out
