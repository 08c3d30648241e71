#!/usr/bin/env python3
"""Writes tests/golden/storyteller: what models/storyteller computes, in float64 numpy, written from the paper alone.

Every prompt's text is in expected.json and stays; logits are rounded once to float32. The tokenizer is not under test
here: ids come from `lathe tokenize`, whose ids other golden files pin.

Usage: tools/golden/make_storyteller.py [--check] [--lathe build/lathe] [--model models/storyteller] [--golden FOLDER]
       --check compares what lies there instead of writing it.
"""

import argparse
import json
import pathlib
import struct
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
GREEDY_TOKENS = 32


def read_safetensors(path):
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        data = raw[begin:end]
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
            array = bits.view(np.float32)
        else:
            array = np.frombuffer(data, {"F32": "<f4", "I64": "<i8"}[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    header, offset, parts = {}, 0, []
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        dtype = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


class Model:
    """The forward pass of one sequence: MLA without query compression (Eq. 9-19), DeepSeekMoE (Eq. 20-22)."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        needed = {"q_lora_rank": None, "rope_scaling": None, "topk_method": "greedy", "scoring_func": "softmax"}
        for key, value in needed.items():
            if self.config.get(key, value) != value:
                raise SystemExit(f"{folder}: {key}: expected {value}, found {self.config[key]}")
        self.weights = {k: v.astype(np.float64) for k, v in read_safetensors(folder / "model.safetensors").items()}

    def norm(self, name, x):
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x * scale * self.weights[name]

    def rotate(self, x):
        """x[T, ..., R]: neighbours (2i, 2i+1) turn by position * theta^(-2i/R)."""
        width = x.shape[-1]
        speed = self.config["rope_theta"] ** (-np.arange(0, width, 2) / width)
        angle = np.arange(x.shape[0])[:, None] * speed
        angle = angle.reshape((x.shape[0],) + (1,) * (x.ndim - 2) + (width // 2,))
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2] = even * np.cos(angle) - odd * np.sin(angle)
        out[..., 1::2] = even * np.sin(angle) + odd * np.cos(angle)
        return out

    def attention(self, prefix, x):
        c = self.config
        heads, nope, rope, value = (
            c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        )
        count = len(x)
        q = (x @ self.weights[prefix + "q_proj.weight"].T).reshape(count, heads, nope + rope)
        latent = x @ self.weights[prefix + "kv_a_proj_with_mqa.weight"].T
        compressed = self.norm(prefix + "kv_a_layernorm.weight", latent[:, : c["kv_lora_rank"]])
        k_rope = self.rotate(latent[:, c["kv_lora_rank"] :])
        up = (compressed @ self.weights[prefix + "kv_b_proj.weight"].T).reshape(count, heads, nope + value)
        scores = np.einsum("thn,shn->hts", q[..., :nope], up[..., :nope])
        scores += np.einsum("thr,sr->hts", self.rotate(q[..., nope:]), k_rope)
        scores = scores / np.sqrt(nope + rope)
        scores = np.where(np.tril(np.ones((count, count), bool)), scores, -np.inf)
        weight = np.exp(scores - scores.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        out = np.einsum("hts,shv->thv", weight, up[..., nope:]).reshape(count, heads * value)
        return out @ self.weights[prefix + "o_proj.weight"].T

    def feed_forward(self, prefix, x):
        gate, up, down = (self.weights[f"{prefix}{name}_proj.weight"] for name in ("gate", "up", "down"))
        pre = x @ gate.T
        return (pre / (1 + np.exp(-pre)) * (x @ up.T)) @ down.T

    def experts(self, prefix, x):
        score = x @ self.weights[prefix + "gate.weight"].T
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        chosen = np.argsort(-score, axis=-1, kind="stable")[:, : self.config["num_experts_per_tok"]]
        out = self.feed_forward(prefix + "shared_experts.", x)
        for expert in np.unique(chosen):
            rows = np.flatnonzero((chosen == expert).any(-1))
            share = score[rows, expert] * self.config["routed_scaling_factor"]
            out[rows] += share[:, None] * self.feed_forward(f"{prefix}experts.{expert}.", x[rows])
        return out

    def logits(self, ids):
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attention(prefix + "self_attn.", self.norm(prefix + "input_layernorm.weight", x))
            x = x + self.experts(prefix + "mlp.", self.norm(prefix + "post_attention_layernorm.weight", x))
        return self.norm("model.norm.weight", x) @ self.weights["lm_head.weight"].T


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def describe(model, name, text, ids):
    """The tensors and the entry of expected.json of one prompt."""
    logits = model.logits(ids)
    logprobs = log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]
    greedy, margins, sequence, row = [], [], list(ids), logits[-1]
    for _ in range(GREEDY_TOKENS):
        best, second = np.sort(row)[::-1][:2]
        greedy.append(int(row.argmax()))
        margins.append(float(best - second))
        sequence.append(greedy[-1])
        row = model.logits(np.array(sequence))[-1]
    tensors = {
        f"{name}.input_ids": np.array(ids, np.int64),
        f"{name}.logits": logits.astype(np.float32),
        f"{name}.logprobs": logprobs.astype(np.float32),
        f"{name}.greedy_ids": np.array(greedy, np.int64),
    }
    entry = {
        "text": text,
        "length": len(ids),
        "min_greedy_margin": min(margins),
        "nll_per_token": float(-logprobs.mean()),
    }
    return tensors, entry


def token_ids(lathe, folder, text):
    done = subprocess.run(
        [lathe, "tokenize", "-m", folder, "--bos", "--json", "-p", text], capture_output=True, text=True, check=True
    )
    return np.array(json.loads(done.stdout)["ids"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--lathe", default=ROOT / "build/lathe", type=pathlib.Path)
    parser.add_argument("--model", default=ROOT / "models/storyteller", type=pathlib.Path)
    parser.add_argument("--golden", default=ROOT / "tests/golden/storyteller", type=pathlib.Path)
    options = parser.parse_args()
    model = Model(options.model)
    known = json.loads((options.golden / "expected.json").read_text())
    stored = read_safetensors(options.golden / "expected.safetensors")
    tensors, failures = {}, 0
    for name, entry in known["prompts"].items():
        ids = token_ids(options.lathe, options.model, entry["text"])
        fresh, known["prompts"][name] = describe(model, name, entry["text"], ids)
        tensors.update(fresh)
        for key, array in fresh.items() if options.check else ():
            worst = float(np.abs(array - stored[key]).max()) if array.shape == stored[key].shape else np.inf
            failures += worst > 1e-5
            print(f"{key}: {array.shape}, largest difference {worst:.2g}")
    if not options.check:
        write_safetensors(options.golden / "expected.safetensors", tensors)
        (options.golden / "expected.json").write_text(json.dumps(known, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
