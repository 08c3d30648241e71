"""Trains the tiny models of tests/golden for ten steps in float64 and writes their losses to
tests/golden/curves/curves.json: what src/lathe/train must reproduce in float32.

Plain PyTorch, written from the papers: nothing of it is Lathe's. Everything a step needs (tokens, factors, rates) goes
into the file beside the losses.

usage: make_training_curves.py GOLDEN_FOLDER [--only NAME]      (pip install torch==2.7.1)
"""

import argparse
import json
import math
import pathlib
import struct

import torch
from torch.nn import functional

torch.set_default_dtype(torch.float64)
STEPS = 10
SETTINGS = {
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "weight_decay": 0.1,
    "clip": 1.0,
    "learning_rate": 1e-3,
    "warmup_steps": 4,
}
RUNS = [
    {"name": "v2lite", "model": "v2lite-tiny", "expert": 0.01},
    {"name": "v2", "model": "v2-tiny", "expert": 0.003, "device": 0.05, "communication": 0.02},
    {"name": "v2_dropping", "model": "v2-tiny", "expert": 0.003, "capacity": 1.0},
    {"name": "v3", "model": "v3-tiny", "sequence": 0.01, "bias_speed": 0.001},
    {"name": "v3_mtp", "model": "v3-tiny", "sequence": 0.01, "bias_speed": 0.001, "mtp": 0.3},
    {"name": "deepseek_moe", "model": "deepseek-moe-tiny", "expert": 0.01},
    {"name": "llama", "model": "llama-gqa-tiny"},
]
KINDS = {"F32": torch.float32, "BF16": torch.bfloat16}


