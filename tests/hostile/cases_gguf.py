"""Cases in GGUF files: container, metadata, tensors, tokenizer."""

import struct

from cases import NOT_FILES, Case, sparse_at
from gguf_file import (
    ARRAY,
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    Gguf,
    Tensor,
    array,
    scalar,
    text,
)

FILE = "model.gguf"
U64 = (1 << 64) - 1


def only(model, content, name=FILE):
    """The folder holds nothing of HuggingFace's layout, but a GGUF file."""
    for part in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        model.files[part] = None
    model.files["model.safetensors"] = None
    model.files[name] = content


def case(name, change, mentions=FILE, expect="error", command="generate", **more):
    """A case that changes the good file (change(gguf), or change returns the bytes)."""

    def build(model):
        gguf = Gguf(model)
        changed = change(gguf)
        only(model, changed if isinstance(changed, bytes) else gguf.bytes())

    return Case("gguf-" + name, build, expect, mentions, command=command, target=FILE, **more)


def setting(key, kind, value):
    return lambda gguf: gguf.set(key, kind, value)


def without(key):
    def change(gguf):
        del gguf.metadata[key]

    return change


def raw_value(key, kind, data):
    def change(gguf):
        gguf.metadata[key] = (kind, data)

    return change


def attributes(**values):
    def change(gguf):
        for name, value in values.items():
            setattr(gguf, name, value)

    return change


def tensor(which, **values):
    def change(gguf):
        target = gguf.tensor(which)
        for attribute, value in values.items():
            setattr(target, attribute, value)

    return change


def added(name, ne, kind, data, **values):
    def change(gguf):
        gguf.tensors.append(Tensor(name, ne, kind, data))
        for attribute, value in values.items():
            setattr(gguf.tensors[-1], attribute, value)

    return change


# Changes to header and metadata that need no particular tensor: cases here, seeds of the fuzz target elsewhere.
SMALL_CHANGES = {
    "key-empty": raw_value("", UINT32, b"\0\0\0\0"),
    "key-length-2-63": attributes(extra_entries=[struct.pack("<Q", 1 << 63)]),
    "key-bad-utf-8": attributes(extra_entries=[text(b"\xff\xfe") + struct.pack("<II", UINT32, 1)]),
    "bool-2": raw_value("k", BOOL, b"\2"),
    "string-length": raw_value("k", STRING, struct.pack("<Q", U64)),
    "array-of-arrays": raw_value("k", ARRAY, struct.pack("<IQ", ARRAY, 1 << 60)),
    "array-type": raw_value("k", ARRAY, struct.pack("<IQ", 99, 1)),
    "alignment-3": setting("general.alignment", UINT32, 3),
    "alignment-64": setting("general.alignment", UINT32, 64),
    "type-13": raw_value("k", 13, b"\0" * 8),
    "name-empty": tensor("output_norm.weight", name=""),
    "name-bad-utf-8": tensor("output_norm.weight", name=b"\xff"),
    "rank-0": tensor("output_norm.weight", rank=0),
    "rank-5": tensor("output_norm.weight", rank=5),
    "extent-0": tensor("output_norm.weight", ne=[0]),
    "extents-wrap": tensor("output_norm.weight", ne=[1 << 32, 1 << 32]),
    "tensor-type-10": tensor("output_norm.weight", kind=10),
    "offset-16": tensor("output_norm.weight", offset=16),
    "offset-far": tensor("output_norm.weight", offset=U64 - 31),
}


def valid_cases():
    for command in ("generate", "verify", "inspect", "tokenize", "template"):
        yield case(f"valid-{command}", lambda gguf: None, expect="loads", command=command)
    yield case("valid-version-2", attributes(version=2), expect="loads")
    yield case("valid-padding-at-the-end", lambda gguf: gguf.bytes() + b"\0" * 4096, expect="loads")
    yield case("valid-no-token-types", without("tokenizer.ggml.token_type"), expect="loads")


