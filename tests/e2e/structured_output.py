#!/usr/bin/env python3
"""Answers that a JSON schema constrains: from random models, for random schemas, checked by Python's json and by
jsonschema (Debian: python3-jsonschema), which know nothing of lathe.

    structured_output.py --program lathe --source . [--schemas 100] [--seed 1]
"""

import argparse
import collections
import concurrent.futures
import datetime
import json
import os
import pathlib
import random
import sys
import tempfile
import unittest

from random_schemas import Schemas
from serve_server import Server

try:
    import jsonschema
except ImportError:
    sys.exit(f"structured_output.py: expected the package jsonschema for {sys.executable} (Debian: python3-jsonschema), found none")

OPTIONS = None
MODELS = {}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


FORMATS = jsonschema.FormatChecker(["date", "uuid", "email", "ipv4"])


@FORMATS.checks("date-time", ValueError)
def is_date_time(text):
    return not isinstance(text, str) or datetime.datetime.fromisoformat(text).tzinfo is not None


@FORMATS.checks("time", ValueError)
def is_time(text):
    return not isinstance(text, str) or datetime.time.fromisoformat(text).tzinfo is not None


def unique(pairs):
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key comes twice")
    return out


def refuse(text):
    raise ValueError(f"{text} is no JSON")


def check(text, schema):
    """The value, which must be strict JSON and satisfy the schema."""
    value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    text.encode("utf-8")
    jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(value)
    return value


def json_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


class Model:
    """A server with what its requests need to come to an end: a bias for what closes strings, objects and arrays."""

    def __init__(self, *arguments, model=None):
        self.server = Server(OPTIONS.program, *arguments, model=model)
        self.bias = {}
        for text, bias in (('"', 5), ("}", 5), ("]", 5), (",", 2), (" ", -4), ("\n", -8), ("\t", -8)):
            tokens = self.server.post("/tokenize", {"content": text, "add_special_tokens": False})[1]["tokens"]
            self.bias[str(tokens[-1])] = bias

    def ask(self, schema, path=TEXT, **body):
        body = {"max_tokens": 160, "temperature": 1, "top_p": 1, "logit_bias": self.bias, **body}
        body.update({"prompt": "A king"} if path == TEXT else {"messages": [{"role": "user", "content": "A king"}]})
        if schema is not None:
            body["response_format"] = json_schema(schema)
        return self.server.post(path, body, timeout=300)


def tiny_model(folder, v3, seed):
    """A model of random weights, large enough that its answers differ."""
    sys.path.insert(0, str(OPTIONS.source / "tests/hostile"))
    import tiny_model as tiny

    model = tiny.Model(v3)
    rng = random.Random(seed)
    model.config["max_position_embeddings"] = model.tokenizer_config["model_max_length"] = 512
    for name, (dtype, shape, _) in model.tensors.items():
        if dtype == "BF16" and "norm" not in name:
            values = [rng.gauss(0, 0.3) for _ in range(tiny.elements(shape))]
            model.tensors[name] = (dtype, shape, tiny.bf16_bytes(values))
    model.write(folder)
    return folder


