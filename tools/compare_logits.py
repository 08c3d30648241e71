"""What the checks of checkpoints have in common: random tokens through `lathe eval logits` and through something else."""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy
from numpy_model import read_safetensors


def lathe_logits(program, checkpoint, ids):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "logits.safetensors"
        subprocess.run(
            [program, "eval", "logits", "-m", checkpoint, "--compute", "f32", "--out", out,
             "--token-ids", ",".join(map(str, ids))],
            check=True,
        )  # fmt: skip
        return read_safetensors(out)["logits"]


def main(score):
    """`score`: checkpoint folder and ids -> logits, a numpy array. Prints a line per checkpoint; ends the program with 1
    when a logit differs by more than --tolerance."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("checkpoints", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    worst = 0.0
    for checkpoint in arguments.checkpoints:
        config = json.loads((checkpoint / "config.json").read_text())
        ids = random.Random(1).choices(range(config["vocab_size"]), k=arguments.tokens)
        theirs = score(checkpoint, ids)
        ours = lathe_logits(arguments.program, checkpoint, ids)
        difference = numpy.abs(ours - theirs).max()
        agreement = (ours.argmax(-1) == theirs.argmax(-1)).mean()
        print(f"{checkpoint}: {config['model_type']}, largest difference of a logit {difference:.2e}"
              f" (largest logit {numpy.abs(theirs).max():.1f}), same best token {agreement:.0%}")  # fmt: skip
        worst = max(worst, difference)
    sys.exit(0 if worst <= arguments.tolerance else 1)
