#!/usr/bin/env python3
"""lathe train from outside: the contract of its output, checkpoints that load, going on after kills, clear errors.

    train.py --program lathe --recipes recipes [--kills N]

Training text is made up here: sentences of a small grammar, so that a tiny model learns something within seconds.
--kills N kills N times at random moments instead of a handful of times.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = ""
RECIPES = pathlib.Path()
TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "long_context_report.py"
KILLS = 3
SANITIZED = "--sanitized" in sys.argv
SEED = 20240507

RECIPE = """
title = "tiny"
[model]
initializer_std = 0.02
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
n_routed_experts = 4
num_experts_per_tok = 2
n_shared_experts = 1
moe_intermediate_size = 16
[tokenizer]
vocab_size = 320
[train]
max_steps = 24
sequence_length = 32
batch_sequences = 4
micro_batch_sequences = 2
log_every = 4
[schedule]
learning_rate = 1e-2
warmup_steps = 4
[balance]
expert = 0.01
[checkpoint]
every = 5
[eval]
every = 10
tokens = 512
"""


def grammar(seed, documents):
    rng = random.Random(seed)
    who = ["the king", "a fox", "the old woman", "her son", "a bird"]
    what = ["saw", "loved", "lost", "found", "asked for"]
    which = ["a golden ring", "the deep wood", "three apples", "the moon", "a house of stone"]
    out = []
    for _ in range(documents):
        lines = [f"{rng.choice(who)} {rng.choice(what)} {rng.choice(which)}." for _ in range(rng.randint(2, 9))]
        out.append("\n".join(lines))
    return out


def write_text(path, documents):
    path.write_text("".join(text + "\n<|endoftext|>\n" for text in documents))


class Train(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-train-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        write_text(self.folder / "train.txt", grammar(1, 300))
        write_text(self.folder / "valid.txt", grammar(2, 40))
        (self.folder / "tiny.toml").write_text(RECIPE)

    def arguments(self, output, *more, recipe="tiny.toml"):
        return [
            PROGRAM, "train", str(self.folder / recipe),
            "--set", f"data.train={self.folder / 'train.txt'}",
            "--set", f"data.valid={self.folder / 'valid.txt'}",
            "--set", f"output={self.folder / output}",
            "--set", f"data.cache={self.folder / 'cache'}",
            "--json", *more,
        ]  # fmt: skip

    def run_train(self, output, *more, code=0, preexec=None, recipe="tiny.toml"):
        done = subprocess.run(
            self.arguments(output, *more, recipe=recipe),
            capture_output=True, text=True, timeout=250, preexec_fn=preexec, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout) if code == 0 else done.stderr.splitlines()[-1]

    def weights(self, output, step):
        return (self.folder / output / f"checkpoint-{step}" / "model.safetensors").read_bytes()

    def moments(self, output, step):
        return (self.folder / output / f"checkpoint-{step}" / "training_state.safetensors").read_bytes()

    def metrics(self, output):
        return [json.loads(line) for line in (self.folder / output / "metrics.jsonl").read_text().splitlines()]

    def test_contract(self):
        result = self.run_train("run")
        self.assertEqual(set(result), {"steps", "tokens", "train_loss", "valid_loss", "tokens_per_s", "checkpoint"})
        self.assertEqual(result["steps"], 24)
        self.assertEqual(result["tokens"], 24 * 4 * 32)
        self.assertLess(result["train_loss"], 5.0)  # ln 320 = 5.77
        self.assertLess(result["valid_loss"], 5.0)
        checkpoint = pathlib.Path(result["checkpoint"])
        self.assertEqual(checkpoint.name, "checkpoint-24")
        self.assertEqual(sorted(p.name for p in checkpoint.iterdir()),
                         ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                          "training_state.json", "training_state.safetensors"])
        # The two latest stay.
        self.assertEqual(sorted(p.name for p in (self.folder / "run").glob("checkpoint-*")),
                         ["checkpoint-20", "checkpoint-24"])
        lines = self.metrics("run")
        steps = [line["step"] for line in lines if "loss" in line]
        self.assertEqual(steps, list(range(1, 25)))
        self.assertEqual([line["step"] for line in lines if "valid_loss" in line], [10, 20, 24])
        loads = [line["expert_load"] for line in lines if "expert_load" in line]
        self.assertEqual(len(loads), 6)
        self.assertEqual([sum(layer) for layer in loads[0]], [4 * 32 * 2] * 2)
        report = (self.folder / "run" / "report.html").read_text()
        self.assertIn("<svg", report)
        self.assertIn("Expert load, MoE layer 1", report)
        self.assertNotIn("http", report.replace("http-equiv", ""))

        generated = subprocess.run(
            [PROGRAM, "generate", "-m", str(checkpoint), "-p", "the king", "-n", "8", "--temperature", "0", "--json"],
            capture_output=True, text=True, check=False)  # fmt: skip
        self.assertEqual(generated.returncode, 0, generated.stderr)
        self.assertNotIn("warning", generated.stderr)
        (self.folder / "plain.txt").write_text("\n".join(grammar(2, 40)))
        scored = subprocess.run(
            [PROGRAM, "eval", "perplexity", "-m", str(checkpoint), "-f", str(self.folder / "plain.txt"), "--ctx", "32",
             "--compute", "f32", "--json"],
            capture_output=True, text=True, check=False)  # fmt: skip
        self.assertEqual(scored.returncode, 0, scored.stderr)
        # Another cut of the same text by another program path: close to the loss that training reports.
        self.assertAlmostEqual(json.loads(scored.stdout)["nll"], result["valid_loss"], delta=0.6)

    def test_repeats_and_goes_on_bit_for_bit(self):
        self.run_train("whole")
        self.run_train("again", "--threads", "1")
        self.assertEqual(self.weights("whole", 24), self.weights("again", 24))
        # A run that ends early on purpose, then goes on to the same end.
        self.run_train("parts", "--set", "checkpoint.keep=0")
        for step in (24, 20, 15):
            shutil.rmtree(self.folder / "parts" / f"checkpoint-{step}")
        error = self.run_train("parts", code=2)
        self.assertIn("expected a folder without checkpoints, or --resume to go on, found", error)
        result = self.run_train("parts", "--resume")
        self.assertEqual(result["steps"], 24)
        self.assertEqual(self.weights("whole", 24), self.weights("parts", 24))
        self.assertEqual(self.moments("whole", 24), self.moments("parts", 24))
        lines = self.metrics("parts")
        self.assertEqual([line["step"] for line in lines if "loss" in line], list(range(1, 25)))
        # Going on after the end changes nothing.
        self.assertEqual(self.run_train("parts", "--resume")["steps"], 24)
        error = self.run_train("parts", "--resume", "--set", "schedule.learning_rate=0.5", code=2)
        self.assertIn("--resume: schedule.learning_rate: expected 0.01 as in the checkpoint, found 0.5", error)

    def test_muon_repeats_and_goes_on_bit_for_bit(self):
        muon = ("--set", "optimizer.kind=muon", "--set", "checkpoint.keep=0")
        result = self.run_train("whole", *muon, "--threads", "1")
        self.assertLess(result["valid_loss"], 5.0)
        self.run_train("parts", *muon, "--threads", "2")
        for step in (24, 20, 15):
            shutil.rmtree(self.folder / "parts" / f"checkpoint-{step}")
        self.assertEqual(self.run_train("parts", "--resume", *muon)["steps"], 24)
        self.assertEqual(self.weights("whole", 24), self.weights("parts", 24))
        self.assertEqual(self.moments("whole", 24), self.moments("parts", 24))
        self.run_train("adamw", "--set", "checkpoint.keep=0")
        self.assertNotEqual(self.weights("whole", 24), self.weights("adamw", 24))
        error = self.run_train("parts", "--resume", code=2)
        self.assertIn('--resume: optimizer.kind: expected "muon" as in the checkpoint, found "adamw"', error)

    def test_the_rest_of_a_run_may_follow_another_plan(self):
        self.run_train("parts", "--set", "checkpoint.keep=0", "--set", "schedule.kind=constant")
        shutil.rmtree(self.folder / "parts" / "checkpoint-24")
        shutil.rmtree(self.folder / "parts" / "checkpoint-20")
        result = subprocess.run(
            self.arguments("parts", "--resume", "--set", "schedule.kind=cosine", "--set", "schedule.decay_start=0.6"),
            capture_output=True, text=True, check=False)  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn('schedule.kind was "constant" before, now it is "cosine"', result.stderr)
        self.assertIn("schedule.decay_start was 0", result.stderr)
        lines = self.metrics("parts")
        rates = [line["lr"] for line in lines if "loss" in line]
        self.assertEqual(len(rates), 24)
        self.assertEqual(rates[14], max(rates))
        self.assertLess(rates[23], rates[20])
        self.assertLess(rates[20], rates[15])

    # Runs are killed at random moments of their life until they end, and new ones begun until KILLS of them were killed;
    # tokenizer and token files are made anew too, so that kills hit every stage.
    def test_kills(self):
        begun = time.monotonic()
        self.run_train("whole")
        duration = time.monotonic() - begun
        rng = random.Random(SEED)
        kills = runs = 0
        while kills < KILLS:
            output = f"killed-{runs}"
            runs += 1
            shutil.rmtree(self.folder / "cache")
            code = None
            while code != 0:
                process = subprocess.Popen(
                    self.arguments(output, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
                try:
                    process.wait(timeout=rng.uniform(0.02, duration) if kills < KILLS else 250)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                error = process.communicate()[1]
                code = process.returncode
                self.assertIn(code, (0, -signal.SIGKILL), error)
            self.assertEqual(self.weights("whole", 24), self.weights(output, 24))
            self.assertEqual(self.moments("whole", 24), self.moments(output, 24))
            leftovers = [p.name for p in (self.folder / output).iterdir() if p.name.startswith(".checkpoint")]
            self.assertEqual(leftovers, [])
        print(f"killed {kills} times over {runs} runs", file=sys.stderr)

    def test_interrupt_saves(self):
        process = subprocess.Popen(
            self.arguments("stopped", "--set", "train.max_steps=100000", "--set", "checkpoint.every=100000"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        log = self.folder / "stopped" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size > 500) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, error)
        result = json.loads(out)
        self.assertGreater(result["steps"], 0)
        self.assertTrue((pathlib.Path(result["checkpoint"]) / "training_state.json").exists())

    def test_errors_come_before_work(self):
        self.assertIn("unknown key, expected one of", self.run_train("e1", "--set", "train.max_step=3", code=1))
        self.assertIn("kv_lora_rank: expected", self.run_train("e2", "--set", "model.kv_lora_rank=0", code=1))
        self.assertIn("none.txt", self.run_train("e3", "--set", "data.valid=none.txt", code=1))
        self.assertFalse((self.folder / "cache").exists())
        error = self.run_train("e4", "--set", "train.batch_sequences=16", "--set", "train.sequence_length=1000000",
                               "--set", "train.micro_batch_sequences=0", code=3)
        self.assertIn("memory plan: expected", error)

    def test_full_disk_keeps_the_last_checkpoint(self):
        self.run_train("full", "--set", "train.max_steps=10", "--set", "schedule.kind=constant")
        limit = len(self.moments("full", 10)) // 2
        error = self.run_train(
            "full", "--resume", "--set", "train.max_steps=20", "--set", "schedule.kind=constant", code=1,
            preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))  # fmt: skip
        self.assertIn("lathe: error:", error)
        self.assertIn("cannot write", error)
        result = self.run_train("full", "--resume", "--set", "train.max_steps=20", "--set", "schedule.kind=constant")
        self.assertEqual(result["steps"], 20)

    def test_variants_make_one_report(self):
        recipe = RECIPE + """
