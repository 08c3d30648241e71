#!/usr/bin/env python3
"""Writes a GGUF model of the DeepSeek-V2-Lite shape, or of a small one, with random weights, for measuring speed side
by side.

  tools/make_random_gguf.py --type q8_0 v2-lite-q8_0.gguf      (16.7 GB; q4_0: 8.9 GB)
  tools/make_random_gguf.py --shape small small-q8_0.gguf      (72 MB)

The vocabulary is made up (every byte, then numbered words), so the file generates nonsense, but every engine loads it
and does the same work as with trained weights. Needs the PyPI packages gguf and numpy.
"""

import argparse
import dataclasses

import gguf
import numpy as np



@dataclasses.dataclass
class Shape:
    layers: int = 27
    dense_layers: int = 1
    hidden: int = 2048
    heads: int = 16
    vocabulary: int = 102400
    q_lora: int = 0
    experts: int = 64
    used: int = 6
    shared: int = 2
    width: int = 1408
    dense: int = 10944


SHAPES = {
    "v2-lite": Shape(),
    "small": Shape(layers=8, dense_layers=0, hidden=512, heads=8, vocabulary=8192, q_lora=256, experts=16, used=4,
                   shared=1, width=192, dense=1024),
}
LORA, NOPE, ROPE, VALUE = 512, 128, 64, 128
TYPE = gguf.GGMLQuantizationType
BLOCK_BYTES = {TYPE.Q8_0: (32, 34), TYPE.Q4_0: (32, 18), TYPE.Q6_K: (256, 210)}


