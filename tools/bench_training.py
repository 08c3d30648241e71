#!/usr/bin/env python3
"""Training speed and memory of `lathe train` beside PyTorch, on the model of recipes/bench-moe.toml.

Needs PyTorch (pip install torch, the CPU build; versions are printed). Every program is a process of its own with the
same number of threads, rows and optimizer; they take turns, the others are stopped meanwhile, and the medians of the
rounds count. Beside tokens per second stand tokens per second of processor time: on a machine with other load, and with
one thread, these say more. PyTorch runs the model below, written plainly: eager, and through torch.compile. Exits with
3 when the ratio to the fastest PyTorch is below --at-least.

    tools/bench_training.py --lathe build/lathe --recipe recipes/bench-moe.toml --text stories.txt --threads 2
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HIDDEN, LAYERS, HEADS, LATENT, NOPE, ROPE, VALUE = 256, 6, 8, 64, 32, 16, 32
EXPERTS, CHOSEN, WIDTH, VOCAB, ROWS, LENGTH = 16, 2, 128, 4096, 16, 256
BALANCE = 0.003


def make_model(torch):
    F, nn = torch.nn.functional, torch.nn

    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x):
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def rotate(x, cos, sin):  # [B, T, heads, ROPE], interleaved pairs
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)

    def causal_attention(q, k, v):  # PyTorch 1.13 has no function for it
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, float("-inf")).softmax(-1) @ v

    fused_attention = getattr(F, "scaled_dot_product_attention", None)

    def attend(q, k, v):
        return fused_attention(q, k, v, is_causal=True) if fused_attention else causal_attention(q, k, v)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(HIDDEN, HEADS * (NOPE + ROPE), bias=False)
            self.kv_a = nn.Linear(HIDDEN, LATENT + ROPE, bias=False)
            self.norm = Norm(LATENT)
            self.kv_b = nn.Linear(LATENT, HEADS * (NOPE + VALUE), bias=False)
            self.o = nn.Linear(HEADS * VALUE, HIDDEN, bias=False)

        def forward(self, x, cos, sin):
            B, T, _ = x.shape
            q_nope, q_rope = self.q(x).view(B, T, HEADS, -1).split((NOPE, ROPE), -1)
            latent, k_rope = self.kv_a(x).split((LATENT, ROPE), -1)
            k_nope, v = self.kv_b(self.norm(latent)).view(B, T, HEADS, -1).split((NOPE, VALUE), -1)
            k_rope = rotate(k_rope.view(B, T, 1, ROPE), cos, sin).expand(-1, -1, HEADS, -1)
            q = torch.cat((q_nope, rotate(q_rope, cos, sin)), -1).transpose(1, 2)
            k = torch.cat((k_nope, k_rope), -1).transpose(1, 2)
            # The fused kernel wants values as wide as keys.
            v = F.pad(v, (0, NOPE + ROPE - VALUE)).transpose(1, 2)
            out = attend(q, k, v)[..., :VALUE]
            return self.o(out.transpose(1, 2).reshape(B, T, -1))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(HIDDEN, WIDTH, bias=False)
            self.up = nn.Linear(HIDDEN, WIDTH, bias=False)
            self.down = nn.Linear(WIDTH, HIDDEN, bias=False)

        def forward(self, x):
            return self.down(F.silu(self.gate(x)) * self.up(x))

    class Moe(nn.Module):
        def __init__(self):
            super().__init__()
            self.router = nn.Linear(HIDDEN, EXPERTS, bias=False)
            self.experts = nn.ModuleList(Mlp() for _ in range(EXPERTS))
            self.shared = Mlp()

        def forward(self, x):
            B, T, _ = x.shape
            rows = x.reshape(-1, HIDDEN)
            scores = self.router(rows).softmax(-1)
            weights, ids = scores.topk(CHOSEN, -1)
            counts = F.one_hot(ids.view(B, -1), EXPERTS).sum(1).float()
            loads = counts * (EXPERTS / (CHOSEN * T))
            balance = (loads * scores.view(B, T, EXPERTS).mean(1)).sum(1).mean() * BALANCE
            out = self.shared(rows)
            order = ids.flatten().argsort(stable=True)
            sizes = counts.sum(0).long().tolist()
            tokens, factors = order // CHOSEN, weights.flatten()[order]
            parts = [expert(part) for expert, part in zip(self.experts, rows[tokens].split(sizes))]
            out = out.index_add(0, tokens, torch.cat(parts) * factors[:, None])
            return out.view(B, T, HIDDEN), balance

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList((Norm(HIDDEN), Norm(HIDDEN)))
            self.attention, self.moe = Attention(), Moe()

        def forward(self, x, cos, sin):
            x = x + self.attention(self.norms[0](x), cos, sin)
            out, balance = self.moe(self.norms[1](x))
            return x + out, balance

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, HIDDEN)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = Norm(HIDDEN)
            self.head = nn.Linear(HIDDEN, VOCAB, bias=False)
            angle = torch.outer(torch.arange(LENGTH), 10000.0 ** (-torch.arange(0, ROPE, 2) / ROPE))[:, None]
            self.register_buffer("cos", angle.cos())
            self.register_buffer("sin", angle.sin())
            for p in self.parameters():
                if p.dim() > 1:
                    nn.init.normal_(p, std=0.02)

        def forward(self, ids, targets):
            x = self.embed(ids)
            loss = 0.0
            for block in self.blocks:
                x, balance = block(x, self.cos, self.sin)
                loss = loss + balance
            return loss + F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())

    return Model()


def rival(mode, threads):
    """The PyTorch process: for each line of stdin so many steps; prints the seconds of each."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = make_model(torch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    run = torch.compile(model) if mode == "compile" else model
    for line in sys.stdin:
        times, processor = [], []
        for _ in range(int(line)):
            ids = torch.randint(VOCAB, (ROWS, LENGTH + 1))
            start, start_processor = time.perf_counter(), time.process_time()
            optimizer.zero_grad()
            loss = run(ids[:, :-1], ids[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            times.append(time.perf_counter() - start)
            processor.append(time.process_time() - start_processor)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = {"times": times, "processor": processor, "imported": imported, "peak": peak, "loss": loss.item()}
        print(json.dumps(answer), flush=True)


class Rival:
    def __init__(self, options, mode):
        command = [options.python, os.path.abspath(__file__), "--rival", mode, "--threads", str(options.threads)]
        environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )
        self.run(2)  # compiles, and touches the memory

    def run(self, steps):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{steps}\n")
        line = self.process.stdout.readline()
        if not line:
            sys.exit("bench_training.py: the PyTorch process ended early")
        self.process.send_signal(signal.SIGSTOP)
        answer = json.loads(line)
        self.peak, self.imported = answer["peak"], answer["imported"]
        return tuple(ROWS * LENGTH / statistics.median(answer[key]) for key in ("times", "processor"))

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()


def lathe(options, folder, steps):
    """Tokens per second (median of the steps but the first, as of PyTorch), processor time and peak memory (KiB)."""
    output = tempfile.mkdtemp(dir=folder)
    settings = {
        "data.train": options.text,
        "data.cache": os.path.join(folder, "cache"),
        "output": os.path.join(output, "run"),
        "train.max_steps": steps,
        "checkpoint.every": 1000000,
        "eval.every": 0,
        "train.log_every": 1,
    }
    command = [options.lathe, "train", options.recipe, "--json", "-q", "-t", str(options.threads)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"bench_training.py: {' '.join(command)}: exit status {status}")
    with open(os.path.join(settings["output"], "metrics.jsonl"), encoding="utf-8") as f:
        speeds = [row["tokens_per_s"] for row in map(json.loads, f) if "tokens_per_s" in row]
    return statistics.median(speeds[1:] or speeds), usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", default="build/lathe")
    parser.add_argument("--recipe", default="recipes/bench-moe.toml")
    parser.add_argument("--text", help="training text")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--modes", nargs="*", default=["eager", "compile"], choices=["eager", "compile"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-least", type=float, default=0.0, metavar="RATIO")
    parser.add_argument("--rival", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rival:
        return rival(options.rival, options.threads)
    if not options.text:
        parser.error("--text: expected a training text")
    rivals = {mode: Rival(options, mode) for mode in options.modes}
    speeds = {name: [] for name in ["lathe", *rivals]}
    peak = 0
    with tempfile.TemporaryDirectory() as folder:
        lathe(options, folder, 1)  # trains the tokenizer
        _, start, _ = lathe(options, folder, 1)
        for _ in range(options.rounds):
            speed, processor, memory = lathe(options, folder, options.steps + 1)
            speeds["lathe"].append((speed, ROWS * LENGTH * options.steps / (processor - start)))
            peak = max(peak, memory)
            for mode, process in rivals.items():
                speeds[mode].append(process.run(options.steps))
    version = subprocess.check_output(
        [options.python, "-c", "import torch; print(torch.__version__)"], text=True
    ).strip()
    medians = {name: [statistics.median(column) for column in zip(*values)] for name, values in speeds.items()}
    own = medians["lathe"]
    print(f"{options.threads} threads, PyTorch {version}; medians of {options.rounds} rounds (lowest to highest)")
    for name, (speed, per_processor) in medians.items():
        values = [value for value, _ in speeds[name]]
        memory = peak if name == "lathe" else rivals[name].peak
        imported = "" if name == "lathe" else f", of which {rivals[name].imported / 1024:.0f} MiB before the model"
        print(
            f"{name:8} {speed:6.0f} tokens/s ({min(values):.0f} to {max(values):.0f}), {per_processor:.0f} per s of"
            f" processor time; lathe is {own[0] / speed:.2f} x and {own[1] / per_processor:.2f} x;"
            f" peak {memory / 1024:.0f} MiB{imported}"
        )
    for process in rivals.values():
        process.close()
    best = max((medians[mode][0] for mode in rivals), default=own[0])
    if own[0] / best < options.at_least:
        sys.exit(3)


if __name__ == "__main__":
    main()
