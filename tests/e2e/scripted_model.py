"""A tiny model that answers what a script says: greedy, every token decides the next one.

Attention and experts add nothing, so the last token's embedding alone reaches the head, whose rows are the sums of the
embeddings they follow. A script begins behind a token that the prompt ends with. Texts are cut so that no token stands
for two places; a marker is its own token the first time, and later pieces of text, cut anywhere.
"""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "hostile"))

from tiny_model import ASSISTANT, BOS, EOS, USER, Model, bf16_bytes, byte_alphabet, elements, tensor_shapes  # noqa: E402

BAR, SPACE = "\uff5c", "\u2581"


def marker(name):
    return f"<{BAR}{name.replace(' ', SPACE)}{BAR}>"


CALLS_BEGIN, CALLS_END = marker("tool calls begin"), marker("tool calls end")
CALL_BEGIN, CALL_END = marker("tool call begin"), marker("tool call end")
SEP = marker("tool sep")
FIM_BEGIN, FIM_HOLE, FIM_END = marker("fim begin"), marker("fim hole"), marker("fim end")
MARKERS = ["<think>", "</think>", CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEP]

TURNS = (
    "{{ bos_token }}{% for m in messages if m['role'] == 'system' %}{{ m['content'] }}{% endfor %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '" + USER + "' + m['content'] }}"
    "{% elif m['role'] == 'tool' %}{{ '[' + m['content'] + ']' }}"
    "{% elif m['role'] == 'assistant' %}{{ '" + ASSISTANT + "' }}{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}CALL{% endfor %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}"
    "{{ '<think>' if thinking else '</think>' }}{{ script or '' }}{% endif %}"
)
CALL_V3 = (
    "{{ '" + CALL_BEGIN + "' + c['type'] + '" + SEP + "' + c['function']['name'] + '\n```json\n' + "
    "c['function']['arguments'] + '\n```" + CALL_END + "' }}"
)
CALL_V31 = (
    "{{ '" + CALL_BEGIN + "' + c['function']['name'] + '" + SEP + "' + "
    "c['function']['arguments'] | tojson + '" + CALL_END + "' }}"
)


def call(v3, name, arguments):
    """A call as models write it."""
    if v3:
        return f"{CALL_BEGIN}function{SEP}{name}\n```json\n{arguments}\n```{CALL_END}"
    return f"{CALL_BEGIN}{name}{SEP}{arguments}{CALL_END}"


def bytes_as_token(data):
    alphabet = byte_alphabet()
    return "".join(alphabet[b] for b in data)


class ScriptedModel(Model):
    """scripts: token that the prompt ends with -> text of the answer; where that ends with a marker that begins another
    script, the other goes on.

    `special`: whether the vocabulary calls the markers special. Write it with write(folder).
    """

    WIDTH = 128

    def __init__(self, v3, special, scripts):
        super().__init__(v3=False)
        vocab = self.tokenizer["model"]["vocab"]
        self.pieces = []  # token text of each new ordinary token
        used = set(vocab)
        free = set(MARKERS) - set(scripts)
        follows = []  # (token, next token), as token texts
        for start, text in scripts.items():
            goes_on = next((s for s in scripts if s in MARKERS and text.endswith(s)), EOS)
            tokens = [start, *self._cut(text.removesuffix(goes_on).encode(), used, free), goes_on]
            follows += zip(tokens, tokens[1:])
        for piece in self.pieces:
            vocab[piece] = len(vocab)
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        self.tokenizer["added_tokens"] = [
            {"id": len(vocab) + i, "content": text, "special": special or text not in MARKERS, **plain}
            for i, text in enumerate([BOS, EOS, USER, ASSISTANT, *MARKERS, FIM_BEGIN, FIM_HOLE, FIM_END])
        ]
        ids = {**vocab, **{t["content"]: t["id"] for t in self.tokenizer["added_tokens"]}}
        self.config.update(
            bos_token_id=ids[BOS], eos_token_id=ids[EOS], vocab_size=len(ids), hidden_size=self.WIDTH, max_position_embeddings=4096
        )
        self.config["rope_scaling"]["original_max_position_embeddings"] = 1024
        self.generation = {"bos_token_id": ids[BOS], "eos_token_id": ids[EOS]}
        self.tokenizer_config["chat_template"] = TURNS.replace("CALL", CALL_V3 if v3 else CALL_V31)
        self.tokenizer_config["model_max_length"] = 4096
        self.tensors = self._tensors([(ids[a], ids[b]) for a, b in follows])

    def _cut(self, data, used, free):
        """`data` as token texts, each for the first time."""
        found = {m: data.find(m.encode()) for m in free}
        found = {m: at for m, at in found.items() if at >= 0}
        at = min(found.values(), default=len(data))
        out = self._pieces(data[:at], used)
        self.pieces += out
        used.update(out)
        if not found:
            return out
        first = min(found, key=found.get)
        free.remove(first)
        return [*out, first, *self._cut(data[at + len(first.encode()) :], used, free)]

    def _pieces(self, data, used):
        """`data` in pieces that are neither in `used` nor equal; None where there is no such cut."""
        if not data:
            return []
        for size in (5, 4, 6, 7, 8, 3, 9, 10, 11, 12, 2):
            piece = bytes_as_token(data[:size])
            if size > len(data) or piece in used:
                continue
            rest = self._pieces(data[size:], used | {piece})
            if rest is not None:
                return [piece, *rest]
        return None

    def _tensors(self, follows):
        rng = random.Random(20240506)
        shapes = tensor_shapes(self.config)
        width, tokens = self.WIDTH, self.config["vocab_size"]
        embeddings = [[rng.choice((-1.0, 1.0)) for _ in range(width)] for _ in range(tokens)]
        head = [[0.0] * width for _ in range(tokens)]
        for before, after in follows:
            head[after] = [h + 0.25 * e for h, e in zip(head[after], embeddings[before])]
        out = {}
        for name, shape in shapes.items():
            if name in ("model.embed_tokens.weight", "lm_head.weight"):
                rows = embeddings if name.startswith("model") else head
                values = [x for row in rows for x in row]
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                values = [0.0] * elements(shape)
            else:
                values = [1.0 if "norm" in name else 0.125] * elements(shape)
            out[name] = ("BF16", shape, bf16_bytes(values))
        return out