def container_cases():
    yield case("empty", lambda gguf: b"")
    yield case("magic", attributes(magic=b"GGML"), mentions="GGML")
    yield case("magic-safetensors", lambda gguf: struct.pack("<Q", 2) + b"{}", mentions="magic")
    yield case("magic-only", lambda gguf: b"GGUF", mentions="version")
    for version in (0, 1, 4, 0x03000000, 0xFFFFFFFF):
        yield case(f"version-{version}", attributes(version=version), mentions="version")
    for count in (1 << 20, 1 << 32, 1 << 63, U64):
        yield case(f"entries-{count}", attributes(entry_count=count), mentions="metadata count")
        yield case(f"tensors-{count}", attributes(tensor_count=count), mentions="tensor count")
    yield case("one-entry-more", lambda gguf: setattr(gguf, "entry_count", len(gguf.metadata) + 1))
    yield case("one-entry-less", lambda gguf: setattr(gguf, "entry_count", len(gguf.metadata) - 1))
    yield case("one-tensor-more", lambda gguf: setattr(gguf, "tensor_count", len(gguf.tensors) + 1))
    for part in (0.001, 0.01, 0.3, 0.6, 0.9, 0.9999):
        yield case(f"cut-at-{part}", lambda gguf, part=part: gguf.bytes()[: int(len(gguf.bytes()) * part)])
    yield case("cut-behind-header", lambda gguf: gguf.header(), mentions="bytes of data")
    for label, make in NOT_FILES.items():
        if label == "folder":  # a folder of that name is a folder in HuggingFace layout, without files
            mention = "config.json"
        else:
            mention = FILE

        def build(model, make=make):
            only(model, make)

        yield Case(f"gguf-is-{label}", build, "error", mention, target=FILE)
    yield Case("gguf-zeros", lambda model: only(model, sparse_at(1 << 30)), "error", "magic", target=FILE)


def small_cases():
    mentions = {
        "key": "key",
        "bool": "bool",
        "string": "string",
        "array": "array",
        "alignment": "alignment",  # 64 is valid in itself, but the data lie at multiples of 32
        "type": "type",
        "name": "name",
        "rank": "dimensions",
        "extent": "output_norm.weight",
        "extents": "output_norm.weight",
        "tensor": "Q2_K",
        "offset": "offset",
    }
    for name, change in SMALL_CHANGES.items():
        yield case(name, change, mentions=mentions[name.split("-")[0]])


def metadata_cases():
    a = "deepseek2."
    yield case("key-long", raw_value("k" * 70_000, UINT32, b"\0\0\0\0"), mentions="key")
    twice = text(a + "block_count") + struct.pack("<II", UINT32, 1)
    yield case("key-twice", attributes(extra_entries=[twice]), mentions="given twice")
    escape = "\x1b[2J\nlathe: error: forged"
    yield case("key-escape-twice", attributes(extra_entries=[text(escape) + struct.pack("<II", UINT32, 1)] * 2))
    for kind in (255, 0xFFFFFFFF):
        yield case(f"type-{kind}", raw_value("k", kind, b"\0" * 8), mentions="type")
    for kind in (UINT8, UINT64, STRING):
        for count in (1 << 40, 1 << 61, U64):
            yield case(f"array-{kind}-{count}", raw_value("k", ARRAY, struct.pack("<IQ", kind, count)), mentions='"k"')
    for alignment in (0, 1 << 31):
        yield case(f"alignment-{alignment}", setting("general.alignment", UINT32, alignment), mentions="alignment")
    yield case("alignment-text", setting("general.alignment", STRING, "32"), mentions="alignment")
    yield case("architecture-none", without("general.architecture"), mentions="general.architecture")
    yield case("architecture-other", setting("general.architecture", STRING, "gpt4"), mentions="gpt4")
    yield case("architecture-number", setting("general.architecture", UINT32, 7), mentions="general.architecture")
    yield case("architecture-escape", setting("general.architecture", STRING, escape), mentions="general.architecture")
    yield case("architecture-long", setting("general.architecture", STRING, "x" * 1_000_000), mentions="architecture")
    for key in (
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.kv_lora_rank",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.dimension_count",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "expert_used_count",
        "expert_feed_forward_length",
    ):
        yield case(f"without-{key}", without(a + key), mentions=key)
        yield case(f"text-{key}", setting(a + key, STRING, "7"), mentions=key)
    for key, field in {
        "block_count": "num_hidden_layers",
        "embedding_length": "hidden_size",
        "attention.head_count": "num_attention_heads",
        "attention.kv_lora_rank": "kv_lora_rank",
        "expert_count": "n_routed_experts",
        "expert_used_count": "num_experts_per_tok",
        "vocab_size": "vocab_size",
    }.items():
        yield case(f"huge-{key}", setting(a + key, UINT64, (1 << 63) - 1), mentions=field)
        yield case(f"over-{key}", setting(a + key, UINT64, U64), mentions=key)
    yield case("layers-one-more", setting(a + "block_count", UINT32, 3), mentions="model.layers.2.")
    yield case("rope-wider-than-key", setting(a + "rope.dimension_count", UINT32, 16), mentions="key_length")
    yield case("eps-nan", setting(a + "attention.layer_norm_rms_epsilon", FLOAT32, float("nan")), mentions="epsilon")
    yield case("factor-infinite", setting(a + "rope.scaling.factor", FLOAT64, float("inf")), mentions="factor")
    yield case("scaling-type", setting(a + "rope.scaling.type", STRING, "longrope"), mentions="rope.scaling.type")
    yield case("gating-func", setting(a + "expert_gating_func", UINT32, 9), mentions="expert_gating_func")
    yield case("gating-sigmoid", setting(a + "expert_gating_func", UINT32, 2), mentions="e_score_correction_bias")
    yield case("split-part", setting("split.no", UINT32, 1), mentions="first file")
    yield case("split-missing", setting("split.count", UINT32, 3), mentions="-00001-of-00003.gguf")
    yield case("split-count", setting("split.count", UINT64, 1 << 40), mentions="split.count")


