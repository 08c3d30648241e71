"""Scores random tokens with a checkpoint folder in lathe (float32) and in float64 by the equations of the papers, written
in numpy (numpy_model.py), and compares the logits.

usage: check_checkpoint_with_numpy.py --program build/lathe CHECKPOINT...

Prints one line per checkpoint; the exit status is 1 when a logit differs by more than --tolerance. Takes checkpoints in
F32 or BF16 of deepseek_v2, deepseek_v3, deepseek and llama without YaRN. Needs numpy.
"""

import compare_logits
from numpy_model import Model

if __name__ == "__main__":
    compare_logits.main(lambda checkpoint, ids: Model(checkpoint).logits(ids))
