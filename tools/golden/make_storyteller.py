#!/usr/bin/env python3
"""Writes tests/golden/storyteller: what models/storyteller computes, in float64 numpy (tools/numpy_model.py).

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
sys.path.insert(0, str(ROOT / "tools"))

from numpy_model import Model, read_safetensors  # noqa: E402

GREEDY_TOKENS = 32


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