[[variant]]
name = "mla"
[[variant]]
name = "mqa"
set = { "model.model_type" = "deepseek", "model.num_key_value_heads" = 1 }
[[variant]]
name = "longer"
set = { "model.from" = "@mla", "model.max_position_embeddings" = 64, "train.sequence_length" = 64 }
"""
        (self.folder / "variants.toml").write_text(recipe)
        result = self.run_train("all", "--set", "train.max_steps=6", recipe="variants.toml")
        self.assertEqual([one["name"] for one in result["variants"]], ["mla", "mqa", "longer"])
        report = (self.folder / "all" / "report.html").read_text()
        self.assertIn(">mqa</td>", report)
        config = json.loads((self.folder / "all" / "longer" / "checkpoint-6" / "config.json").read_text())
        self.assertEqual(config["max_position_embeddings"], 64)
        again = self.run_train("all", "--resume", "--set", "train.max_steps=6", recipe="variants.toml")
        self.assertEqual([one["steps"] for one in again["variants"]], [6, 6, 6])
        # The same comparison from what the runs have written, also where one is missing or older than run.json.
        for checkpoint in (self.folder / "all").glob("*/checkpoint-*"):
            shutil.rmtree(checkpoint)
        report = (self.folder / "all" / "report.html").read_text()
        arguments = ["--report", "--set", "train.max_steps=6"]
        self.assertEqual(self.run_train("all", *arguments, recipe="variants.toml")["runs"], ["mla", "mqa", "longer"])
        self.assertEqual((self.folder / "all" / "report.html").read_text(), report)
        (self.folder / "all" / "longer" / "run.json").unlink()
        self.run_train("all", *arguments, recipe="variants.toml")
        rebuilt = (self.folder / "all" / "report.html").read_text()
        self.assertEqual(rebuilt.split("<h2>")[0], report.split("<h2>")[0])
        shutil.rmtree(self.folder / "all" / "mqa")
        self.assertEqual(self.run_train("all", *arguments, recipe="variants.toml")["runs"], ["mla", "longer"])

    def test_multi_token_prediction(self):
        v3 = ["model.model_type=deepseek_v3", "balance.expert=0", "train.mtp_weight=0.3"]
        more = [argument for one in v3 for argument in ("--set", one)]
        checkpoint = pathlib.Path(self.run_train("mtp", *more)["checkpoint"])
        lines = self.metrics("mtp")
        losses = [line["mtp"] for line in lines if "mtp" in line]
        self.assertEqual(len(losses), 24)
        self.assertAlmostEqual(losses[0], 0.3 * 5.77, delta=0.1)  # lambda ln 320
        self.assertLess(losses[-1], 0.9 * losses[0])
        self.assertEqual(json.loads((checkpoint / "config.json").read_text())["num_nextn_predict_layers"], 1)
        data = (checkpoint / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])

        def tensor(name):
            begin, end = header[name]["data_offsets"]
            return header[name]["shape"], data[start + begin : start + end]

        self.assertEqual(tensor("model.layers.2.eh_proj.weight")[0], [32, 64])
        self.assertEqual(tensor("model.layers.2.embed_tokens.weight"), tensor("model.embed_tokens.weight"))
        self.assertEqual(tensor("model.layers.2.shared_head.head.weight"), tensor("lm_head.weight"))
        generated = subprocess.run(
            [PROGRAM, "generate", "-m", str(checkpoint), "-p", "the king", "-n", "4", "--temperature", "0", "--json"],
            capture_output=True, text=True, check=False)  # fmt: skip
        self.assertEqual(generated.returncode, 0, generated.stderr)
        self.draft_with_the_layer(checkpoint)
        # The layer goes on from where it was, and a run without it writes none.
        further = self.run_train("further", *more, "--set", f"model.from={checkpoint}", "--set", "train.max_steps=4")
        self.assertLess(further["train_loss"], 5.0)
        first = json.loads((self.folder / "further" / "metrics.jsonl").read_text().splitlines()[0])
        self.assertLess(first["mtp"], 0.95 * losses[0])
        plain = pathlib.Path(self.run_train("plain", *more[:4], "--set", "train.max_steps=4",
                                            "--set", f"model.from={checkpoint}")["checkpoint"])  # fmt: skip
        self.assertEqual(json.loads((plain / "config.json").read_text())["num_nextn_predict_layers"], 0)
        self.assertNotIn(b"eh_proj", (plain / "model.safetensors").read_bytes())
        error = self.run_train("v2", "--set", "train.mtp_weight=0.3", code=2)
        self.assertIn("train.mtp_weight: expected a deepseek_v3 model with num_nextn_predict_layers 1, found", error)

    def test_deeper_models_begin_where_the_shallower_one_is(self):
        base = pathlib.Path(self.run_train("base", "--set", "train.max_steps=8")["checkpoint"])
        (base / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.5}')
        more = ["--set", f"model.from={base}", "--set", "train.max_steps=3"]
        self.run_train("same", *more)
        checkpoint = pathlib.Path(self.run_train("deeper", *more, "--set", "model.expand_after=[0, 1]")["checkpoint"])
        self.assertEqual(json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"], 4)
        self.assertEqual(json.loads((checkpoint / "generation_config.json").read_text())["temperature"], 0.5)
        same, deeper = self.metrics("same"), self.metrics("deeper")
        self.assertEqual(deeper[0]["loss"], same[0]["loss"])
        self.assertNotEqual(deeper[2]["loss"], same[2]["loss"])  # the new layers have begun to learn
        self.run_train("deeper", *more[:2], "--set", "train.max_steps=5", "--set", "model.expand_after=[0, 1]", "--resume")
        self.assertIn("model.expand_after: expected ascending layers from 0 to 1, found 2",
                      self.run_train("wrong", *more, "--set", "model.expand_after=[2]", code=2))  # fmt: skip
        self.assertIn("model.expand_after: expected it together with model.from, found it alone",
                      self.run_train("wrong", "--set", "model.expand_after=[0]", code=1))  # fmt: skip

    def draft_with_the_layer(self, checkpoint):
        """The trained layer's guesses change no token, and some are right."""

        def generate(*arguments):
            done = subprocess.run(
                [PROGRAM, "generate", "-m", str(checkpoint), "-p", "the king", "-n", "24", "--temperature", "0",
                 "--ignore-eos", "--json", *arguments],
                capture_output=True, text=True, check=False)  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout)

        plain = generate()
        self.assertNotIn("drafter", plain["timings"])
        for drafter in ("mtp", "auto"):
            drafted = generate("--draft-tokens", "2", "--drafter", drafter)
            self.assertEqual(drafted["token_ids"], plain["token_ids"])
            self.assertEqual(drafted["timings"]["drafter"], "mtp")
            self.assertGreater(drafted["timings"]["draft_n_accepted"], 0)
            self.assertGreaterEqual(drafted["timings"]["draft_n"], drafted["timings"]["draft_n_accepted"])
        self.assertEqual(generate("--draft-tokens", "2")["token_ids"], plain["token_ids"])

    def test_prepare_says_what_the_data_are(self):
        text = self.folder / "train.txt"
        copies = text.read_text().split("<|endoftext|>\n")[:10]
        with text.open("a") as file:
            file.writelines(copy + "<|endoftext|>\n" for copy in copies)
        summary = self.run_train("run", "--prepare", "--set", "data.drop_near_duplicates=true")
        train = summary["statistics"]["train"]
        documents = train["documents"]
        self.assertEqual(sum(documents.values()), 310)
        self.assertEqual(documents["exact duplicate"], 10)
        self.assertEqual(sum(train["documents_by_log2_tokens"]), documents["kept"])
        self.assertEqual(train["files"][0]["name"], "train.txt")
        self.assertEqual(summary["planned_tokens"], 24 * 4 * 32)
        self.assertEqual(summary["mixture"][0]["tokens"], train["tokens"])
        folder = pathlib.Path(summary["tokens"])
        reasons = [json.loads(line)["reason"] for line in (folder / "removed.jsonl").read_text().splitlines()]
        self.assertIn("exact duplicate", reasons)
        self.assertFalse(list((self.folder / "run").glob("checkpoint-*")))
        # A run finds what was prepared.
        made = (folder / "manifest.json").stat().st_mtime_ns
        self.run_train("run", "--set", "data.drop_near_duplicates=true", "--set", "train.max_steps=1")
        self.assertEqual((folder / "manifest.json").stat().st_mtime_ns, made)
        self.assertEqual(len(list((self.folder / "cache").iterdir())), 2)
        arguments = [a for a in self.arguments("run", "--prepare") if a != "--json"]
        text = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        self.assertRegex(text, r"train: [0-9]+ of 310 documents, .* bytes per token\n  left out: [0-9]+ exact duplicate")
        self.assertIn("--resume", self.run_train("run", "--prepare", "--resume", code=2))

    # Sixteen times the text takes the memory of the same filters and buffers.
    @unittest.skipIf(SANITIZED, "memory of the sanitizer")
    def test_memory_does_not_grow_with_the_corpus(self):
        documents = ["\n\n".join(grammar(seed, 12)) for seed in range(100)]
        tokenizer = self.run_train("first", "--prepare")["tokenizer"]
        peaks = []
        for rounds in (10, 160):
            with (self.folder / "train.txt").open("w") as file:
                for i in range(rounds):
                    for j, text in enumerate(documents):
                        file.write(f"Number {i} of {j}.\n{text}\n<|endoftext|>\n")
            size = (self.folder / "train.txt").stat().st_size
            process = subprocess.Popen(
                self.arguments(f"size-{rounds}", "--prepare", "--set", f"tokenizer.path={tokenizer}",
                               "--set", "data.drop_known_paragraphs=true", "--set", "data.boilerplate_documents=100000"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            peaks.append(usage.ru_maxrss * 1024)
        print(f"peak memory {peaks[0]} bytes, then {peaks[1]} with {size} bytes of text", file=sys.stderr)
        self.assertGreater(size, 20e6)
        self.assertLess(peaks[1] - peaks[0], size / 4)

    def test_report_from_metrics_alone(self):
        self.run_train("run")
        report = self.folder / "run" / "report.html"
        original = report.read_text()
        for checkpoint in (self.folder / "run").glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        shutil.rmtree(self.folder / "cache")
        (self.folder / "train.txt").unlink()
        report.unlink()
        result = self.run_train("run", "--report")
        self.assertEqual(result, {"report": str(report), "runs": ["tiny"]})
        self.assertEqual(report.read_text(), original)
        # Of a run from before there was run.json the recipe tells the rest, but for the corpus.
        (self.folder / "run" / "run.json").unlink()
        self.run_train("run", "--report")
        rebuilt = report.read_text()
        self.assertEqual(rebuilt.split("<h2>")[0], original.split("<h2>")[0])
        self.assertNotIn("<h2>Corpus", rebuilt)
        self.assertIn("expected a run with metrics.jsonl, found none", self.run_train("none", "--report", code=1))
        (self.folder / "run" / "run.json").write_text('{"recipe": {}}')
        self.assertIn("run.json: config: expected an object", self.run_train("run", "--report", code=1))

    # The recipe and its evaluation, at a size at which no model learns to find anything.
    def test_longer_contexts(self):
        base = pathlib.Path(self.run_train("base", "--set", "model.max_position_embeddings=512", "--set",
                                           "train.sequence_length=64", "--set", "train.batch_sequences=8")["checkpoint"])
        shutil.copy(RECIPES / "long-context.toml", self.folder)
        result = self.run_train("long", "--set", f"model.from={base}", "--set", "train.max_steps=2", "--set", "eval.every=0",
                                "--set", "eval.tokens=4096", recipe="long-context.toml")
        self.assertEqual([one["name"] for one in result["variants"]], ["x4", "x8"])
        config = json.loads((pathlib.Path(result["checkpoint"]) / "config.json").read_text())
        self.assertEqual(config["rope_scaling"]["factor"], 8.0)
        (self.folder / "plain.txt").write_text("\n".join(grammar(3, 400)) + "\n")
        command = [
            sys.executable, str(TOOL), "--program", PROGRAM, "--base", str(base), "--run", str(self.folder / "long"),
            "--text", str(self.folder / "plain.txt"), "--bytes", "30000", "--bins", "4", "--samples", "1",
            "--out", str(self.folder / "report.md"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count("eval perplexity"), 1 + 3 + 3 + 2 + 3)
        report = (self.folder / "report.md").read_text()
        for name in ("base", "base, longer limit", "base with YaRN, untrained", "x4", "x8"):
            self.assertEqual(report.count(f"| {name} |"), 3, report)
        measured = json.loads((self.folder / "long" / "eval" / "perplexity-x8-4096.json").read_text())["result"]
        self.assertEqual(sum(entry["tokens"] for entry in measured["by_position"]), measured["tokens"])
        self.assertIn(f" {measured['perplexity']:.3f} |", report)
        # A second call measures nothing.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual((self.folder / "report.md").read_text(), report)

    def test_recipes_are_readable(self):
        # Each ships with the program; what is missing is the data, which only the user has.
        for recipe in sorted(RECIPES.glob("*.toml")):
            done = subprocess.run(
                [PROGRAM, "train", str(recipe), "--set", f"output={self.folder / recipe.stem}"],
                capture_output=True, text=True, check=False)  # fmt: skip
            trained = recipe.stem in ("long-context", "storyteller-tales")  # what they begin with is missing first
            self.assertEqual(done.returncode, 1 if trained else 2, (recipe, done.stderr))
            expected = "model: hidden_size" if trained else "data.train: expected files, found none"
            self.assertIn(expected, done.stderr, recipe)


def main():
    global PROGRAM, RECIPES, KILLS
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--recipes", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--sanitized", action="store_true", help="the program has sanitizers: memory is not looked at")
    options, rest = parser.parse_known_args()
    PROGRAM, RECIPES, KILLS = os.path.abspath(options.program), options.recipes, options.kills
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
