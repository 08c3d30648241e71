#!/usr/bin/env python3
"""The server's features through OpenAI's own Python client, as its users write programs against it.

    openai_client.py --program lathe --packages FOLDER

FOLDER gets the packages of openai_requirements.txt from PyPI unless it has them.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from scripted_model import CALL_BEGIN, CALL_END, CALLS_BEGIN, CALLS_END, FIM_BEGIN, FIM_END, FIM_HOLE, MARKERS, SEP, ScriptedModel, call
from serve_server import Server

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = ""
FOLDER = pathlib.Path()
OPENAI = None  # the package, once it is there
STORY = None  # the model that the program has in itself: no chat template
CALLER = None  # V3.1's way, markers are ordinary tokens
THINKER = None  # V3's way, markers are special tokens
PROMPT = "Once upon a time there was a king"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"What {name} knows.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("get_weather", "get_time")
]
PARIS, ROME = '{"city": "Paris", "unit": "°C"}', '{"city": "Rome"}'


def scripts(v3):
    """By what the prompt ends with. The greeting follows </think> whether the prompt or the model wrote that."""
    one, two = call(v3, "get_weather", PARIS), call(v3, "get_time", ROME)
    between = "\n" if v3 else ""
    return {
        "</think>": "Hello there, friend.",
        "<think>": "\nThe user greets me. I greet back.\n</think>",
        "Q": "I will look it up.\n\n" + CALLS_BEGIN + one + CALLS_END,
        "R": CALLS_BEGIN + one + between + two + CALLS_END,
        "S": "Broken: " + CALLS_BEGIN + "get weather now",
        FIM_END: "a middle.",
        "T": "<think>Which city? Paris.</think>\n\n" + CALLS_BEGIN + call(v3, "get_time", PARIS) + CALLS_END,
    }


def import_client(folder):
    """The package openai, installed to `folder` unless it is there; one line and the end where that fails."""
    wanted = (HERE / "openai_requirements.txt").read_text(encoding="utf-8")
    stamp = folder / "requirements.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        fresh = folder.with_name(folder.name + ".new")
        for old in (fresh, folder):
            shutil.rmtree(old, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
                   "--retries", "1", "--target", str(fresh), "-r", str(HERE / "openai_requirements.txt")]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.splitlines()
            reason = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason given")
            sys.exit(f"openai_client.py: expected the packages of openai_requirements.txt from PyPI, found {reason.strip()}")
        (fresh / "requirements.txt").write_text(wanted, encoding="utf-8")
        fresh.rename(folder)
    sys.path.insert(0, str(folder))
    import openai  # pylint: disable=import-outside-toplevel

    return openai


def client_of(server, **options):
    return OPENAI.OpenAI(base_url=server.url + "/v1", max_retries=0, timeout=60, **{"api_key": "none", **options})


def user(text="Hi"):
    return [{"role": "user", "content": text}]


def ask(server, script=None, **options):
    """A chat with a scripted model."""
    extra = {"chat_template_kwargs": {"script": script}} if script else {}
    body = {"extra_body": {**extra, **options.pop("extra_body", {})}, "temperature": 0, "messages": user(), **options}
    return client_of(server).chat.completions.create(model="any", **body)


def gathered(stream):
    """What the deltas of one answer add up to."""
    out = {"content": "", "reasoning": "", "calls": [], "finish": None, "usage": None}
    for chunk in stream:
        out["usage"] = chunk.usage or out["usage"]
        for choice in chunk.choices:
            delta = choice.delta
            out["content"] += delta.content or ""
            out["reasoning"] += getattr(delta, "reasoning_content", None) or ""
            out["finish"] = choice.finish_reason or out["finish"]
            for piece in delta.tool_calls or []:
                if piece.index == len(out["calls"]):
                    out["calls"].append({"id": piece.id, "type": piece.type, "name": piece.function.name, "arguments": ""})
                else:
                    assert piece.id is None and piece.function.name is None, piece
                out["calls"][piece.index]["arguments"] += piece.function.arguments
    return out


def whole(answer):
    """The same of an answer that came whole."""
    choice = answer.choices[0]
    message = choice.message
    calls = [
        {"id": c.id, "type": c.type, "name": c.function.name, "arguments": c.function.arguments}
        for c in message.tool_calls or []
    ]
    return {"content": message.content or "", "reasoning": getattr(message, "reasoning_content", None) or "", "calls": calls,
            "finish": choice.finish_reason, "usage": answer.usage}


class Completions(unittest.TestCase):
    def complete(self, prompt=PROMPT, **options):
        options = {"max_tokens": 16, "temperature": 0, **options}
        return client_of(STORY).completions.create(model="storyteller", prompt=prompt, **options)

    LOGPROBS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")

    def streamed_logprobs(self, **options):
        """What the chunks of an echoed prompt and its answer add up to."""
        out = {name: [] for name in self.LOGPROBS}
        for chunk in self.complete(logprobs=2, echo=True, stream=True, **options):
            if chunk.choices[0].logprobs:
                for name, values in out.items():
                    values += getattr(chunk.choices[0].logprobs, name)
        return out

    def test_prompts_of_every_kind(self):
        text = self.complete().choices[0].text
        self.assertEqual(self.complete([PROMPT]).choices[0].text, text)
        ids = STORY.post("/tokenize", {"prompt": PROMPT})[1]["tokens"]
        self.assertEqual(self.complete(ids).choices[0].text, text)
        answer = self.complete([ids, ids])
        self.assertEqual([(c.index, c.text) for c in answer.choices], [(0, text), (1, text)])
        self.assertEqual(answer.usage.prompt_tokens, 2 * len(ids))
        self.assertEqual(self.complete(echo=True).choices[0].text, PROMPT + text)

    def test_streams_with_usage(self):
        answer = self.complete()
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].text for c in chunks if c.choices), answer.choices[0].text)
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.total_tokens, answer.usage.total_tokens)
        self.assertEqual({c.id for c in chunks}, {chunks[0].id})
        self.assertEqual(chunks[-2].choices[0].finish_reason, "length")

    def test_log_probabilities(self):
        plain = self.complete(logprobs=2).choices[0].logprobs
        self.assertEqual([len(top) for top in plain.top_logprobs], [2] * 16)
        self.assertTrue(all(top[token] == value for top, token, value in zip(plain.top_logprobs, plain.tokens, plain.token_logprobs)))
        echoed = self.complete(logprobs=2, echo=True).choices[0].logprobs
        self.assertIsNone(echoed.token_logprobs[0])
        self.assertEqual(echoed.tokens[-16:], plain.tokens)
        self.assertEqual(echoed.token_logprobs[-16:], plain.token_logprobs)
        self.assertEqual(echoed.text_offset[-16], len(PROMPT))
        self.assertEqual(self.streamed_logprobs(), {name: getattr(echoed, name) for name in self.LOGPROBS})
        scored = self.complete(logprobs=2, echo=True, max_tokens=0).choices[0].logprobs
        self.assertEqual(self.streamed_logprobs(max_tokens=0), {name: getattr(scored, name) for name in self.LOGPROBS})
        self.assertEqual(scored.token_logprobs, echoed.token_logprobs[:-16])

    def test_sampling(self):
        text = self.complete().choices[0].text
        stopped = self.complete(stop=[text[10:14]]).choices[0]
        self.assertEqual((stopped.text, stopped.finish_reason), (text[: text.index(text[10:14])], "stop"))
        several = self.complete(n=3, temperature=1, seed=5)
        self.assertEqual(len({c.text for c in several.choices}), 3)
        again = self.complete(n=3, temperature=1, seed=5)
        self.assertEqual([c.text for c in again.choices], [c.text for c in several.choices])
        self.assertEqual(self.complete(temperature=2, extra_body={"top_k": 1, "dry_multiplier": 0}).choices[0].text, text)
        self.assertEqual(self.complete(temperature=2, extra_body={"min_p": 1, "dry_multiplier": 0}).choices[0].text, text)
        self.assertEqual(self.complete(temperature=2, top_p=1e-9, extra_body={"dry_multiplier": 0}).choices[0].text, text)
        self.assertNotEqual(self.complete(frequency_penalty=2, presence_penalty=2, max_tokens=64).choices[0].text,
                            self.complete(max_tokens=64).choices[0].text)
        forced = self.complete(logit_bias={"77": 100}, max_tokens=3, extra_body={"return_token_ids": True})
        self.assertEqual(forced.choices[0].token_ids, [77] * 3)

    def test_filling_in_the_middle(self):
        for server in (CALLER, THINKER):
            answer = client_of(server).completions.create(
                model="any", prompt=f"def f({FIM_HOLE}", suffix="\n  return x", temperature=0, max_tokens=20,
                extra_body={"return_token_ids": True})
            (choice,) = answer.choices
            self.assertEqual((choice.text, choice.finish_reason), ("a middle.", "stop"))
            self.assertEqual(answer.usage.completion_tokens, len(choice.token_ids) + 1)
            tokens = [server.post("/detokenize", {"tokens": [i]})[1]["content"] for i in choice.prompt_token_ids]
            self.assertEqual([t for t in tokens if t in (FIM_BEGIN, FIM_HOLE, FIM_END)], [FIM_BEGIN, FIM_HOLE, FIM_END])
            self.assertEqual(tokens[-1], FIM_END)
            whole_prompt = server.post("/detokenize", {"tokens": choice.prompt_token_ids})[1]["content"]
            self.assertTrue(whole_prompt.endswith(f"{FIM_BEGIN}def f({FIM_HOLE}{FIM_HOLE}\n  return x{FIM_END}"), whole_prompt)
        with self.assertRaises(OPENAI.BadRequestError) as caught:
            self.complete(suffix="x")
        self.assertEqual(caught.exception.param, "suffix")

    def test_a_stream_that_is_closed_ends_the_work(self):
        before = STORY.metrics()["generation_tokens_total"]
        stream = self.complete(stream=True, max_tokens=400, n=64, temperature=1, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        STORY.wait_idle()
        self.assertLess(STORY.metrics()["generation_tokens_total"] - before, 64 * 400)

    def test_parallel_streams_are_what_they_are_alone(self):
        prompts = [PROMPT, "The queen", "In a forest", "A fox", "Two brothers", "The sea", "Snow", "Gold"]
        alone = [self.complete(p, max_tokens=32).choices[0].text for p in prompts]

        async def run():
            async with OPENAI.AsyncOpenAI(base_url=STORY.url + "/v1", api_key="none", max_retries=0) as client:

                async def one(prompt):
                    stream = await client.completions.create(
                        model="storyteller", prompt=prompt, max_tokens=32, temperature=0, stream=True)
                    return "".join([chunk.choices[0].text async for chunk in stream])

                return await asyncio.gather(*(one(p) for p in prompts))

        self.assertEqual(asyncio.run(run()), alone)


class Chats(unittest.TestCase):
    def test_log_probabilities(self):
        options = {"model": "storyteller", "messages": user(PROMPT), "max_tokens": 5, "temperature": 0}
        answer = client_of(STORY).chat.completions.create(logprobs=True, top_logprobs=3, **options)
        content = answer.choices[0].logprobs.content
        self.assertEqual("".join(t.token for t in content), answer.choices[0].message.content)
        self.assertEqual([len(t.top_logprobs) for t in content], [3] * 5)
        self.assertTrue(all(t.top_logprobs[0].logprob == t.logprob for t in content))

    def test_a_plain_answer(self):
        answer = ask(CALLER)
        self.assertEqual(answer.choices[0].message.content, "Hello there, friend.")
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertFalse(hasattr(answer.choices[0].message, "reasoning_content"))
        self.assertEqual(answer.usage.completion_tokens_details.reasoning_tokens, 0)
        streamed = gathered(ask(CALLER, stream=True, stream_options={"include_usage": True}))
        self.assertEqual((streamed["content"], streamed["finish"]), ("Hello there, friend.", "stop"))
        self.assertEqual(streamed["usage"].completion_tokens, answer.usage.completion_tokens)

    def test_cached_tokens(self):
        messages = user("A long question. " * 20)
        first, second = (ask(CALLER, messages=messages) for _ in range(2))
        self.assertEqual(first.usage.prompt_tokens_details.cached_tokens, 0)
        self.assertGreaterEqual(second.usage.prompt_tokens_details.cached_tokens, 192)
        self.assertEqual(second.choices[0].message.content, first.choices[0].message.content)


class Reasoning(unittest.TestCase):
    THOUGHT = "The user greets me. I greet back."

    def test_thoughts_come_apart(self):
        for server in (CALLER, THINKER):
            for options in ({"chat_template_kwargs": {"thinking": True}}, {"reasoning_effort": "high"}):
                found = whole(ask(server, extra_body=options))
                self.assertEqual((found["reasoning"], found["content"]), (self.THOUGHT, "Hello there, friend."))
                self.assertEqual(found["finish"], "stop")
                details = found["usage"].completion_tokens_details
                self.assertGreater(details.reasoning_tokens, 4)
                self.assertLess(details.reasoning_tokens, found["usage"].completion_tokens - 2)
                streamed = gathered(ask(server, extra_body=options, stream=True, stream_options={"include_usage": True}))
                self.assertEqual((streamed["reasoning"], streamed["content"]), (self.THOUGHT, "Hello there, friend."))
                self.assertEqual(streamed["usage"].completion_tokens_details, details)
            for options in ({"chat_template_kwargs": {"thinking": False}}, {"reasoning_effort": "none"}):
                self.assertEqual(whole(ask(server, extra_body=options))["reasoning"], "")

    def test_thoughts_that_are_cut_off(self):
        found = whole(ask(CALLER, extra_body={"chat_template_kwargs": {"thinking": True}}, max_tokens=3))
        self.assertEqual((found["content"], found["finish"]), ("", "length"))
        self.assertTrue(found["reasoning"] and self.THOUGHT.startswith(found["reasoning"]), found)
        self.assertEqual(found["usage"].completion_tokens_details.reasoning_tokens, 3)

    def test_thoughts_may_stay_in_the_text(self):
        body = {"chat_template_kwargs": {"thinking": True}, "separate_reasoning": False}
        for server in (CALLER, THINKER):
            content = ask(server, extra_body=body).choices[0].message.content
            self.assertEqual(content, f"\n{self.THOUGHT}\n</think>Hello there, friend.")

    def test_a_constraint_begins_where_the_answer_begins(self):
        only = {"type": "json_schema", "json_schema": {"name": "only", "schema": {"enum": ["yes"]}}}
        for server in (CALLER, THINKER):
            # Behind the thoughts that the prompt opens; at once where the prompt goes on behind <think>.
            for script, reasoning in ((None, self.THOUGHT), ("Q", "")):
                arguments = {"thinking": True, **({"script": script} if script else {})}
                found = whole(ask(server, response_format=only, extra_body={"chat_template_kwargs": arguments}))
                self.assertEqual((found["reasoning"], json.loads(found["content"]), found["finish"]), (reasoning, "yes", "stop"))

    def test_the_model_opens_its_thoughts_itself(self):
        for server in (CALLER, THINKER):
            found = whole(ask(server, "T", tools=TOOLS))
            self.assertEqual((found["reasoning"], found["content"], found["finish"]), ("Which city? Paris.", "", "tool_calls"))
            self.assertEqual([(c["name"], c["arguments"]) for c in found["calls"]], [("get_time", PARIS)])


class Tools(unittest.TestCase):
    def test_one_call(self):
        for server in (CALLER, THINKER):
            answer = ask(server, "Q", tools=TOOLS)
            found = whole(answer)
            self.assertEqual((found["content"], found["finish"]), ("I will look it up.\n\n", "tool_calls"))
            (one,) = found["calls"]
            self.assertEqual((one["type"], one["name"], json.loads(one["arguments"])), ("function", "get_weather", json.loads(PARIS)))
            self.assertRegex(one["id"], r"^call_\w{8,35}$")
            streamed = gathered(ask(server, "Q", tools=TOOLS, tool_choice="auto", stream=True))
            self.assertEqual([{**c, "id": ""} for c in streamed["calls"]], [{**one, "id": ""}])
            self.assertEqual((streamed["content"], streamed["finish"]), (found["content"], "tool_calls"))

    def test_two_calls(self):
        for server in (CALLER, THINKER):
            found = whole(ask(server, "R", tools=TOOLS))
            self.assertEqual(found["content"], "")
            self.assertEqual([(c["name"], c["arguments"]) for c in found["calls"]], [("get_weather", PARIS), ("get_time", ROME)])
            self.assertEqual(len({c["id"] for c in found["calls"]}), 2)
            self.assertIsNone(ask(server, "R", tools=TOOLS).choices[0].message.content)
            streamed = gathered(ask(server, "R", tools=TOOLS, stream=True))
            self.assertEqual([{**c, "id": ""} for c in streamed["calls"]], [{**c, "id": ""} for c in found["calls"]])
            single = whole(ask(server, "R", tools=TOOLS, parallel_tool_calls=False))
            self.assertEqual([(c["name"], c["arguments"]) for c in single["calls"]], [("get_weather", PARIS)])
            self.assertEqual(single["finish"], "tool_calls")

    def test_the_clients_own_accumulation(self):
        extra = {"chat_template_kwargs": {"script": "R"}}
        with client_of(CALLER).chat.completions.stream(
            model="any", messages=user(), tools=TOOLS, temperature=0, extra_body=extra) as stream:
            names = [e.name for e in stream if e.type == "tool_calls.function.arguments.done"]
            message = stream.get_final_completion().choices[0].message
        self.assertEqual(names, ["get_weather", "get_time"])
        self.assertEqual([c.function.arguments for c in message.tool_calls], [PARIS, ROME])

    def test_answers_side_by_side(self):
        answer = ask(CALLER, "R", tools=TOOLS, n=3)
        self.assertEqual(len({c.id for choice in answer.choices for c in choice.message.tool_calls}), 6)

    def test_what_is_no_call_is_content(self):
        for server in (CALLER, THINKER):
            found = whole(ask(server, "S", tools=TOOLS))
            self.assertEqual(found["content"], "Broken: " + CALLS_BEGIN + "get weather now")
            self.assertEqual((found["calls"], found["finish"]), ([], "stop"))
            self.assertEqual(gathered(ask(server, "S", tools=TOOLS, stream=True))["content"], found["content"])

    def test_without_tools_calls_are_text(self):
        for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
            found = whole(ask(CALLER, "Q", **options))
            self.assertEqual(found["content"], "I will look it up.\n\n" + CALLS_BEGIN + call(False, "get_weather", PARIS) + CALLS_END)
            self.assertEqual((found["calls"], found["finish"]), ([], "stop"))

    def test_a_call_that_is_cut_off(self):
        tokens = ask(CALLER, "Q", tools=TOOLS).usage.completion_tokens
        found = whole(ask(CALLER, "Q", tools=TOOLS, max_tokens=tokens - 5))
        self.assertEqual(found["finish"], "length")
        (one,) = found["calls"]
        self.assertTrue(one["arguments"] and PARIS.startswith(one["arguments"]) and one["arguments"] != PARIS, one)

    def test_the_conversation_goes_on(self):
        for server, expected in (
            (CALLER, "get_weather<｜tool▁sep｜>" + PARIS + "<｜tool▁call▁end｜>"),
            (THINKER, "function<｜tool▁sep｜>get_weather\n```json\n" + PARIS + "\n```<｜tool▁call▁end｜>"),
        ):
            first = ask(server, "Q", tools=TOOLS).choices[0].message
            messages = [*user(), first.model_dump(exclude_none=True),
                        {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "21 degrees"}]
            self.assertEqual(whole(ask(server, messages=messages, tools=TOOLS))["content"], "Hello there, friend.")
            _, rendered = server.post("/apply-template", {"messages": messages, "tools": TOOLS})
            self.assertIn(expected, rendered["prompt"])
            self.assertIn("[21 degrees]", rendered["prompt"])
            self.assertIn("### get_time\nDescription: What get_time knows.\n", rendered["prompt"])
            _, plain = server.post("/apply-template", {"messages": messages})
            self.assertNotIn("get_time", plain["prompt"])

    def test_the_pattern_of_a_call_is_made_of_tokens(self):
        described = [{"type": "function", "function": {"name": "f", "description": f"Not {CALLS_BEGIN}", "parameters": {}}}]
        for server in (CALLER, THINKER):
            for tools in (TOOLS, described):
                body = {"messages": user(f"Nor {SEP}"), "tools": tools, "return_token_strs": True}
                pieces = server.post("/tokenize", body)[1]["token_strs"]
                self.assertEqual([p for p in pieces if p in MARKERS], [CALLS_BEGIN, CALL_BEGIN, SEP, CALL_END, CALLS_END, "</think>"])

    def test_forced_calls(self):
        tools = [
            {"type": "function", "function": {"name": name, "parameters": {
                "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
                "additionalProperties": False}}}
            for name in ("get_weather", "get_time")
        ]
        named = {"type": "function", "function": {"name": "get_time"}}
        for server in (CALLER, THINKER):
            for prompt in ("Q", "hello"):  # one that the model answers by a call, and one that it would greet
                for choice, most in ((named, 1), ("required", 16)):
                    for options in ({}, {"stream": True}):
                        found = ask(server, prompt, tools=tools, tool_choice=choice, **options)
                        found = gathered(found) if options else whole(found)
                        self.assertEqual(found["finish"], "tool_calls", (prompt, choice, found))
                        self.assertTrue(1 <= len(found["calls"]) <= most, found)
                        for one in found["calls"]:
                            self.assertIn(json.loads(one["arguments"]), ({"city": "Paris"}, {"city": "Rome"}))
                            self.assertIn(one["name"], ("get_time",) if choice is named else ("get_weather", "get_time"))
        found = whole(ask(CALLER, "R", tools=tools, tool_choice="required", parallel_tool_calls=False))
        self.assertEqual(len(found["calls"]), 1)

    def test_what_is_refused(self):
        named = {"type": "function", "function": {"name": "get_time"}}
        for server, options, param in (
            (CALLER, {"tools": TOOLS, "tool_choice": named, "response_format": {"type": "json_object"}}, "response_format"),
            (CALLER, {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
            (CALLER, {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
            (STORY, {"tools": TOOLS}, "tools"),
        ):
            with self.assertRaises(OPENAI.BadRequestError) as caught:
                ask(server, **options)
            self.assertEqual(caught.exception.param, param)


class Errors(unittest.TestCase):
    def test_models(self):
        client = client_of(STORY)
        (model,) = client.models.list().data
        self.assertEqual((model.id, model.object, model.owned_by), ("storyteller", "model", "lathe"))
        self.assertEqual(client.models.retrieve("storyteller").id, "storyteller")
        with self.assertRaises(OPENAI.NotFoundError) as caught:
            client.models.retrieve("other")
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_bad_requests(self):
        with self.assertRaises(OPENAI.BadRequestError) as caught:
            client_of(STORY).completions.create(model="storyteller", prompt=PROMPT, temperature=3)
        self.assertEqual((caught.exception.status_code, caught.exception.param), (400, "temperature"))
        with self.assertRaises(OPENAI.BadRequestError) as caught:
            client_of(STORY).completions.create(model="storyteller", prompt=[5] * 600)
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_keys(self):
        keys = FOLDER / "keys"
        keys.write_text("open-sesame\n", encoding="utf-8")
        keys.chmod(0o600)
        server = Server(PROGRAM, "--api-key-file", keys)
        try:
            answer = client_of(server, api_key="open-sesame").completions.create(model="storyteller", prompt="x", max_tokens=1)
            self.assertEqual(answer.usage.completion_tokens, 1)
            with self.assertRaises(OPENAI.AuthenticationError):
                client_of(server, api_key="wrong").models.list()
        finally:
            self.assertEqual(server.stop(), 0)

    def test_too_many_requests(self):
        server = Server(PROGRAM, "--max-queue", "1", "-t", "1")
        found = []

        def one():
            try:
                client_of(server).completions.create(model="storyteller", prompt=[5] * 400, max_tokens=2)
                found.append("answer")
            except OPENAI.RateLimitError as error:
                found.append(error.response.headers["retry-after"].isdigit())

        try:
            threads = [threading.Thread(target=one) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self.assertEqual(server.stop(), 0)
        self.assertEqual(set(found), {"answer", True})


def main():
    global PROGRAM, FOLDER, OPENAI, STORY, CALLER, THINKER
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--packages", type=pathlib.Path, required=True)
    parser.add_argument("tests", nargs="*")
    arguments = parser.parse_args()
    PROGRAM = os.path.abspath(arguments.program)
    OPENAI = import_client(arguments.packages.resolve())
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lathe-openai-") as name:
        FOLDER = pathlib.Path(name)
        for folder, v3 in (("caller", False), ("thinker", True)):
            ScriptedModel(v3, special=v3, scripts=scripts(v3)).write(FOLDER / folder)
        STORY, CALLER, THINKER = (Server(PROGRAM, model=m) for m in (None, FOLDER / "caller", FOLDER / "thinker"))
        result = unittest.main(argv=[sys.argv[0], *arguments.tests], exit=False, verbosity=1).result
        codes = [server.stop() for server in (STORY, CALLER, THINKER)]
    print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
    if codes != [0, 0, 0]:
        print("exit codes", codes, file=sys.stderr)
    sys.exit(0 if result.wasSuccessful() and codes == [0, 0, 0] else 1)


if __name__ == "__main__":
    main()