def blocks(kind, rows, cols, rng):
    """`rows` random rows of a block format as bytes; a few thousand blocks repeated."""
    elements, size = BLOCK_BYTES[kind]
    count = rows * cols // elements
    some = rng.integers(0, 256, size=(4096, size), dtype=np.uint8)
    # About unit variance times 1 / sqrt(cols): integers of that range are uniform, scales are normal.
    spread = {TYPE.Q8_0: 74.0, TYPE.Q4_0: 4.6, TYPE.Q6_K: 18.5 * 74.0}[kind]
    scale = (rng.uniform(0.5, 1.5, 4096) / (spread * np.sqrt(cols))).astype(np.float16).view(np.uint8).reshape(4096, 2)
    at = 208 if kind == TYPE.Q6_K else 0
    some[:, at : at + 2] = scale
    return np.resize(some.reshape(-1), count * size).reshape(rows, cols // elements * size)


def tensors(shape, kind, head):
    """(name, type, shape) of every tensor, rows first."""
    f32 = TYPE.F32
    yield "token_embd.weight", kind, (shape.vocabulary, shape.hidden)
    yield "output_norm.weight", f32, (shape.hidden,)
    yield "output.weight", head, (shape.vocabulary, shape.hidden)
    for i in range(shape.layers):
        p = f"blk.{i}."
        yield p + "attn_norm.weight", f32, (shape.hidden,)
        if shape.q_lora:
            yield p + "attn_q_a.weight", kind, (shape.q_lora, shape.hidden)
            yield p + "attn_q_a_norm.weight", f32, (shape.q_lora,)
            yield p + "attn_q_b.weight", kind, (shape.heads * (NOPE + ROPE), shape.q_lora)
        else:
            yield p + "attn_q.weight", kind, (shape.heads * (NOPE + ROPE), shape.hidden)
        yield p + "attn_kv_a_mqa.weight", kind, (LORA + ROPE, shape.hidden)
        yield p + "attn_kv_a_norm.weight", f32, (LORA,)
        yield p + "attn_k_b.weight", kind, (shape.heads, LORA, NOPE)
        yield p + "attn_v_b.weight", kind, (shape.heads, VALUE, LORA)
        yield p + "attn_output.weight", kind, (shape.hidden, shape.heads * VALUE)
        yield p + "ffn_norm.weight", f32, (shape.hidden,)
        if i < shape.dense_layers:
            yield p + "ffn_gate.weight", kind, (shape.dense, shape.hidden)
            yield p + "ffn_up.weight", kind, (shape.dense, shape.hidden)
            yield p + "ffn_down.weight", kind, (shape.hidden, shape.dense)
            continue
        yield p + "ffn_gate_inp.weight", f32, (shape.experts, shape.hidden)
        yield p + "ffn_gate_exps.weight", kind, (shape.experts, shape.width, shape.hidden)
        yield p + "ffn_up_exps.weight", kind, (shape.experts, shape.width, shape.hidden)
        yield p + "ffn_down_exps.weight", kind, (shape.experts, shape.hidden, shape.width)
        yield p + "ffn_gate_shexp.weight", kind, (shape.shared * shape.width, shape.hidden)
        yield p + "ffn_up_shexp.weight", kind, (shape.shared * shape.width, shape.hidden)
        yield p + "ffn_down_shexp.weight", kind, (shape.hidden, shape.shared * shape.width)


def add_metadata(writer, shape):
    a = "deepseek2"
    writer.add_name("random weights")
    writer.add_context_length(163840)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.dense)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_uint32(f"{a}.attention.kv_lora_rank", LORA)
    if shape.q_lora:
        writer.add_uint32(f"{a}.attention.q_lora_rank", shape.q_lora)
    writer.add_uint32(f"{a}.attention.key_length", LORA + ROPE)
    writer.add_uint32(f"{a}.attention.value_length", LORA)
    writer.add_uint32(f"{a}.attention.key_length_mla", NOPE + ROPE)
    writer.add_uint32(f"{a}.attention.value_length_mla", VALUE)
    writer.add_rope_dimension_count(ROPE)
    writer.add_rope_freq_base(10000.0)
    writer.add_string(f"{a}.rope.scaling.type", "yarn")
    writer.add_float32(f"{a}.rope.scaling.factor", 40.0)
    writer.add_uint32(f"{a}.rope.scaling.original_context_length", 4096)
    writer.add_float32(f"{a}.rope.scaling.yarn_log_multiplier", 0.0707)
    writer.add_uint32(f"{a}.leading_dense_block_count", shape.dense_layers)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.used)
    writer.add_expert_shared_count(shape.shared)
    writer.add_uint32(f"{a}.expert_feed_forward_length", shape.width)
    writer.add_float32(f"{a}.expert_weights_scale", 1.0)
    writer.add_bool(f"{a}.expert_weights_norm", False)
    writer.add_uint32(f"{a}.expert_gating_func", 1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-llm")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) if b in printable else chr(256 + n) for n, b in enumerate(range(256))]
    words = alphabet + [f"w{i}" for i in range(shape.vocabulary - len(alphabet))]
    words[-2:] = ["<bos>", "<eos>"]
    writer.add_token_list(words)
    writer.add_token_types([1] * (shape.vocabulary - 2) + [3, 3])
    writer.add_token_merges(["w 0", "w 1"])
    writer.add_bos_token_id(shape.vocabulary - 2)
    writer.add_eos_token_id(shape.vocabulary - 1)
    writer.add_add_bos_token(True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--type", choices=["q8_0", "q4_0"], default="q8_0")
    parser.add_argument("--shape", choices=SHAPES, default="v2-lite")
    parser.add_argument("output")
    args = parser.parse_args()
    model = SHAPES[args.shape]
    kind = TYPE[args.type.upper()]
    head = TYPE.Q6_K if kind == TYPE.Q4_0 else kind
    writer = gguf.GGUFWriter(args.output, "deepseek2")
    add_metadata(writer, model)
    todo = list(tensors(model, kind, head))
    for name, tensor_kind, shape in todo:
        if tensor_kind == TYPE.F32:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
        else:
            elements, size = BLOCK_BYTES[tensor_kind]
            in_bytes = (*shape[:-1], shape[-1] // elements * size)
            writer.add_tensor_info(name, in_bytes, np.dtype(np.uint8), int(np.prod(in_bytes)), raw_dtype=tensor_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(1)
    for name, tensor_kind, shape in todo:
        if tensor_kind != TYPE.F32:
            writer.write_tensor_data(blocks(tensor_kind, int(np.prod(shape[:-1])), shape[-1], rng))
        elif len(shape) == 1:
            writer.write_tensor_data(np.ones(shape, np.float32))
        else:
            writer.write_tensor_data(rng.normal(0, 0.02, shape).astype(np.float32))
    writer.close()


if __name__ == "__main__":
    main()