class RandomSchemas(unittest.TestCase):
    def test_every_answer_that_ends_is_valid(self):
        ends = collections.Counter()

        def one(case):
            name, number = case
            schema = Schemas(OPTIONS.seed * 100_000 + number).whole()
            path = CHAT if number % 3 == 0 else TEXT
            status, answer = MODELS[name].ask(schema, path, seed=number, temperature=number % 4 / 2)
            shown = f"{name}, schema {number}: {json.dumps(schema)}\n"
            if status != 200:
                return name, "refused", shown + str(answer)
            choice = answer["choices"][0]
            text = choice["text"] if path == TEXT else choice["message"]["content"]
            if choice["finish_reason"] == "length":
                return name, "length", ""
            try:
                check(text, schema)
            except (ValueError, jsonschema.ValidationError) as error:
                return name, "invalid", f"{shown}{text!r}\n{str(error).splitlines()[0]}"
            return name, choice["finish_reason"], ""

        cases = [(name, number) for number in range(OPTIONS.schemas) for name in MODELS]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for name, end, found in pool.map(one, cases):
                ends[name, end] += 1
                if found:
                    self.fail(found)
        for name in MODELS:
            print(f"{name}: " + ", ".join(f"{end} {n}" for (m, end), n in sorted(ends.items()) if m == name))
            self.assertGreater(ends[name, "stop"], OPTIONS.schemas * 0.6, ends)


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = MODELS["storyteller"]

    def text(self, answer, index=0):
        return answer["choices"][index]["text"]

    def test_any_object(self):
        # Which answers come to an end within their tokens is the model's choice: some must, and those are objects.
        for path in (TEXT, CHAT):
            ended = 0
            for seed in range(10):
                status, answer = self.model.ask(None, path, response_format={"type": "json_object"}, seed=seed)
                self.assertEqual(status, 200, answer)
                choice = answer["choices"][0]
                if choice["finish_reason"] == "length":
                    continue
                self.assertEqual(choice["finish_reason"], "stop")
                self.assertIsInstance(check(choice["text"] if path == TEXT else choice["message"]["content"], True), dict)
                ended += 1
            self.assertGreaterEqual(ended, 5, path)

    def test_the_names_of_vllm(self):
        wanted = self.text(self.model.ask(PERSON, seed=5)[1])
        for fields in ({"guided_json": PERSON}, {"structured_outputs": {"json": json.dumps(PERSON)}}):
            status, answer = self.model.ask(None, seed=5, **fields)
            self.assertEqual((status, self.text(answer)), (200, wanted), answer)
        status, answer = self.model.ask(None, guided_json={"not": {}})
        self.assertEqual((status, answer["error"]["param"]), (400, "guided_json"), answer)

    def test_text_is_as_without(self):
        plain = self.model.ask(None, temperature=0, max_tokens=12)[1]
        text = self.model.ask(None, temperature=0, max_tokens=12, response_format={"type": "text"})[1]
        self.assertEqual(self.text(plain), self.text(text))

    def test_several_answers(self):
        status, answer = self.model.ask(PERSON, n=4, seed=5)
        self.assertEqual(status, 200, answer)
        texts = [check(self.text(answer, i), PERSON) for i in range(4)]
        self.assertGreater(len({json.dumps(text) for text in texts}), 1)
        for i in range(4):
            self.assertEqual(self.text(self.model.ask(PERSON, seed=5 + i)[1]), self.text(answer, i))

    def test_streams_say_the_same(self):
        whole = self.text(self.model.ask(PERSON, seed=11)[1])
        body = {"prompt": "A king", "max_tokens": 160, "temperature": 1, "top_p": 1, "seed": 11,
                "logit_bias": self.model.bias, "response_format": json_schema(PERSON)}
        events = list(self.model.server.stream(TEXT, body))
        self.assertEqual("".join(e["choices"][0]["text"] for e in events if e["choices"]), whole)
        self.assertEqual(events[-1]["choices"][0]["finish_reason"], "stop")

    # The server of the tests guesses tokens; the answers must be those of one that does not.
    def test_guesses_change_nothing(self):
        without = Model("--draft-tokens", 0)
        try:
            for seed in range(4):
                for temperature in (0, 1):
                    asked = [m.ask(PERSON, seed=seed, temperature=temperature)[1] for m in (self.model, without)]
                    self.assertEqual(self.text(asked[0]), self.text(asked[1]))
                    check(self.text(asked[0]), PERSON)
        finally:
            self.assertEqual(without.server.stop(), 0)
        self.assertGreater(self.model.server.metrics()["spec_decode_num_draft_tokens_total"], 0)

    def test_limits_cut(self):
        status, answer = self.model.ask(PERSON, max_tokens=5, seed=1)
        self.assertEqual((status, answer["choices"][0]["finish_reason"]), (200, "length"))
        self.assertEqual(answer["usage"]["completion_tokens"], 5)

    def test_stop_strings_end(self):
        status, answer = self.model.ask(PERSON, stop=['"age"'], seed=1)
        self.assertEqual((status, answer["choices"][0]["finish_reason"]), (200, "stop"))
        self.assertIn('"name"', self.text(answer))
        self.assertNotIn('"age"', self.text(answer))

    def test_ignoring_the_end_changes_nothing(self):
        texts = [self.text(self.model.ask(PERSON, seed=2, ignore_eos=ignored)[1]) for ignored in (False, True)]
        self.assertEqual(texts[0], texts[1])

    def test_probabilities_are_of_allowed_tokens(self):
        answer = self.model.ask({"enum": ["red", "green"]}, seed=1, logprobs=3)[1]
        self.assertIn(json.loads(self.text(answer)), ("red", "green"))
        self.assertEqual("".join(answer["choices"][0]["logprobs"]["tokens"]), self.text(answer))

    def test_refusals_name_the_place(self):
        for schema, found in (
            ({"properties": {"a": {"not": {}}}}, "response_format: #/properties/a/not: this keyword is not supported"),
            ({"type": "string", "pattern": "(?=a)"}, "response_format: #/pattern: pattern \"(?=a)\": byte 0: look-around"),
            ({"$ref": "#/$defs/x"}, "response_format: #/$ref: nothing is at \"#/$defs/x\""),
            ({"enum": []}, "response_format: #: expected a schema that some value"),
        ):
            for path in (TEXT, CHAT):
                status, answer = self.model.ask(schema, path)
                self.assertEqual((status, answer["error"]["param"]), (400, "response_format"), answer)
                self.assertTrue(answer["error"]["message"].startswith(found), answer)

    def test_a_large_schema_costs_one_request(self):
        schema = {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(5000)}}
        self.assertEqual(self.model.ask(schema)[0], 400)
        self.assertEqual(self.model.ask(PERSON, max_tokens=2)[0], 200)


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, type=os.path.abspath)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--schemas", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("tests", nargs="*")
    OPTIONS = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lathe-structured-") as folder:
        MODELS["storyteller"] = Model("--draft-tokens", 4)
        for name, v3 in (("v2", False), ("v3", True)):
            model = tiny_model(os.path.join(folder, name), v3, OPTIONS.seed)
            MODELS[name] = Model("--draft-tokens", 2 if v3 else 0, model=model)
        result = unittest.main(argv=[sys.argv[0], *OPTIONS.tests], exit=False, verbosity=1).result
        codes = [model.server.stop() for model in MODELS.values()]
    if any(codes):
        print("exit codes", codes, file=sys.stderr)
    sys.exit(0 if result.wasSuccessful() and not any(codes) else 1)


if __name__ == "__main__":
    main()
