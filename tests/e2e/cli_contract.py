#!/usr/bin/env python3
"""The command line as scripts see it: files, JSON fields, exit codes, and golden values through the program itself.

    cli_contract.py --program lathe --source REPOSITORY

The shared golden set (vocabularies, chat templates) is used where it lies: $LATHE_GOLDEN or ../shared/golden.
"""

import argparse
import array
import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

PROGRAM = ""
SOURCE = pathlib.Path()
SANITIZED = False
MODELS = [
    "v2lite-tiny",
    "v2-tiny",
    "v3-tiny",
    "v3-tiny-fp8",
    "llama-gqa-tiny",
    "llama-mha-tiny",
    "llama-mqa-tiny",
    "deepseek-moe-tiny",
]
CODES = {"F32": "f", "F64": "d", "I32": "i", "I64": "q"}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        values = array.array(CODES[entry["dtype"]])
        values.frombytes(data[begin:end])
        tensors[name] = (entry["shape"], values)
    return tensors


def shared_golden():
    return pathlib.Path(os.environ.get("LATHE_GOLDEN") or SOURCE / ".." / "shared" / "golden")


class Contract(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-contract-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_program(self, *arguments, stdin="", code=0):
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)], input=stdin.encode(), capture_output=True, timeout=300, check=False
        )
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        return done.stdout.decode()

    def error_of(self, *arguments, code, stdin=""):
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)], input=stdin.encode(), capture_output=True, timeout=300, check=False
        )
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, b"")
        lines = [line for line in done.stderr.decode().splitlines() if line.startswith("lathe: error: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        return lines[0]

    def check_logits(self, model, prompt, expected, details):
        ids = list(expected[f"{prompt}.input_ids"][1])
        (self.folder / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
        out = self.folder / "out.safetensors"
        arguments = ["-m", SOURCE / "tests/golden" / model, "--token-ids", f"@{self.folder / 'ids.json'}", "--out", out]
        self.run_program("eval", "logits", *arguments, "--trace", "--compute", "f32", "-q")
        got = read_safetensors(out)
        shape, wanted = expected[f"{prompt}.logits"]
        self.assertEqual(got["logits"][0], [len(ids), shape[1]])
        positions = list(expected[f"{prompt}.positions"][1])
        tolerance = max(2e-4, 20 * details["float32_reference_max_abs_logit_error"])
        for i, position in enumerate(positions):
            row = got["logits"][1][position * shape[1] : (position + 1) * shape[1]]
            error = max(abs(a - b) for a, b in zip(row, wanted[i * shape[1] : (i + 1) * shape[1]]))
            self.assertLessEqual(error, tolerance, f"{model} {prompt} position {position}")
        layers, kept, width = expected[f"{prompt}.hidden"][0]
        self.assertEqual(got["hidden"][0], [layers, len(ids), width])
        self.assertEqual(got["final_norm"][0], [len(ids), width])
        for name in expected:
            if not name.startswith(f"{prompt}.layer") or not name.endswith(".router_idx"):
                continue
            k = expected[name][0][1]
            mine = got[name[len(prompt) + 1 :]][1]
            picked = [expert for position in positions for expert in mine[position * k : (position + 1) * k]]
            self.assertEqual(picked, list(expected[name][1]), name)
            self.assertIn(name[len(prompt) + 1 :].replace("router_idx", "router_weight"), got)
        self.assertEqual(kept, len(expected[f"{prompt}.hidden_positions"][1]))

    def test_eval_logits_and_generate_match_the_golden_models(self):
        for model in MODELS:
            golden = SOURCE / "tests/golden" / model
            expected = read_safetensors(golden / "expected.safetensors")
            details = json.loads((golden / "expected.json").read_text(encoding="utf-8"))["prompts"]
            for prompt in details:
                if prompt == "past4096":
                    continue  # the library's own test covers it
                with self.subTest(model=model, prompt=prompt):
                    self.check_logits(model, prompt, expected, details[prompt])
                    ids = ",".join(map(str, expected[f"{prompt}.input_ids"][1]))
                    wanted = list(expected[f"{prompt}.greedy_ids"][1])
                    arguments = ["-m", golden, "--token-ids", ids, "-n", len(wanted), "--temperature", "0"]
                    answer = json.loads(self.run_program("generate", *arguments, "--compute", "f32", "--json", "-q"))
                    self.assertEqual(answer["token_ids"], wanted)

    def test_generate_json(self):
        model = SOURCE / "models/storyteller"
        arguments = ["generate", "-m", model, "-p", "The king", "-n", "12", "--seed", "5", "--json"]
        answer = json.loads(self.run_program(*arguments, "--logprobs", "2"))
        self.assertEqual(
            list(answer), ["model", "prompt_token_ids", "token_ids", "text", "finish_reason", "logprobs", "usage", "timings"]
        )
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["usage"], {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15})
        self.assertEqual(
            list(answer["timings"]), ["load_s", "prefill_s", "prefill_tok_per_s", "decode_s", "decode_tok_per_s"]
        )
        self.assertEqual(len(answer["logprobs"]), 12)
        self.assertEqual(len(answer["logprobs"][0]["top_logprobs"]), 2)
        again = json.loads(self.run_program(*arguments))
        self.assertEqual(again["token_ids"], answer["token_ids"], "same seed, same output")
        stopped = json.loads(self.run_program(*arguments[:-3], "--seed", "5", "--json", "--stop", answer["text"][3:8]))
        self.assertEqual(stopped["finish_reason"], "stop")
        self.assertEqual(stopped["text"], answer["text"][:3])

    def test_least_tokens_and_what_counts(self):
        model = SOURCE / "models/storyteller"
        eos = json.loads((model / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
        arguments = ["generate", "-m", model, "-p", "The king", "-n", "9", "--logit-bias", f"{eos}=100", "--json", "-q"]
        for least, extra in ((0, []), (3, ["--min-tokens", "3"])):
            answer = json.loads(self.run_program(*arguments, *extra))
            self.assertEqual((len(answer["token_ids"]), answer["finish_reason"]), (least, "stop"))
            self.assertEqual(answer["usage"]["completion_tokens"], least + 1)
            self.assertNotIn(eos, answer["token_ids"])
        self.assertIn("min_tokens", self.error_of(*arguments, "--min-tokens", "10", code=2))

    def test_answers_that_are_json(self):
        model = SOURCE / "models/storyteller"
        schema = {"type": "object", "required": ["who", "age"], "additionalProperties": False, "properties": {
            "who": {"enum": ["king", "queen"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}}}
        path = self.folder / "schema.json"
        path.write_text(json.dumps(schema), encoding="utf-8")
        generate = ["generate", "-m", model, "-p", "The king", "-n", "200", "--seed", "5", "-q"]
        run = ["run", model, "-p", "The king", "-n", "200", "--seed", "5", "-q"]
        texts = {self.run_program(*command, "--json-schema", given) for command in (generate, run) for given in (path, json.dumps(schema))}
        self.assertEqual(len(texts), 1, "one text, whoever writes it and wherever the schema comes from")
        value = json.loads(texts.pop())
        self.assertEqual(list(value), ["who", "age"])
        self.assertIn(value["who"], ("king", "queen"))
        self.assertTrue(0 <= value["age"] <= 99)
        (close,) = json.loads(self.run_program("tokenize", "-m", model, "-p", "}", "--json"))["ids"]
        empty = ["--json-object", "--logit-bias", f"{close}=100", "--temperature", "0"]
        answer = json.loads(self.run_program(*generate, *empty, "--json"))
        self.assertEqual((json.loads(answer["text"]), answer["finish_reason"]), ({}, "stop"))
        self.assertIn("found both", self.error_of(*generate, "--json-object", "--json-schema", path, code=2))
        self.assertIn("#/not: this keyword", self.error_of(*generate, "--json-schema", '{"not": {}}', code=1))
        self.assertIn("none.json", self.error_of(*generate, "--json-schema", self.folder / "none.json", code=1))
        tiny = SOURCE / "tests/golden/v3-tiny"
        self.assertIn("tokenizer", self.error_of("generate", "-m", tiny, "--token-ids", "1", "--json-object", "-q", code=2))

    def test_inspect_json(self):
        facts = json.loads(self.run_program("inspect", SOURCE / "tests/golden/configs/deepseek-v2.json", "--json"))
        self.assertEqual(facts["architecture"], "DeepseekV2ForCausalLM")
        self.assertEqual(facts["parameters"]["total"], 235_741_434_880)
        self.assertEqual(facts["parameters"]["active"], 20_851_512_320)
        self.assertEqual(facts["parameters"]["active_with_embedding"], 21_375_800_320)
        cache = facts["cache"]
        self.assertEqual((cache["elements_per_token"], cache["mha_elements_per_token"]), (34_560, 1_966_080))
        self.assertEqual((cache["bytes_per_token"], cache["equivalent_gqa_groups"]), (69_120, 2.25))
        plan = facts["plan"]
        self.assertEqual(plan["weights"] + plan["cache"] + plan["scratch"], plan["total"])
        text = self.run_program("inspect", SOURCE / "tests/golden/configs/deepseek-v2.json")
        for fragment in ("34,560", "1,966,080", "2.25 groups"):
            self.assertIn(fragment, text)

    def test_verify(self):
        for model in MODELS:
            with self.subTest(model=model):
                report = json.loads(self.run_program("verify", SOURCE / "tests/golden" / model, "--json", "-q"))
                self.assertTrue(report["ok"])
                names = [check["name"] for check in report["checks"]]
                self.assertIn("absorbed = reference" if not model.startswith(("llama", "deepseek")) else "fast = reference", names)
        lines = self.run_program("verify", SOURCE / "models/storyteller").splitlines()
        self.assertTrue(all(line.startswith("ok ") for line in lines), lines)

    def test_verify_finds_damage(self):
        model = self.folder / "model"
        shutil.copytree(SOURCE / "tests/golden/v2lite-tiny", model)
        weights = model / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-2:] = b"\xc0\x7f"  # bf16 NaN
        weights.write_bytes(data)
        done = subprocess.run([PROGRAM, "verify", str(model)], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("FAIL  finite", done.stdout)
        self.assertIn("lathe: error: verify: finite", done.stderr)

    def test_exit_codes(self):
        tiny = SOURCE / "tests/golden/v2lite-tiny"
        self.error_of("generate", "-m", self.folder / "none", "-p", "x", code=1)
        self.error_of("generate", "-m", tiny, "--token-ids", "1,two", code=2)
        self.error_of("generate", "-m", tiny, "--token-ids", "100000", code=2)
        self.error_of("generate", "-m", tiny, "-p", "x", code=1)  # no tokenizer
        self.error_of("generate", code=2)
        self.error_of("nothing", code=2)
        config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
        config["max_position_embeddings"] = 1 << 30
        huge = self.folder / "huge"
        shutil.copytree(tiny, huge)
        (huge / "config.json").write_text(json.dumps(config), encoding="utf-8")
        line = self.error_of("generate", "-m", huge, "--token-ids", "1", "-c", 1 << 30, code=3)
        self.assertIn("memory plan", line)

    def test_perplexity_json(self):
        text = self.folder / "text"
        text.write_text("Once upon a time there was a king. " * 30, encoding="utf-8")
        result = json.loads(self.run_program("eval", "perplexity", "-m", SOURCE / "models/storyteller", "-f", text, "--json"))
        self.assertEqual(list(result), ["tokens", "nll", "perplexity", "bits_per_byte"])
        self.assertGreater(result["tokens"], 100)
        self.assertTrue(1.0 < result["perplexity"] < 1000.0)

    def check_picture(self, path, kind):
        root = xml.etree.ElementTree.parse(path).getroot()
        self.assertEqual((root.tag, root.get("role")), ("{http://www.w3.org/2000/svg}svg", "img"))
        self.assertGreater(len(root.findall(f".//{{http://www.w3.org/2000/svg}}{kind}")), 3)

    def test_perplexity_by_position(self):
        text = self.folder / "text"
        text.write_text("Once upon a time there was a king. " * 60, encoding="utf-8")
        out = self.folder / "bins.svg"
        arguments = ["eval", "perplexity", "-m", SOURCE / "models/storyteller", "-f", text, "-q"]
        result = json.loads(self.run_program(*arguments, "--ctx", 100, "--by-position", 3, "--out", out, "--json"))
        bins = result["by_position"]
        self.assertEqual([(b["from"], b["to"]) for b in bins], [(0, 34), (34, 67), (67, 100)])
        self.assertEqual(list(bins[0]), ["from", "to", "nll", "perplexity", "tokens"])
        self.assertEqual(sum(b["tokens"] for b in bins), result["tokens"])
        mean = sum(b["nll"] * b["tokens"] for b in bins) / result["tokens"]
        self.assertAlmostEqual(mean, result["nll"], places=9)
        self.assertLess(bins[2]["nll"], bins[0]["nll"], "a text that repeats itself gets easier")
        self.check_picture(out, "line")
        plain = json.loads(self.run_program(*arguments, "--ctx", 100, "--json"))
        self.assertEqual({**plain, "by_position": bins}, result)
        text.write_text("Once upon a time", encoding="utf-8")
        short = json.loads(self.run_program(*arguments, "--by-position", 2, "--json"))["by_position"]
        self.assertEqual((short[1]["nll"], short[1]["tokens"]), (None, 0), "no window reached it")
        self.assertIn("--by-position", self.error_of(*arguments, "--ctx", 3, "--by-position", 4, code=2))
        self.assertIn(".svg or .html", self.error_of(*arguments, "--by-position", 4, "--out", "x.png", code=2))

    def test_needle(self):
        arguments = ["eval", "needle", "-m", SOURCE / "models/storyteller", "-q"]
        asked = ["--lengths", "200,150", "--depths", "0,50,100", "--seed", 4, "--json"]
        svg, page = self.folder / "map.svg", self.folder / "map.html"
        text = self.run_program(*arguments, *asked, "--out", svg)
        result = json.loads(text)
        self.assertEqual((result["form"], result["lengths"], result["depths"]), ("plain", [150, 200], [0, 50, 100]))
        self.assertEqual(len(result["cells"]), 6)
        for cell in result["cells"]:
            self.assertTrue(cell["length"] - 40 < cell["prompt_tokens"] < cell["length"], cell)
            self.assertTrue(0.0 < cell["reciprocal_rank"] <= 1.0 and cell["logprob"] < 0.0, cell)
        mean = sum(cell["logprob"] for cell in result["cells"]) / 6
        self.assertAlmostEqual(mean, result["logprob"], places=9)
        self.check_picture(svg, "rect")
        self.assertEqual(self.run_program(*arguments, *asked, "--out", page, "-t", 1), text, "same seed, same bytes")
        self.assertEqual(page.read_text(encoding="utf-8").count("<svg "), 2)
        story = self.folder / "story.txt"
        story.write_text("The fox said nothing. The hen was not at home.", encoding="utf-8")
        other = json.loads(self.run_program(*arguments, *asked, "-f", story))
        self.assertNotEqual(other["logprob"], result["logprob"])
        self.assertIn("at most the context size 512", self.error_of(*arguments, "--lengths", "200,513", code=2))
        self.assertIn("--lengths: expected at least", self.error_of(*arguments, "--lengths", "20", code=2))
        self.assertIn("--ctx-size: expected at least", self.error_of(*arguments, "-c", 40, code=2))
        self.assertIn(".svg or .html", self.error_of(*arguments, "--out", "map.png", code=2))
        story.write_text(" ", encoding="utf-8")
        self.assertIn("found no word", self.error_of(*arguments, "-f", story, code=1))

    def test_needle_in_a_chat(self):
        model = self.folder / "model"
        shutil.copytree(SOURCE / "models/storyteller", model)
        (model / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}\n\nAnswer:", encoding="utf-8")
        arguments = ["eval", "needle", "-m", model, "--lengths", 200, "--depths", 50, "--json", "-q"]
        self.assertEqual(json.loads(self.run_program(*arguments))["form"], "chat")
        self.assertEqual(json.loads(self.run_program(*arguments, "--plain"))["form"], "plain")

    def test_tokenizers_of_the_shared_set(self):
        root = shared_golden() / "tokenizers"
        if not root.is_dir():
            self.skipTest(f"{root} is not there")
        for folder in sorted(root.iterdir()):
            with self.subTest(tokenizer=folder.name):
                model = self.folder / folder.name
                model.mkdir()
                (model / "tokenizer.json").write_bytes(gzip.decompress((folder / "tokenizer.json.gz").read_bytes()))
                shutil.copy(folder / "tokenizer_config.json", model)
                golden = json.loads((folder / "encodings.json").read_text(encoding="utf-8"))
                lines = "".join(json.dumps(case["text"]) + "\n" for case in golden["encode"])
                for flags, field in (([], "ids"), (["--plain"], "ids_no_added_tokens")):
                    out = self.run_program("tokenize", "-m", model, "--jsonl", *flags, stdin=lines).splitlines()
                    self.assertEqual(len(out), len(golden["encode"]))
                    for line, case in zip(out, golden["encode"]):
                        self.assertEqual(json.loads(line), case.get(field, case["ids"]), case["text"])
                lines = "".join(json.dumps(case["ids"]) + "\n" for case in golden["decode"])
                out = self.run_program("tokenize", "-m", model, "--decode", "--jsonl", stdin=lines).splitlines()
                for line, case in zip(out, golden["decode"]):
                    self.assertEqual(json.loads(line), case["utf8_lossy"])

    def test_chat_templates_of_the_shared_set(self):
        root = shared_golden()
        if not (root / "chat/chat.json").is_file():
            self.skipTest(f"{root} is not there")
        if SANITIZED:
            self.skipTest("hundreds of starts with a large vocabulary; the library's test of these templates runs")
        chat = json.loads((root / "chat/chat.json").read_text(encoding="utf-8"))
        tokenizers = {"v2": "deepseek-llm", "coder": "deepseek-coder"}
        for case in chat["cases"]:
            name = tokenizers.get(case["template"], "deepseek-r1")
            model = self.folder / name
            if not model.exists():
                model.mkdir()
                source = root / "tokenizers" / name
                (model / "tokenizer.json").write_bytes(gzip.decompress((source / "tokenizer.json.gz").read_bytes()))
                shutil.copy(source / "tokenizer_config.json", model)
            (self.folder / "template.jinja").write_text(chat["templates"][case["template"]], encoding="utf-8")
            request = {key: case[key] for key in ("messages", "add_generation_prompt", "thinking") if key in case}
            (self.folder / "messages.json").write_text(json.dumps(request), encoding="utf-8")
            arguments = ["-m", model, "--messages", self.folder / "messages.json", "--chat-template", self.folder / "template.jinja"]
            with self.subTest(template=case["template"], case=case["name"]):
                self.assertEqual(self.run_program("template", *arguments), case["rendered"])
                self.assertEqual(json.loads(self.run_program("template", *arguments, "--ids")), case["ids"])


def main():
    global PROGRAM, SOURCE, SANITIZED
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--sanitized", action="store_true")
    options = parser.parse_args()
    PROGRAM, SOURCE, SANITIZED = options.program, pathlib.Path(options.source), options.sanitized
    unittest.main(argv=[sys.argv[0]], verbosity=2)


if __name__ == "__main__":
    main()
