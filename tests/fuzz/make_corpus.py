#!/usr/bin/env python3
"""Writes the seed corpora beside this file from the tiny model and the case lists of tests/hostile.

Seeds are named after what they hold. Inputs that a fuzzer found are added by hand as finding-<what>; this script leaves
them alone.
"""

import json
import os
import random
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "hostile"))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))

import cases_config  # noqa: E402
import cases_gguf  # noqa: E402
import cases_template  # noqa: E402
import cases_tokenizer  # noqa: E402
import cases_weights  # noqa: E402
import serve_hostile  # noqa: E402
from cases import BAD_JSON  # noqa: E402
from gguf_file import Gguf  # noqa: E402
from random_schemas import Schemas  # noqa: E402
from tiny_model import CHAT_TEMPLATE, MESSAGES, Model, byte_alphabet, safetensors_bytes  # noqa: E402

MAX_SEED = 4096


def small_tokenizer():
    """The tiny tokenizer with the bytes of a few letters only, so that mutations hit what matters."""
    tokenizer = Model(v3=False).tokenizer
    alphabet = byte_alphabet()
    letters = [alphabet[b] for b in b" dehilnorw123!\n\xe4\xbd\xa0"]
    merges = tokenizer["model"]["merges"]
    tokens = letters + [merge.replace(" ", "") for merge in merges]
    tokenizer["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    for i, added in enumerate(tokenizer["added_tokens"]):
        added["id"] = len(tokens) + i
    return tokenizer


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def safetensors_seeds():
    tensors = {
        "a": ("F32", [2], b"12345678"),
        "b": ("BF16", [1, 2], b"1234"),
        "s": ("I64", [], b"12345678"),
        "e": ("U8", [0], b""),
    }
    good = safetensors_bytes(tensors)
    length = struct.unpack("<Q", good[:8])[0]
    yield "good", struct.pack("<Q", len(good) - 8 - length) + good[8 : 8 + length]
    for name, spec in cases_weights.HEADERS.items():
        header, data = spec[0], spec[1]
        if not isinstance(header, (str, bytes)):
            header = json.dumps(header)
        if isinstance(header, str):
            header = header.encode()
        yield name, struct.pack("<Q", len(data)) + header[:MAX_SEED]


def small_gguf():
    """The tiny model's file with a few keys and tensors only."""
    gguf = Gguf(Model(v3=False))
    kept = ("general.architecture", "deepseek2.block_count", "deepseek2.rope.freq_base", "deepseek2.expert_weights_norm")
    gguf.metadata = {key: gguf.metadata[key] for key in kept}
    gguf.set_array("tokenizer.ggml.merges", cases_gguf.STRING, ["h e", "l l"])
    gguf.set_array("tokenizer.ggml.token_type", cases_gguf.INT32, [1, 3])
    gguf.tensors = [gguf.tensor(name) for name in ("output_norm.weight", "blk.0.attn_norm.weight")]
    return gguf


def gguf_seeds():
    yield "good", small_gguf().bytes()
    version_2 = small_gguf()
    version_2.version = 2
    yield "version-2", version_2.bytes()
    for name, change in cases_gguf.SMALL_CHANGES.items():
        gguf = small_gguf()
        change(gguf)
        yield name, gguf.bytes()[:MAX_SEED]


def json_seeds():
    good = compact(
        {"a": [1, -2.5e-3, True, None, "\u00e9\ud83d\ude00\n"], "b": {}, "c": [], "d": 1 << 63, "e": -(1 << 63)}
    )
    yield "good", good
    yield "escapes", b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\ud83d\\ude00"'
    yield "deep-enough", b"[" * 30 + b"]" * 30
    yield "too-deep", b"[" * 70 + b"]" * 70
    yield "numbers", b"[0,-0,1e5,1E-5,1e400,0.1,123456789012345678901234567890]"
    for name, text in BAD_JSON.items():
        yield name, (text(good) if callable(text) else text)[:MAX_SEED]


def config_seeds():
    for v3 in (False, True):
        yield f"good-v{3 if v3 else 2}", compact(Model(v3).config)
    lite = Model(v3=False).config
    yield "no-query-rank", compact({**lite, "q_lora_rank": None, "rope_scaling": None, "topk_method": "greedy"})
    new_style = {
        **lite,
        "rope_parameters": {"rope_theta": 10000, **lite["rope_scaling"], "rope_type": "yarn"},
        "dtype": "bfloat16",
    }
    del new_style["rope_scaling"], new_style["rope_theta"], new_style["torch_dtype"]
    yield "new-style", compact(new_style)
    llama = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 128,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "max_position_embeddings": 128,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
    }
    yield "llama", compact(llama)
    yield "deepseek", compact(
        {
            **llama,
            "model_type": "deepseek",
            "architectures": ["DeepseekForCausalLM"],
            "n_routed_experts": 8,
            "n_shared_experts": 2,
            "num_experts_per_tok": 2,
            "norm_topk_prob": False,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
        }
    )
    for group in (cases_config.relation_cases, cases_config.enum_cases):
        for case in group():
            model = Model(case.v3)
            case.build(model)
            seed = compact(model.config)
            if len(seed) < MAX_SEED and "value" not in case.name:
                yield case.name, seed


