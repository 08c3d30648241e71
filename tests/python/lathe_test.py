"""The Python package against the shared library.

LATHE_TEST_MODEL is the storyteller's folder, LATHE_TEST_DOCUMENT is docs/python.md, whose examples are run.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import tempfile
import threading
import unittest

import lathe

MODEL = os.environ["LATHE_TEST_MODEL"]
DOCUMENT = pathlib.Path(os.environ["LATHE_TEST_DOCUMENT"])
CHAT_MODEL_IN_DOCUMENT = "deepseek-ai/DeepSeek-V2-Lite-Chat"
PROMPT = "Once upon a time"
GREEDY = {"temperature": 0, "max_tokens": 24}


@contextlib.contextmanager
def chat_model():
    """A folder with the storyteller and a chat template, which it has none of."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for path in pathlib.Path(MODEL).iterdir():
            (folder / path.name).symlink_to(path.resolve())
        config = folder / "tokenizer_config.json"
        values = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
        values["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
        config.unlink(missing_ok=True)
        config.write_text(json.dumps(values), encoding="utf-8")
        yield name


class ModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = lathe.Model(MODEL, threads=2, context_size=512)
        cls.whole = cls.model.generate(PROMPT, **GREEDY)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()

    def test_info(self):
        info = self.model.info
        self.assertEqual(info.context_size, 512)
        self.assertEqual(info.thread_count, 2)
        self.assertEqual(info.vocab_size, 4096)
        self.assertTrue(info.has_tokenizer)
        self.assertRegex(lathe.version(), r"^\d+\.\d+\.\d+")

    def test_tokens_and_back(self):
        ids = self.model.tokenize("The kïng \0 sleeps", add_bos=True)
        self.assertEqual(ids[0], self.model.info.bos_token_id)
        self.assertEqual(self.model.detokenize(ids), "The kïng \0 sleeps")
        self.assertEqual(self.model.tokenize(""), [])
        self.assertEqual(self.model.detokenize([]), "")

    def test_generate(self):
        self.assertEqual(len(self.whole.token_ids), 24)
        self.assertEqual(self.whole.finish_reason, "length")
        self.assertEqual(self.model.detokenize(self.whole.token_ids), self.whole.text)
        self.assertEqual(self.whole.prompt_tokens, len(self.model.tokenize(PROMPT, add_bos=True)))
        ids = self.model.tokenize(PROMPT, add_bos=True)
        self.assertEqual(self.model.generate(ids, **GREEDY).text, self.whole.text)
        seeded = [self.model.generate(PROMPT, max_tokens=24, temperature=1, seed=seed).text for seed in (5, 5, 6)]
        self.assertEqual(seeded[0], seeded[1])
        self.assertNotEqual(seeded[0], seeded[2])

    def test_stop(self):
        stop = self.whole.text[20:26]
        cut = self.model.generate(PROMPT, stop=[stop], **GREEDY)
        self.assertEqual(cut.finish_reason, "stop")
        self.assertEqual(cut.text, self.whole.text[: self.whole.text.index(stop)])

    def test_stream(self):
        pieces = list(self.model.stream(PROMPT, **GREEDY))
        self.assertEqual("".join(piece.text for piece in pieces), self.whole.text)
        self.assertEqual([piece.token_id for piece in pieces], self.whole.token_ids)
        for number, _ in enumerate(self.model.stream(PROMPT, temperature=0)):  # leaving early ends the answer
            if number == 3:
                break
        self.assertEqual(self.model.generate(PROMPT, **GREEDY).text, self.whole.text)

    def test_chat(self):
        messages = [{"role": "user", "content": "Tell me a story."}]
        with chat_model() as folder, lathe.Model(folder, threads=2, context_size=512) as model:
            answer = model.chat(messages, **GREEDY)
            self.assertEqual(model.generate("user: Tell me a story. ", **GREEDY).text, answer.text)
            streamed = model.stream_chat([lathe.Message("user", "Tell me a story.")], **GREEDY)
            self.assertEqual("".join(piece.text for piece in streamed), answer.text)
        with self.assertRaisesRegex(lathe.LatheError, "chat_template"):
            self.model.chat(messages, **GREEDY)

    def test_callback(self):
        seen = []

        def three(piece):
            seen.append(piece)
            return len(seen) < 3

        stopped = self.model.generate(PROMPT, on_piece=three, **GREEDY)
        self.assertEqual(stopped.finish_reason, "cancelled")
        self.assertEqual(stopped.token_ids, self.whole.token_ids[:3])

        def fails(_):
            raise KeyError("mine")

        with self.assertRaisesRegex(KeyError, "mine"):
            self.model.generate(PROMPT, on_piece=fails, **GREEDY)

    def test_logits(self):
        ids = self.model.tokenize(PROMPT, add_bos=True)
        rows = self.model.logits(ids)
        self.assertEqual(rows.shape, (len(ids), 4096))
        last = self.model.logits(ids, last=True)
        values = last.tolist()[0]
        self.assertEqual(values, rows.tolist()[-1])
        self.assertEqual(max(range(4096), key=values.__getitem__), self.whole.token_ids[0])
        self.assertEqual(last[0, 7], values[7])

    def test_errors(self):
        def message(function, *arguments, **options):
            with self.assertRaises(lathe.LatheError) as caught:
                function(*arguments, **options)
            return str(caught.exception), caught.exception.status

        self.assertEqual(message(lathe.Model, "no/such/model/anywhere")[1], "not found")
        self.assertIn("top_p", message(self.model.generate, PROMPT, top_p=7)[0])
        self.assertIn("ids", message(self.model.generate, [1 << 40])[0])
        self.assertIn("4095", message(self.model.logits, [4096])[0])
        self.assertIn("cache_type", message(lathe.Model, MODEL, cache_type="q2")[0])
        self.assertIn("zero bytes", message(self.model.generate, PROMPT, stop=["a\0b"])[0])
        self.assertIn("top_p", message(list, self.model.stream(PROMPT, top_p=7))[0])
        with self.assertRaises(TypeError):
            self.model.generate(PROMPT, temprature=1)
        closed = lathe.Model(MODEL, threads=1, context_size=64)
        pieces = closed.stream(PROMPT, **GREEDY)
        next(pieces)
        pieces.close()
        closed.close()
        closed.close()
        self.assertIn("closed", message(closed.generate, PROMPT)[0])

    def test_threads_wait_for_one_another(self):
        texts = [""] * 3

        def work(number):
            texts[number] = self.model.generate(PROMPT, **GREEDY).text

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(texts, [self.whole.text] * 3)


class DocumentTest(unittest.TestCase):
    def test_the_examples_run(self):
        blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.S | re.M)
        self.assertTrue(blocks)
        names = {}
        with chat_model() as folder:
            for block in blocks:
                block = block.replace('"models/storyteller"', repr(MODEL))
                block = block.replace(f'"{CHAT_MODEL_IN_DOCUMENT}"', repr(folder))
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(block, names)
                self.assertTrue(out.getvalue().strip())


if __name__ == "__main__":
    unittest.main()