def read_weights(folder):
    """Name -> float64 tensor of every shard in the folder."""
    out = {}
    for path in sorted(folder.glob("model*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            raw = bytearray(data[8 + length + begin : 8 + length + end])
            out[name] = torch.frombuffer(raw, dtype=KINDS[entry["dtype"]]).double().reshape(entry["shape"])
    return out


def norm(x, weight, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


class Rotary:
    """RoPE with YaRN."""

    def __init__(self, config, width):
        base, scaling = float(config["rope_theta"]), config["rope_scaling"]
        pair = torch.arange(width // 2)
        frequency = base ** (-2.0 * pair / width)
        self.score_factor = 1.0
        if scaling is not None:
            length = scaling["original_max_position_embeddings"]

            def turns_to_dimension(turns):
                return width * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

            low = max(math.floor(turns_to_dimension(scaling["beta_fast"])), 0)
            high = min(math.ceil(turns_to_dimension(scaling["beta_slow"])), width - 1)
            ramp = ((pair - low) / max(high - low, 0.001)).clamp(0.0, 1.0)
            frequency = frequency / scaling["factor"] * ramp + frequency * (1 - ramp)
            assert scaling["mscale"] == scaling["mscale_all_dim"]  # so that cos and sin carry no factor
            self.score_factor = (0.1 * scaling["mscale_all_dim"] * math.log(scaling["factor"]) + 1.0) ** 2
        self.frequency = frequency

    def turn(self, x, neighbours):
        """x [T, heads, width] at positions 0, 1, ...; pairs are neighbours or half the width apart."""
        angle = torch.arange(x.shape[0])[:, None, None] * self.frequency
        a, b = (x[..., 0::2], x[..., 1::2]) if neighbours else x.chunk(2, -1)
        turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
        return torch.stack(turned, -1).flatten(-2) if neighbours else torch.cat(turned, -1)


class Model:
    def __init__(self, config, weights, run):
        self.c, self.run = config, run
        self.layers = config["num_hidden_layers"]
        last = f"model.layers.{self.layers}."
        with_mtp = run.get("mtp", 0.0) > 0.0
        shared = (last + "embed_tokens.weight", last + "shared_head.head.weight")  # copies of the main model's
        self.w = {
            name: value.clone().requires_grad_(not name.endswith("e_score_correction_bias"))
            for name, value in weights.items()
            if name not in shared and (with_mtp or not name.startswith(last))
        }
        self.loads = {}
        width = config["qk_rope_head_dim"] if self.is_latent() else config["hidden_size"] // config["num_attention_heads"]
        self.rotary = Rotary(config, width)

    def is_latent(self):
        return "kv_lora_rank" in self.c

    def get(self, *name):
        return self.w[".".join(name)]

    def latent_attention(self, p, h):
        c = self.c
        heads, nope, rope, value = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        if c["q_lora_rank"] is None:
            q = h @ self.get(p, "q_proj.weight").T
        else:
            q = norm(h @ self.get(p, "q_a_proj.weight").T, self.get(p, "q_a_layernorm.weight"), 1e-6)
            q = q @ self.get(p, "q_b_proj.weight").T
        q = q.reshape(-1, heads, nope + rope)
        q = torch.cat([q[..., :nope], self.rotary.turn(q[..., nope:], True)], -1)
        latent, key_rope = (h @ self.get(p, "kv_a_proj_with_mqa.weight").T).split([c["kv_lora_rank"], rope], -1)
        key_rope = self.rotary.turn(key_rope[:, None, :], True)
        up = norm(latent, self.get(p, "kv_a_layernorm.weight"), 1e-6) @ self.get(p, "kv_b_proj.weight").T
        up = up.reshape(-1, heads, nope + value)
        k = torch.cat([up[..., :nope], key_rope.expand(-1, heads, -1)], -1)
        return q, k, up[..., nope:], self.rotary.score_factor / math.sqrt(nope + rope)

    def grouped_attention(self, p, h):
        c = self.c
        heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
        width = c["hidden_size"] // heads
        q, k, v = (
            (h @ self.get(p, f"{kind}_proj.weight").T).reshape(-1, n, width)
            for kind, n in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = self.rotary.turn(q, False), self.rotary.turn(k, False)
        k, v = (x.repeat_interleave(heads // groups, 1) for x in (k, v))
        return q, k, v, 1.0 / math.sqrt(width)

    def attention(self, p, h):
        q, k, v, scale = (self.latent_attention if self.is_latent() else self.grouped_attention)(p, h)
        score = torch.einsum("qhd,khd->hqk", q, k) * scale
        score = score.masked_fill(torch.ones(score.shape[1:], dtype=torch.bool).triu(1), -math.inf)
        out = torch.einsum("hqk,khd->qhd", score.softmax(-1), v)
        return out.reshape(len(h), -1) @ self.get(p, "o_proj.weight").T

    def swiglu(self, p, u):
        gate, up = u @ self.get(p, "gate_proj.weight").T, u @ self.get(p, "up_proj.weight").T
        return (functional.silu(gate) * up) @ self.get(p, "down_proj.weight").T

    def choose(self, p, s):
        """[T, K] ids: K best experts inside the M best groups."""
        c = self.c
        method = c.get("topk_method", "greedy")
        rank = s.detach()
        if method == "noaux_tc":
            rank = rank + self.get(p, "gate.e_score_correction_bias")
        if method != "greedy":
            by_group = rank.reshape(len(s), c["n_group"], -1)
            best = by_group.max(-1).values if method == "group_limited_greedy" else by_group.topk(2, -1).values.sum(-1)
            allowed = torch.zeros_like(best).scatter(1, best.topk(c["topk_group"], -1).indices, 1.0)
            rank = torch.where(allowed[..., None] > 0, by_group, -math.inf).reshape(len(s), -1)
        return rank.topk(c["num_experts_per_tok"], -1).indices

    def balance(self, s, chosen):
        """The balance losses of one sequence."""
        c, run, T = self.c, self.run, len(s)
        E, K = c["n_routed_experts"], c["num_experts_per_tok"]
        D, M = c.get("n_group", 1), c.get("topk_group", 1)
        used = torch.zeros_like(s).detach().scatter(1, chosen, 1.0)
        f = E / (K * T) * used.sum(0)
        if c["scoring_func"] == "sigmoid":
            return run.get("sequence", 0.0) * (f * (s / s.sum(-1, keepdim=True)).mean(0)).sum()
        P = s.mean(0)
        f_device, P_device = f.reshape(D, -1).mean(-1), P.reshape(D, -1).sum(-1)
        f_sent = D / (M * T) * used.reshape(T, D, -1).amax(-1).sum(0)
        return (
            run.get("expert", 0.0) * (f * P).sum()
            + run.get("device", 0.0) * (f_device * P_device).sum()
            + run.get("communication", 0.0) * (f_sent * P_device).sum()
        )

    def drop(self, s, chosen):
        """[T, K] of 0 and 1: on each device only the assignments of highest affinity, up to the mean load."""
        c = self.c
        D, K = c["n_group"], c["num_experts_per_tok"]
        affinity, device = s.detach().gather(1, chosen), chosen // (c["n_routed_experts"] // D)
        budget = int(self.run["capacity"] * K * len(s) / D)
        keep = torch.zeros_like(affinity)
        for d in range(D):
            places = (device == d).nonzero()
            order = affinity[device == d].argsort(descending=True)[:budget]
            keep[places[order, 0], places[order, 1]] = 1.0
        self.dropped += int((keep == 0).sum())
        return keep

    def moe(self, p, u, lengths):
        """u: all sequences, end to end."""
        c = self.c
        z = u @ self.get(p, "gate.weight").T
        s = z.softmax(-1) if c["scoring_func"] == "softmax" else z.sigmoid()
        chosen = self.choose(p, s)
        self.aux += sum(map(self.balance, s.split(lengths), chosen.split(lengths))) / len(lengths)
        self.loads[p] = self.loads.get(p, 0) + torch.bincount(chosen.flatten(), minlength=c["n_routed_experts"])
        g = s.gather(1, chosen)
        if c["norm_topk_prob"]:
            g = g / g.sum(-1, keepdim=True)
        g = g * c.get("routed_scaling_factor", 1.0)
        if "capacity" in self.run:
            g = g * self.drop(s, chosen)
        out = self.swiglu(p + ".shared_experts", u)
        for e in range(c["n_routed_experts"]):
            t, k = (chosen == e).nonzero(as_tuple=True)
            if len(t) > 0:
                out = out.index_add(0, t, g[t, k, None] * self.swiglu(f"{p}.experts.{e}", u[t]))
        return out

    def block(self, layer, x, lengths):
        p = f"model.layers.{layer}"
        h = norm(x, self.get(p, "input_layernorm.weight"), self.c["rms_norm_eps"])
        x = x + torch.cat([self.attention(p + ".self_attn", part) for part in h.split(lengths)])
        u = norm(x, self.get(p, "post_attention_layernorm.weight"), self.c["rms_norm_eps"])
        dense = layer < self.c.get("first_k_dense_replace", layer + 1)
        return x + (self.swiglu(p + ".mlp", u) if dense else self.moe(p + ".mlp", u, lengths))

    def losses(self, batch):
        """Cross entropy, multi-token prediction (with its factor), balance losses of sequences of tokens."""
        self.aux, self.dropped = torch.zeros(()), 0
        eps = self.c["rms_norm_eps"]
        ids = torch.tensor([i for sequence in batch for i in sequence])
        embed, head = self.get("model.embed_tokens.weight"), self.get("lm_head.weight")
        lengths = [len(sequence) for sequence in batch]
        x = embed[ids]
        for layer in range(self.layers):
            x = self.block(layer, x, lengths)
        h = norm(x, self.get("model.norm.weight"), eps)
        rows = [part[:-1] for part in h.split(lengths)]
        targets = [part[1:] for part in ids.split(lengths)]
        cross_entropy = functional.cross_entropy(torch.cat(rows) @ head.T, torch.cat(targets))
        mtp = torch.zeros(())
        if self.run.get("mtp", 0.0) > 0.0:  # V3, equations 21-25: h_i with the token i + 1 predicts the token i + 2
            p = f"model.layers.{self.layers}"
            joined = torch.cat(
                [
                    norm(embed[torch.cat(targets)], self.get(p, "enorm.weight"), eps),
                    norm(torch.cat(rows), self.get(p, "hnorm.weight"), eps),
                ],
                -1,
            )
            shorter = [n - 1 for n in lengths]
            x = self.block(self.layers, joined @ self.get(p, "eh_proj.weight").T, shorter)
            x = norm(x, self.get(p, "shared_head.norm.weight"), eps)
            x = torch.cat([part[:-1] for part in x.split(shorter)])
            mtp = self.run["mtp"] * functional.cross_entropy(x @ head.T, torch.cat([t[1:] for t in targets]))
        return cross_entropy, mtp, self.aux

    def update_biases(self):
        for p, load in self.loads.items():
            name = p + ".gate.e_score_correction_bias"
            if name in self.w:
                load = load.double()
                self.w[name] += self.run["bias_speed"] * torch.sign(load.mean() - load)
        self.loads = {}


def train(model, batches):
    trained = {name: w for name, w in model.w.items() if w.requires_grad}
    first = {name: torch.zeros_like(w) for name, w in trained.items()}
    second = {name: torch.zeros_like(w) for name, w in trained.items()}
    s, out = SETTINGS, {"cross_entropy": [], "mtp_loss": [], "balance": [], "grad_norm": [], "dropped": []}
    for step in range(1, STEPS + 1):
        losses = model.losses(batches[(step - 1) % len(batches)])
        for w in trained.values():
            w.grad = None
        sum(losses).backward()
        gradient = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in trained.items()}
        length = math.sqrt(sum(float((g * g).sum()) for g in gradient.values()))
        factor = min(1.0, s["clip"] / length)
        rate = s["learning_rate"] * min(1.0, step / s["warmup_steps"])
        with torch.no_grad():
            for name, w in trained.items():
                g = gradient[name] * factor
                first[name] = s["beta1"] * first[name] + (1 - s["beta1"]) * g
                second[name] = s["beta2"] * second[name] + (1 - s["beta2"]) * g * g
                update = first[name] / (1 - s["beta1"] ** step)
                update /= (second[name] / (1 - s["beta2"] ** step)).sqrt() + s["epsilon"]
                w -= rate * (update + (s["weight_decay"] * w if w.dim() > 1 else 0.0))
            model.update_biases()
        for key, value in zip(("cross_entropy", "mtp_loss", "balance"), losses):
            out[key].append(float(value))
        out["grad_norm"].append(length)
        out["dropped"].append(model.dropped)
    norms = {}
    for name in trained:  # of the weights after the last step: every tensor's own, so that each one is held to it
        norms[name] = float(trained[name].norm())
    out["weight_norms"] = norms
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("golden", type=pathlib.Path)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    draw = torch.Generator().manual_seed(11)
    # Sequences of unequal length; ids exist in every vocabulary.
    batches = [[torch.randint(2, 300, (n,), generator=draw).tolist() for n in (23, 17)] for _ in range(3)]
    curves = []
    for run in RUNS:
        if arguments.only not in (None, run["name"]):
            continue
        folder = arguments.golden / run["model"]
        config = json.loads((folder / "config.json").read_text())
        curve = train(Model(config, read_weights(folder), run), batches)
        print(run["name"], *(f"{loss:.6f}" for loss in curve["cross_entropy"]), curve["dropped"])
        curves.append(run | curve)
    text = json.dumps({"generator": "tools/golden/make_training_curves.py", "torch": torch.__version__, "steps": STEPS,
                       "settings": SETTINGS, "batches": batches, "runs": curves}, indent=1)
    (arguments.golden / "curves").mkdir(exist_ok=True)
    (arguments.golden / "curves" / "curves.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