def tokenizer_seeds():
    settings = compact(
        {"add_bos_token": True, "bos_token": "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "chat_template": "x"}
    )
    text = "hello world 123!\n\u4f60\xff hin".encode()

    def join(tokenizer, config=settings):
        return compact(tokenizer) + b"\0" + config + b"\0" + text

    good = small_tokenizer()
    yield "good", join(good)
    yield "no-settings", join(good, b"")
    yield "pair-merges", join(
        {**good, "model": {**good["model"], "merges": [m.split(" ") for m in good["model"]["merges"]]}}
    )
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    yield "digits-and-level", join({**good, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]}})
    bare = {**good, "added_tokens": [], "post_processor": None, "decoder": None}
    bare["model"] = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    for name, pattern in cases_tokenizer.REGEXES.items():
        stage = {"type": "Split", "pattern": {"Regex": pattern[:200]}, "behavior": "Isolated", "invert": False}
        yield f"regex-{name}", join({**bare, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [stage, level]}})
    for case in list(cases_tokenizer.added_token_cases()) + list(cases_tokenizer.merge_cases()):
        model = Model(v3=False)
        model.tokenizer = small_tokenizer()
        case.build(model)
        seed = join(model.tokenizer)
        if len(seed) < MAX_SEED:
            yield case.name, seed


def template_seeds():
    variables = compact({**MESSAGES, "bos_token": "<s>", "eos_token": "</s>"})
    yield "good", CHAT_TEMPLATE.encode() + b"\0" + variables
    yield "good-default-variables", CHAT_TEMPLATE.encode()
    for group in (cases_template.RUNAWAY, cases_template.BROKEN, cases_template.GOOD):
        for name, source in group.items():
            yield name, source.encode()[:1500]


def answer_seeds():
    bar, space = "\uff5c", "\u2581"
    names = ("calls begin", "calls end", "call begin", "call end")
    calls_begin, calls_end, begin, end = (f"<{bar}tool{space}{name.replace(' ', space)}{bar}>" for name in names)
    sep = f"<{bar}tool{space}sep{bar}>"
    v3 = f'{begin}function{sep}get_weather\n```json\n{{"city": "Paris"}}\n```{end}'
    v31 = f'{begin}get_weather{sep}{{"city": "Paris"}}{end}'
    thought = "<think>\nHm.\n</think>\n\n"
    texts = {
        "v3": (1, calls_begin + v3 + "\n" + v3 + calls_end),
        "v3-thought": (0x40, thought + calls_begin + v3 + calls_end),
        "v3-open": (0xC1, "Hm.</think>Yes.\n" + calls_begin + v3),
        "v3-no-fence": (1, v3.replace("```json", "").replace("```", "") + "after"),
        "v3-backticks": (1, v3.replace("Paris", "``` x ````")),
        "v3-cut-head": (1, calls_begin + v3[:60]),
        "v3-other-type": (1, calls_begin + v3.replace("function", "code")),
        "v31": (2, "I look.\n" + calls_begin + v31 + v31 + calls_end),
        "v31-thought": (0x41 + 1, thought + calls_begin + v31 + calls_end + "after"),
        "v31-cut": (2, calls_begin + v31[:70]),
        "v31-no-call-begin": (2, calls_begin + v31.replace(begin, "")),
        "v31-markers-only": (2, calls_begin + calls_begin + begin + end + sep + calls_end + begin[:9]),
        "none": (0, thought + calls_begin + v3 + calls_end),
        "template": (0, CHAT_TEMPLATE + "{% if tools %}{{ x['arguments'] | tojson }}{% endif %}" + begin + sep),
    }
    for i, (name, (options, text)) in enumerate(texts.items()):
        yield name, bytes([options, 3 + 5 * i]) + text.encode()