def tensor_cases():
    name = "output_norm.weight"
    for rank in (6, 0xFFFFFFFF):
        yield case(f"rank-{rank}", tensor(name, rank=rank), mentions="dimensions")
    for extent in (1 << 63, U64):
        yield case(f"extent-{extent}", tensor(name, ne=[extent]), mentions="ne[0]")
    yield case("extents-wrap-to-32", tensor(name, ne=[1 << 62, 8, 1 << 60]), mentions=name)
    for kind in (4, 20, 31, 0xFFFFFFFF):
        yield case(f"tensor-type-{kind}", tensor(name, kind=kind), mentions="type")
    yield case("blocks-cut", added("blk.0.ffn_up_exps.weight", [33, 1, 1], 8, b"\0" * 64), mentions="whole blocks")
    for offset in (1, 1 << 40, U64):
        yield case(f"offset-{offset}", tensor(name, offset=offset), mentions=name)
    yield case("overlap", tensor("output.weight", offset=0), mentions="offset")
    yield case("name-long", tensor(name, name="n" * 65), mentions="name")
    yield case("name-twice", tensor(name, name="output.weight"), mentions="given twice")
    yield case("name-unknown", tensor(name, name="output_norm.bias"), mentions="output_norm.bias")
    yield case("name-escape", tensor(name, name="\x1b[2J\nlathe: error: forged"), mentions="expected a tensor")
    yield case("rope-freqs", added("rope_freqs.weight", [4], 0, b"\0" * 16), mentions="rope_freqs")
    yield case("shape-swapped", tensor("blk.0.attn_q_a.weight", ne=[24, 32]), mentions="q_a_proj")
    yield case("experts-flat", tensor("blk.1.ffn_up_exps.weight", ne=[32, 128]), mentions="3 dimensions")
    yield case("experts-one-less", tensor("blk.1.ffn_up_exps.weight", ne=[32, 16, 7]), mentions="experts.7.up_proj")
    many = added("blk.9.ffn_up_exps.weight", [1, 1, 100_000], 24, b"\0" * 100_000)
    yield case("experts-many", many, mentions="experts")
    yield case("experts-stored-twice", added("blk.1.exp_probs_b", [8], 0, b"\0" * 32), mentions="exp_probs_b")

    def slices(gguf):
        for i in range(40):
            gguf.tensors.append(Tensor(f"blk.{i + 10}.ffn_up_exps.weight", [1, 1, 65_536], 24, b"\0" * 65_536))

    yield case("experts-million", slices, mentions="matrices of experts")
    for missing in ("token_embd.weight", "output_norm.weight", "blk.0.attn_kv_b.weight", "blk.1.ffn_down_exps.weight"):

        def drop(gguf, missing=missing):
            gguf.tensors = [t for t in gguf.tensors if t.name != missing]

        yield case(f"without-{missing}", drop, mentions="found no such tensor")
    nan = struct.pack("<H", 0x7FC0)

    def poisoned(gguf):
        target = gguf.tensor("blk.0.attn_output.weight")
        target.data = target.data[:10] + nan + target.data[12:]

    yield case("value-nan", poisoned, mentions="o_proj", command="verify")


