"""Scores random tokens with a checkpoint folder in lathe and in transformers, both in float32, and compares the logits.

usage: check_checkpoint_with_transformers.py --program build/lathe CHECKPOINT...

Prints one line per checkpoint; the exit status is 1 when a logit differs by more than --tolerance. Takes what
transformers itself can run: deepseek_v2 (without YaRN, whose factor on the scores its port leaves out), deepseek_v3 and
llama. Needs pip install torch==2.7.1 transformers==4.56.2 safetensors==0.8.0.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
except ImportError as error:
    sys.exit(f"check_checkpoint_with_transformers.py: expected the packages of its head comment, found none: {error}")


def lathe_logits(program, checkpoint, ids):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "logits.safetensors"
        subprocess.run(
            [program, "eval", "logits", "-m", checkpoint, "--compute", "f32", "--out", out,
             "--token-ids", ",".join(map(str, ids))],
            check=True,
        )  # fmt: skip
        return load_file(out)["logits"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("checkpoints", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    worst = 0.0
    for checkpoint in arguments.checkpoints:
        config = json.loads((checkpoint / "config.json").read_text())
        draw = torch.Generator().manual_seed(1)
        ids = torch.randint(0, config["vocab_size"], (arguments.tokens,), generator=draw)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            theirs = model(ids[None]).logits[0]
        ours = lathe_logits(arguments.program, checkpoint, ids.tolist())
        difference = (ours - theirs).abs().max().item()
        agreement = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
        print(f"{checkpoint}: {config['model_type']}, largest difference of a logit {difference:.2e}"
              f" (largest logit {theirs.abs().max().item():.1f}), same best token {agreement:.0%}")  # fmt: skip
        worst = max(worst, difference)
    sys.exit(1 if worst > arguments.tolerance else 0)


if __name__ == "__main__":
    main()