def schema_seeds():
    choices = random.Random(1).randbytes(300)
    for seed in range(40):
        yield f"random-{seed}", compact(Schemas(seed).whole()) + b"\0" + choices
    for name, schema in {
        "not": {"not": {}},
        "recursion": {"type": "array", "items": {"$ref": "#"}},
        "to-itself": {"$ref": "#"},
        "nothing": {"allOf": [{"const": 1}, {"const": 2}]},
        "free-keys": {"type": "object", "additionalProperties": {"type": "object"}, "minProperties": 2},
        "pattern-keys": {"type": "object", "patternProperties": {"^a": {"type": "null"}, "b$": {"type": "null"}}},
        "exponential": {"type": "string", "pattern": "(a|b)*a(a|b){20}$"},
        "classes": {"type": "string", "pattern": "^[^\\d\\s-x][\\w.]{2,}?(?:a|)+$", "minLength": 3},
        "counts": {"type": "array", "items": {"type": "string", "minLength": 2, "maxLength": 3}, "minItems": 2, "maxItems": 4},
        "bounds": {"type": "number", "exclusiveMinimum": -0.05, "maximum": 12.375},
        "multiples": {"type": "integer", "multipleOf": 12, "minimum": -100},
        "one-of": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    }.items():
        yield name, compact(schema) + b"\0" + choices


def request_seeds():
    """One body of everything that requests may hold, and what the hostile ones do wrong, a few for each field."""
    function = {"name": "find", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    common = {
        "model": "m", "user": "u", "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": -7, "n": 2, "max_tokens": 16, "stop": ["a", "b"],
        "stop_token_ids": [5], "logit_bias": {"7": -100, "8": 1.5}, "ignore_eos": True, "stream": True,
        "dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 3, "dry_penalty_last_n": 64,
        "dry_sequence_breakers": ["\n", "."],
        "stream_options": {"include_usage": True}, "return_token_ids": True, "return_progress": True,
        "response_format": {"type": "text"},
    }
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    turns = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "\u00fc"}], "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "r"},
        {"role": "tool", "content": "x", "tool_call_id": "c"},
    ]
    chat = {**common, "messages": turns, "logprobs": True, "top_logprobs": 3, "reasoning_effort": "low",
            "tools": [{"type": "function", "function": function}], "parallel_tool_calls": False,
            "chat_template_kwargs": {"a": [1, {"b": None}]}, "add_generation_prompt": False}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
    yield "chat", compact(chat)
    yield "chat-named-tool", compact({**chat, "tool_choice": {"type": "function", "function": {"name": "find"}}})
    yield "chat-schema", compact({"messages": turns[:1], "response_format": schema})
    yield "completion", compact({**common, "prompt": ["a", "b"], "echo": True, "logprobs": 2, "best_of": 2})
    yield "completion-ids", compact({"prompt": [[1, 2], [3]], "max_tokens": 0, "prompt_logprobs": 1})
    yield "tokenize", compact({"content": "a", "add_special": False, "with_pieces": True})
    yield "detokenize", compact({"tokens": [1, 2.0, 299]})
    counts = {}
    for source in (serve_hostile.bad_json, serve_hostile.bad_fields, serve_hostile.bad_messages):
        for _, body, param in source():
            body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
            name = (param or source.__name__).replace("[", "-").replace("]", "")
            counts[name] = counts.get(name, 0) + 1
            if counts[name] <= (40 if param is None else 3) and len(body) < MAX_SEED:
                yield f"wrong-{name}-{counts[name]}", body


def main():
    total = 0
    for target, seeds in {
        "fuzz_json": json_seeds,
        "fuzz_safetensors": safetensors_seeds,
        "fuzz_gguf": gguf_seeds,
        "fuzz_config": config_seeds,
        "fuzz_tokenizer": tokenizer_seeds,
        "fuzz_chat_template": template_seeds,
        "fuzz_answer": answer_seeds,
        "fuzz_schema": schema_seeds,
        "fuzz_request": request_seeds,
    }.items():
        folder = os.path.join(HERE, "corpus", target)
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if not name.startswith("finding-"):
                os.unlink(os.path.join(folder, name))
        for name, data in seeds():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
            total += len(data)
    print(f"{total} bytes")


if __name__ == "__main__":
    main()
