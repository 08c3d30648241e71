#!/usr/bin/env python3
"""`lathe bench`: its table, its JSON document, made-up weights, and the signature that two builds compare.

    bench.py --program lathe --golden tests/golden
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
GOLDEN = pathlib.Path()
SHORT = ("--repeat", "2", "--prompt", "8", "--gen", "3", "--depth", "0,40", "-t", "1")


class Bench(unittest.TestCase):
    def lathe(self, *arguments, **changes):
        env = {name: value for name, value in os.environ.items() if not name.startswith("LATHE_")}
        return subprocess.run([PROGRAM, "bench", *arguments], capture_output=True, text=True, env={**env, **changes},
                              stdin=subprocess.DEVNULL, timeout=300, check=False)

    def document(self, *arguments, **changes):
        done = self.lathe(*arguments, "--json", **changes)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def signature(self, *arguments, **changes):
        done = self.lathe(*arguments, "--signature", "-q", **changes)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertRegex(done.stdout, r"\A[0-9a-f]{16}\n\Z")
        return done.stdout.strip()

    def check_signature_everywhere(self, arguments, expected):
        self.assertEqual(self.signature(*arguments, "-t", "2"), expected)
        for isa in ("avx2", "avx512vnni", "amx"):
            done = self.lathe(*arguments, "--signature", "-q", LATHE_ISA=isa)
            if done.returncode == 2:
                continue  # not on this machine
            self.assertEqual(done.stdout.strip(), expected, isa)

    def check_document(self, document):
        self.assertLessEqual({"machine", "model", "rows", "load_s", "peak_rss_bytes", "signature"}, set(document))
        machine = document["machine"]
        self.assertEqual(machine["threads"], 1)
        for key in ("bandwidth_bytes_per_s", "fp32_peak_op_per_s", "int8_peak_op_per_s"):
            self.assertGreater(machine[key], 1e7, key)
        self.assertGreater(document["peak_rss_bytes"], 1 << 20)
        self.assertGreaterEqual(document["load_s"], 0)
        cases = [(row["kind"], row["tokens"], row["depth"]) for row in document["rows"]]
        self.assertEqual(cases, [("prompt", 8, 0), ("prompt", 8, 40), ("gen", 3, 0), ("gen", 3, 40)])
        for row in document["rows"]:
            rate = row["tok_per_s"]
            self.assertEqual(set(rate), {"median", "min", "max"})
            self.assertGreater(rate["min"], 0)
            self.assertLessEqual(rate["min"], rate["median"])
            self.assertLessEqual(rate["median"], rate["max"])
            self.assertEqual(len(row["seconds"]), 2)
            self.assertGreater(row["bytes_per_token"], 0)
            share = 100 * rate["median"] * row["bytes_per_token"] / machine["bandwidth_bytes_per_s"]
            self.assertAlmostEqual(row["bandwidth_percent"], share, delta=1e-6 * share)
            peak = machine["%s_peak_op_per_s" % document["peak"]]
            share = 100 * rate["median"] * row["operations_per_token"] / peak
            self.assertAlmostEqual(row["peak_percent"], share, delta=1e-6 * share)
        # 40 more cached positions are read.
        self.assertAlmostEqual(document["rows"][3]["bytes_per_token"] - document["rows"][2]["bytes_per_token"],
                               40 * document["model"]["cache_bytes_per_token"], delta=0.5)

    def test_document_of_a_model(self):
        document = self.document("-m", str(GOLDEN / "v2lite-tiny"), *SHORT)
        self.check_document(document)
        self.assertFalse(document["model"]["synthetic"])
        self.assertEqual(document["model"]["cache_type"], "f16")

    def test_made_up_weights(self):
        config = str(GOLDEN / "v3-tiny" / "config.json")
        document = self.document("--synthetic", config, *SHORT)
        self.check_document(document)
        self.assertTrue(document["model"]["synthetic"])
        self.assertEqual(list(document["model"]["types"]), ["BF16"])
        self.assertEqual(self.signature("--synthetic", config), document["signature"])

    def test_made_up_weights_of_a_type(self):
        config = json.loads((GOLDEN / "configs" / "deepseek-v2-lite.json").read_text())
        config.update(num_hidden_layers=2, hidden_size=256, intermediate_size=256, moe_intermediate_size=256,
                      n_routed_experts=8, num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=256, vocab_size=500,
                      bos_token_id=0, eos_token_id=1)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(config, file)
            file.flush()
            plain = self.signature("--synthetic", file.name)
            for type_ in ("q8_0", "q4_k_m"):
                arguments = ("--synthetic", file.name, "--type", type_)
                document = self.document(*arguments, *SHORT)
                self.check_document(document)
                self.assertEqual(document["peak"], "int8")
                expected = document["signature"]
                self.assertNotEqual(expected, plain)
                self.check_signature_everywhere(arguments, expected)

    def test_table(self):
        done = self.lathe("-m", str(GOLDEN / "llama-gqa-tiny"), *SHORT)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines[:4]], ["model", "machine", "load", "signature"])
        table = lines[5:]
        self.assertEqual(table[0].split()[:4], ["kind", "tokens", "depth", "tok/s"])
        self.assertEqual(len({len(line) for line in table}), 1)
        self.assertEqual([line.split()[0] for line in table[1:]], ["prompt", "prompt", "gen", "gen"])
        self.assertIn("memory plan", done.stderr)

    def test_what_is_measured_can_be_chosen(self):
        model = str(GOLDEN / "v2-tiny")
        rows = self.document("-m", model, "--repeat", "1", "--prompt", "0", "--gen", "2", "-q")["rows"]
        self.assertEqual([row["kind"] for row in rows], ["gen"])
        rows = self.document("-m", model, "--repeat", "1", "--prompt", "4,20", "--gen", "0", "--batch", "8", "-q")["rows"]
        self.assertEqual([row["tokens"] for row in rows], [4, 20])

    def test_the_signature_is_that_of_what_is_computed(self):
        for model in ("v2-tiny", "v3-tiny-fp8", "llama-mqa-tiny"):
            arguments = ("-m", str(GOLDEN / model))
            expected = self.signature(*arguments, "-t", "1")
            self.assertEqual(self.signature(*arguments, "--batch", "100"), expected)
            self.assertNotEqual(self.signature(*arguments, "--cache-type", "f32"), expected)
            self.check_signature_everywhere(arguments, expected)

    def test_errors(self):
        model = str(GOLDEN / "v2-tiny")
        for arguments, message in (((), "expected one of --model and --synthetic, found none"),
                                   (("-m", model, "--prompt", "0", "--gen", "0"), "expected --prompt or --gen above 0"),
                                   (("-m", model, "--depth", "100000000"), "max_position_embeddings"),
                                   (("-m", model, "--depth", "4", "-c", "5"), "--ctx-size"),
                                   (("-m", model, "--depth", "x"), "--depth")):
            done = self.lathe(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(done.stdout, "")
            self.assertIn(message, done.stderr.splitlines()[-1])
        self.assertEqual(self.lathe("-m", str(GOLDEN / "not-there")).returncode, 1)


def main():
    global PROGRAM, GOLDEN
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    arguments, rest = parser.parse_known_args()
    PROGRAM, GOLDEN = os.path.abspath(arguments.program), arguments.golden
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