def tokenizer_cases():
    t = "tokenizer.ggml."
    yield case("tokenizer-model", setting(t + "model", STRING, "llama"), mentions="tokenizer.json")
    yield case("tokenizer-model-for-tokenize", setting(t + "model", STRING, "llama"), "gpt2", command="tokenize")
    yield case("tokenizer-none", without(t + "model"), mentions="tokenizer.json")
    yield case("pre-none", without(t + "pre"), mentions=t + "pre")
    yield case("pre-unknown", setting(t + "pre", STRING, "qwen2"), mentions="qwen2")
    yield case("tokens-none", without(t + "tokens"), mentions=t + "tokens")
    yield case("merges-none", without(t + "merges"), mentions=t + "merges")
    yield case("tokens-numbers", lambda g: g.set_array(t + "tokens", INT32, [1, 2]), mentions=t + "tokens")
    yield case("tokens-empty", lambda g: g.set_array(t + "tokens", STRING, []), mentions=t)
    yield case("tokens-twice", lambda g: g.set_array(t + "tokens", STRING, ["a"] * 268), mentions="given twice")
    bad = [b"\xff"] + [str(i).encode() for i in range(267)]
    yield case("tokens-bad-utf-8", raw_value(t + "tokens", ARRAY, array(STRING, bad)), mentions="UTF-8")
    blank = [""] + [str(i) for i in range(267)]
    yield case("tokens-blank", lambda g: g.set_array(t + "tokens", STRING, blank), mentions=t + "tokens")
    many = [str(i) for i in range(300)]
    yield case("tokens-more-than-rows", lambda g: g.set_array(t + "tokens", STRING, many), mentions="token")
    yield case("types-short", lambda g: g.set_array(t + "token_type", INT32, [1, 1]), mentions=t + "token_type")
    yield case("types-range", lambda g: g.set_array(t + "token_type", INT32, [7] * 268), mentions=t + "token_type")
    yield case("merges-broken", lambda g: g.set_array(t + "merges", STRING, ["hello"]), mentions="merges")
    yield case("merges-unknown", lambda g: g.set_array(t + "merges", STRING, ["q q"]), mentions="merges")
    for key in ("bos_token_id", "eos_token_id"):
        yield case(f"{key}-range", setting(t + key, UINT32, 1 << 20), mentions=key)
        yield case(f"{key}-text", setting(t + key, STRING, "<s>"), mentions=key)
    yield case("add-bos-text", setting(t + "add_bos_token", STRING, "yes"), mentions="add_bos_token")
    yield case("add-eos", setting(t + "add_eos_token", BOOL, True), mentions="add_eos_token")
    chat = "tokenizer.chat_template"
    yield case("template-number", setting(chat, UINT32, 1), mentions=chat, command="template")
    yield case("template-bad-utf-8", raw_value(chat, STRING, text(b"\xff")), mentions=chat, command="template")
    yield case("template-broken", setting(chat, STRING, "{% if %}"), mentions="template", command="template")
    yield case("whole-broken", setting("tokenizer.huggingface.json", STRING, "{"), mentions="tokenizer.json")
    yield case(
        "whole-number",
        raw_value("tokenizer.huggingface.json", UINT32, scalar(UINT32, 1)),
        mentions="tokenizer.huggingface.json",
    )


def cases(model, model_v3):
    del model, model_v3
    yield from valid_cases()
    yield from container_cases()
    yield from small_cases()
    yield from metadata_cases()
    yield from tensor_cases()
    yield from tokenizer_cases()
