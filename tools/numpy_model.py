"""The family's forward pass in float64 numpy, written from the equations of the papers alone: an oracle for checks."""

import json
import struct
import sys

import numpy

DTYPES = {"F32": "<f4", "I64": "<i8"}


def read_safetensors(path):
    """Name -> array of a file with F32, I64 and BF16, which becomes float32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        begin, end = (8 + length + at for at in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            values = (numpy.frombuffer(data[begin:end], "<u2").astype(numpy.uint32) << 16).view(numpy.float32)
        else:
            values = numpy.frombuffer(data[begin:end], DTYPES[entry["dtype"]])
        out[name] = values.reshape(entry["shape"])
    return out


def norm(x, weight, eps):
    return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def softmax(x):
    x = numpy.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + numpy.exp(-x))


class Model:
    """Takes deepseek_v2, deepseek_v3, deepseek and llama without YaRN, in one file of F32 or BF16."""

    def __init__(self, folder):
        self.c = json.loads((folder / "config.json").read_text())
        if self.c.get("rope_scaling") is not None:
            sys.exit(f"{folder}/config.json: expected no rope_scaling, found {self.c['rope_scaling']}")
        self.w = {name: values.astype(numpy.float64) for name, values in read_safetensors(folder / "model.safetensors").items()}

    def turn(self, x, neighbours):
        """x [T, heads, width]; pairs are neighbours or half the width apart."""
        width = x.shape[-1]
        frequency = self.c["rope_theta"] ** (-numpy.arange(0, width, 2) / width)
        angle = numpy.arange(len(x))[:, None, None] * frequency
        a, b = (x[..., 0::2], x[..., 1::2]) if neighbours else numpy.split(x, 2, -1)
        turned = a * numpy.cos(angle) - b * numpy.sin(angle), a * numpy.sin(angle) + b * numpy.cos(angle)
        return numpy.stack(turned, -1).reshape(x.shape) if neighbours else numpy.concatenate(turned, -1)

    def latent(self, p, h):
        c, w = self.c, self.w
        heads, nope, rope, rank = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank"))
        if c.get("q_lora_rank") is None:
            q = h @ w[p + "q_proj.weight"].T
        else:
            q = norm(h @ w[p + "q_a_proj.weight"].T, w[p + "q_a_layernorm.weight"], 1e-6) @ w[p + "q_b_proj.weight"].T
        q = q.reshape(len(h), heads, nope + rope)
        joined = h @ w[p + "kv_a_proj_with_mqa.weight"].T
        up = norm(joined[:, :rank], w[p + "kv_a_layernorm.weight"], 1e-6) @ w[p + "kv_b_proj.weight"].T
        up = up.reshape(len(h), heads, nope + c["v_head_dim"])
        key = numpy.repeat(self.turn(joined[:, None, rank:], True), heads, 1)
        q = numpy.concatenate([q[..., :nope], self.turn(q[..., nope:], True)], -1)
        return q, numpy.concatenate([up[..., :nope], key], -1), up[..., nope:]

    def grouped(self, p, h):
        c, w = self.c, self.w
        heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
        q, k, v = ((h @ w[p + f"{kind}_proj.weight"].T).reshape(len(h), n, -1) for kind, n in zip("qkv", (heads, groups, groups)))
        return self.turn(q, False), *(numpy.repeat(x, heads // groups, 1) for x in (self.turn(k, False), v))

    def attention(self, p, h):
        q, k, v = (self.latent if "kv_lora_rank" in self.c else self.grouped)(p, h)
        score = numpy.einsum("qhd,khd->hqk", q, k) / numpy.sqrt(q.shape[-1])
        score += numpy.triu(numpy.full(score.shape[1:], -numpy.inf), 1)
        return numpy.einsum("hqk,khd->qhd", softmax(score), v).reshape(len(h), -1) @ self.w[p + "o_proj.weight"].T

    def swiglu(self, p, u):
        gate, up, down = (self.w[f"{p}{kind}_proj.weight"].T for kind in ("gate", "up", "down"))
        return (silu(u @ gate) * (u @ up)) @ down

    def chosen(self, p, s):
        c, method = self.c, self.c.get("topk_method", "greedy")
        rank = s + self.w[p + "gate.e_score_correction_bias"] if method == "noaux_tc" else s
        if method != "greedy":
            groups = rank.reshape(c["n_group"], -1)
            best = groups.max(-1) if method == "group_limited_greedy" else numpy.sort(groups, -1)[:, -2:].sum(-1)
            allowed = numpy.zeros(c["n_group"], bool)
            allowed[numpy.argsort(-best)[: c["topk_group"]]] = True
            rank = numpy.where(allowed[:, None], groups, -numpy.inf).reshape(-1)
        return numpy.argsort(-rank)[: c["num_experts_per_tok"]]

    def experts(self, p, u):
        c = self.c
        z = u @ self.w[p + "gate.weight"].T
        sigmoid = c["scoring_func"] == "sigmoid"
        s = 1 / (1 + numpy.exp(-z)) if sigmoid else softmax(z)
        out = self.swiglu(p + "shared_experts.", u) if c["n_shared_experts"] else numpy.zeros_like(u)
        for t, row in enumerate(s):
            ids = self.chosen(p, row)
            g = row[ids]
            if c["norm_topk_prob"] and len(ids) > 1:
                g = g / g.sum() * (c["routed_scaling_factor"] if sigmoid else 1.0)
            else:
                g = g * c.get("routed_scaling_factor", 1.0)
            for weight, i in zip(g, ids):
                out[t] += weight * self.swiglu(f"{p}experts.{i}.", u[t])
        return out

    def logits(self, ids):
        c, w, eps = self.c, self.w, self.c["rms_norm_eps"]
        x = w["model.embed_tokens.weight"][ids]
        for layer in range(c["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            x = x + self.attention(p + "self_attn.", norm(x, w[p + "input_layernorm.weight"], eps))
            u = norm(x, w[p + "post_attention_layernorm.weight"], eps)
            routed = c.get("n_routed_experts", 0) and layer >= c["first_k_dense_replace"]
            x = x + (self.experts if routed else self.swiglu)(p + "mlp.", u)
        head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
        return norm(x, w["model.norm.weight"], eps) @ head.T
