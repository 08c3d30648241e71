"""Scores random tokens with a checkpoint folder in lathe and in transformers, both in float32, and compares the logits.

usage: check_checkpoint_with_transformers.py --program build/lathe CHECKPOINT...

Prints one line per checkpoint; the exit status is 1 when a logit differs by more than --tolerance. Takes what
transformers itself can run: deepseek_v2 (without YaRN, whose factor on the scores its port leaves out), deepseek_v3 and
llama. Needs pip install torch==2.7.1 transformers==4.56.2 safetensors==0.8.0 numpy.
"""

import sys

import compare_logits

try:
    import torch
    from transformers import AutoModelForCausalLM
except ImportError as error:
    sys.exit(f"check_checkpoint_with_transformers.py: expected the packages of its head comment, found none: {error}")


def score(checkpoint, ids):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


if __name__ == "__main__":
    compare_logits.main(score)
