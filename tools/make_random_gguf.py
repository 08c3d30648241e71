#!/usr/bin/env python3
"""Writes a GGUF model of the DeepSeek-V2-Lite shape with random weights, for measuring speed side by side.

  tools/make_random_gguf.py --type q8_0 v2-lite-q8_0.gguf      (16.7 GB; q4_0: 8.9 GB)

The vocabulary is made up (every byte, then numbered words), so the file generates nonsense, but every engine loads it
and does the same work as with trained weights. Needs the PyPI packages gguf and numpy.
"""

import argparse

import gguf
import numpy as np

LAYERS, HIDDEN, HEADS, VOCABULARY = 27, 2048, 16, 102400
LORA, NOPE, ROPE, VALUE = 512, 128, 64, 128
EXPERTS, USED, SHARED, WIDTH, DENSE = 64, 6, 2, 1408, 10944
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


def tensors(kind, head):
    """(name, type, shape) of every tensor, rows first."""
    f32 = TYPE.F32
    yield "token_embd.weight", kind, (VOCABULARY, HIDDEN)
    yield "output_norm.weight", f32, (HIDDEN,)
    yield "output.weight", head, (VOCABULARY, HIDDEN)
    for i in range(LAYERS):
        p = f"blk.{i}."
        yield p + "attn_norm.weight", f32, (HIDDEN,)
        yield p + "attn_q.weight", kind, (HEADS * (NOPE + ROPE), HIDDEN)
        yield p + "attn_kv_a_mqa.weight", kind, (LORA + ROPE, HIDDEN)
        yield p + "attn_kv_a_norm.weight", f32, (LORA,)
        yield p + "attn_k_b.weight", kind, (HEADS, LORA, NOPE)
        yield p + "attn_v_b.weight", kind, (HEADS, VALUE, LORA)
        yield p + "attn_output.weight", kind, (HIDDEN, HEADS * VALUE)
        yield p + "ffn_norm.weight", f32, (HIDDEN,)
        if i == 0:
            yield p + "ffn_gate.weight", kind, (DENSE, HIDDEN)
            yield p + "ffn_up.weight", kind, (DENSE, HIDDEN)
            yield p + "ffn_down.weight", kind, (HIDDEN, DENSE)
            continue
        yield p + "ffn_gate_inp.weight", f32, (EXPERTS, HIDDEN)
        yield p + "ffn_gate_exps.weight", kind, (EXPERTS, WIDTH, HIDDEN)
        yield p + "ffn_up_exps.weight", kind, (EXPERTS, WIDTH, HIDDEN)
        yield p + "ffn_down_exps.weight", kind, (EXPERTS, HIDDEN, WIDTH)
        yield p + "ffn_gate_shexp.weight", kind, (SHARED * WIDTH, HIDDEN)
        yield p + "ffn_up_shexp.weight", kind, (SHARED * WIDTH, HIDDEN)
        yield p + "ffn_down_shexp.weight", kind, (HIDDEN, SHARED * WIDTH)


def add_metadata(writer):
    a = "deepseek2"
    writer.add_name("random V2-Lite")
    writer.add_context_length(163840)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(DENSE)
    writer.add_vocab_size(VOCABULARY)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_uint32(f"{a}.attention.kv_lora_rank", LORA)
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
    writer.add_uint32(f"{a}.leading_dense_block_count", 1)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(USED)
    writer.add_expert_shared_count(SHARED)
    writer.add_uint32(f"{a}.expert_feed_forward_length", WIDTH)
    writer.add_float32(f"{a}.expert_weights_scale", 1.0)
    writer.add_bool(f"{a}.expert_weights_norm", False)
    writer.add_uint32(f"{a}.expert_gating_func", 1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-llm")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) if b in printable else chr(256 + n) for n, b in enumerate(range(256))]
    words = alphabet + [f"w{i}" for i in range(VOCABULARY - len(alphabet))]
    words[-2:] = ["<bos>", "<eos>"]
    writer.add_token_list(words)
    writer.add_token_types([1] * (VOCABULARY - 2) + [3, 3])
    writer.add_token_merges(["w 0", "w 1"])
    writer.add_bos_token_id(VOCABULARY - 2)
    writer.add_eos_token_id(VOCABULARY - 1)
    writer.add_add_bos_token(True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--type", choices=["q8_0", "q4_0"], default="q8_0")
    parser.add_argument("output")
    args = parser.parse_args()
    kind = TYPE[args.type.upper()]
    head = TYPE.Q6_K if kind == TYPE.Q4_0 else kind
    writer = gguf.GGUFWriter(args.output, "deepseek2")
    add_metadata(writer)
    todo = list(tensors(kind, head))
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
