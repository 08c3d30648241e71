"""Cases in tokenizer.json and tokenizer_config.json."""

import json

from cases import BAD_JSON, NOT_FILES, Case, bad_json, sparse_at
from tiny_model import CHAT_TEMPLATE

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"


def at(path, value):
    """A build function that sets tokenizer[path[0]][path[1]]... = value; a function of the old value is called."""

    def build(model):
        target = model.tokenizer
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value(target[path[-1]]) if callable(value) else value

    return build


def drop(*path):
    def build(model):
        target = model.tokenizer
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return build


def vocabulary(**tokens):
    return at(("model", "vocab"), lambda old: {**old, **tokens})


def merges(*more):
    return at(("model", "merges"), lambda old: old + list(more))


def added(**changes):
    return at(("added_tokens", 0), lambda old: {**old, **changes})


def pattern(text, **changes):
    return at(("pre_tokenizer", "pretokenizers", 1), lambda old: {**old, "pattern": {"Regex": text}, **changes})


def vocabulary_cases():
    for name, value in {
        "negative": -1,
        "2-31": 1 << 31,
        "2-32": 1 << 32,
        "2-63": 1 << 63,
        "half": 1.5,
        "text": "7",
        "null": None,
        "list": [7],
        "true": True,
    }.items():
        yield Case(f"vocabulary-id-{name}", vocabulary(extra=value), mentions=[TOKENIZER, "vocab", "extra"])
    yield Case("vocabulary-id-billion", vocabulary(extra=10**9), mentions=[TOKENIZER, "vocab", "extra"])
    yield Case("vocabulary-id-twice", vocabulary(extra=65), mentions=[TOKENIZER, "vocab", "extra", "65"])
    yield Case("vocabulary-empty", at(("model", "vocab"), {}), mentions=[TOKENIZER, "vocab"])
    yield Case("vocabulary-missing", drop("model", "vocab"), mentions=[TOKENIZER, "vocab"])
    yield Case("vocabulary-list", at(("model", "vocab"), ["a", "b"]), mentions=[TOKENIZER, "vocab"])
    yield Case("vocabulary-null", at(("model", "vocab"), None), mentions=[TOKENIZER, "vocab"])
    yield Case(
        "vocabulary-without-bytes",
        at(("model", "vocab"), lambda old: {k: v for k, v in old.items() if len(k) > 1 or v % 2 == 0}),
        "either",
    )
    yield Case("vocabulary-token-outside-alphabet", vocabulary(**{"a b\n": 263}), "either")
    yield Case("vocabulary-token-empty", vocabulary(**{"": 268}), "either")
    yield Case("vocabulary-token-megabytes", vocabulary(**{"a" * 4_000_000: 268}), "either")
    yield Case(
        "vocabulary-larger-than-model",
        vocabulary(**{f"t{i}": 300 + i for i in range(1000)}),
        mentions=["vocab", "token"],
    )
    for name, value in {
        "WordPiece": "WordPiece",
        "Unigram": "Unigram",
        "empty": "",
        "number": 3,
        "null": None,
    }.items():
        yield Case(
            f"tokenizer-model-type-{name}",
            at(("model", "type"), value),
            "either" if value is None else "error",
            [TOKENIZER, "type", "BPE"],
        )
    yield Case("tokenizer-model-missing", drop("model"), mentions=[TOKENIZER, "model"])
    yield Case("tokenizer-model-list", at(("model",), []), mentions=[TOKENIZER, "model"])
    for field, value in {
        "byte_fallback": True,
        "dropout": 0.5,
        "unk_token": "<nobody>",
        "continuing_subword_prefix": "##",
        "end_of_word_suffix": "</w>",
        "fuse_unk": "yes",
        "ignore_merges": "yes",
    }.items():
        yield Case(f"tokenizer-{field}", at(("model",), lambda old, f=field, v=value: {**old, f: v}), "either")


def merge_cases():
    for name, merge in {
        "unknown-left": "zz h",
        "unknown-right": "h zz",
        "unknown-result": "e h",
        "one-part": "he",
        "three-parts": "h e l",
        "empty": "",
        "blank": " ",
        "number": 5,
        "null": None,
        "list-of-one": ["h"],
        "list-of-three": ["h", "e", "l"],
        "list-of-numbers": [1, 2],
        "object": {"a": "b"},
    }.items():
        yield Case(f"merge-{name}", merges(merge), mentions=[TOKENIZER, "merge"])
    yield Case("merge-twice", merges("h e"), "either")
    yield Case("merges-missing", drop("model", "merges"), "either")
    yield Case("merges-text", at(("model", "merges"), "h e"), mentions=[TOKENIZER, "merge"])
    yield Case("merges-object", at(("model", "merges"), {"h": "e"}), mentions=[TOKENIZER, "merge"])
    yield Case("merges-reversed", at(("model", "merges"), lambda old: old[::-1]), "either")

    def chain(model):
        """a aa aaa ...: merging a long run of one letter is the quadratic case of naive implementations."""
        for n in range(2, 200):
            model.tokenizer["model"]["vocab"]["a" * n] = 268 + n
            model.tokenizer["model"]["merges"].append("a" * (n - 1) + " a")

    yield Case("merge-chain-on-a-long-run", chain, "either", command="tokenize", prompt="a" * 100_000)
    yield Case("long-run-without-merges", lambda model: None, "loads", command="tokenize", prompt="ab" * 60_000)
    yield Case("long-run-of-spaces", lambda model: None, "loads", command="tokenize", prompt=" " * 120_000)
    yield Case("long-run-of-digits", lambda model: None, "loads", command="tokenize", prompt="1" * 120_000)


def added_token_cases():
    for name, changes in {
        "id-negative": {"id": -1},
        "id-2-31": {"id": 1 << 31},
        "id-2-63": {"id": 1 << 63},
        "id-text": {"id": "5"},
        "id-half": {"id": 1.5},
        "id-missing": {"id": None},
        "id-billion": {"id": 10**9},
        "content-number": {"content": 5},
        "content-null": {"content": None},
        "content-empty": {"content": ""},
        "special-text": {"special": "yes"},
    }.items():
        yield Case(f"added-{name}", added(**changes), mentions=[TOKENIZER, "added_tokens", "id"])
    yield Case("added-id-of-another", added(id=265), "either")
    yield Case(
        "added-ids-twice",
        at(("added_tokens",), lambda old: old + [{**old[0], "content": "<other>"}]),
        mentions=[TOKENIZER, "added", "id"],
    )
    yield Case("added-content-twice", at(("added_tokens",), lambda old: old + [{**old[0], "id": 268}]), "either")
    yield Case("added-content-megabytes", added(content="x" * 4_000_000), "either")
    yield Case("added-object", at(("added_tokens",), {"0": "x"}), mentions=[TOKENIZER, "added_tokens"])
    yield Case("added-null-entry", at(("added_tokens",), [None]), mentions=[TOKENIZER, "added_tokens"])
    yield Case("added-strips", added(lstrip=True, rstrip=True, single_word=True), "either")
    yield Case(
        "added-prefixes-of-each-other",
        at(
            ("added_tokens",),
            lambda old: old + [{**old[0], "id": 300 + n, "content": "a" * (n + 1)} for n in range(3000)],
        ),
        "either",
        command="tokenize",
        prompt="a" * 50_000,
    )


REGEXES = {
    "unclosed-group": "(",
    "unclosed-class": "[a",
    "bad-range": "[z-a]",
    "bad-escape": "\\",
    "bad-property": "\\p{Nope}",
    "nothing-to-repeat": "*a",
    "empty": "",
    "huge-repeat": "a{1000000000}",
    "nested-repeat": "((a{1000}){1000}){1000}",
    "backwards-repeat": "a{5,2}",
    "recursion": "(?R)",
    "subroutine": "(a(?1)b)",
    "callout": "(?C1)a",
    "code": "(?{die})a",
    "verb": "(*ACCEPT)a",
    "limit-verb": "(*LIMIT_MATCH=0)a",
    "no-utf": "(*UTF)(*UCP)a",
    "conditional": "(?(1)a|b)",
    "backreference": "(a+)\\1",
    "lookbehind-unbounded": "(?<=a+)b",
    "deep-groups": "(" * 20_000 + ")" * 20_000,
    "million-alternatives": "|".join(str(i) for i in range(100_000)),
    "matches-nothing": "(?!)",
    "matches-empty": "a*?",
}
CATASTROPHES = {
    "nested-plus": "(a+)+$",
    "nested-star": "(a*)*b",
    "alternation": "(a|a)*b",
    "overlap": "(a|aa)+$",
    "lazy": "(.*?.*?)*b",
    "backtrack": "a*a*a*a*a*a*a*a*b",
    "lookahead": "(?=(a+)+b)a",
}


def regex_cases():
    wrong = {
        "unclosed-group",
        "unclosed-class",
        "bad-range",
        "bad-escape",
        "bad-property",
        "nothing-to-repeat",
        "nested-repeat",
        "code",
    }
    for name, text in REGEXES.items():
        yield Case(
            f"regex-{name}",
            pattern(text),
            "error" if name in wrong else "either",
            [TOKENIZER, "regex", "pattern", "pre_tokenizer"],
        )
    for name, text in CATASTROPHES.items():
        yield Case(
            f"regex-catastrophe-{name}", pattern(text), "either", command="tokenize", prompt="a" * 40_000 + "!"
        )
    split = ("pre_tokenizer", "pretokenizers", 1)
    for name, value in {"missing": None, "number": {"Regex": 5}, "list": [], "unknown-kind": {"Glob": "*"}}.items():
        yield Case(
            f"split-pattern-{name}",
            at(split, lambda old, v=value: {**old, "pattern": v}),
            mentions=[TOKENIZER, "pattern", "pre_tokenizer"],
        )
    for name, value in {"unknown": "Explode", "number": 5, "null": None}.items():
        yield Case(
            f"split-behavior-{name}", pattern("a", behavior=value), mentions=[TOKENIZER, "behavior", "pre_tokenizer"]
        )
    yield Case("split-inverted", pattern("a", invert=True), "either")


def stage_cases():
    for stage in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        for name, value in {
            "unknown": {"type": "Lua", "script": "os.execute('id')"},
            "no-type": {},
            "number": 5,
            "list": [],
            "type-null": {"type": None},
        }.items():
            soft = stage in ("post_processor", "decoder")
            yield Case(f"{stage}-{name}", at((stage,), value), "either" if soft else "error", [TOKENIZER, stage])
    yield Case("pre-tokenizer-none", at(("pre_tokenizer",), None), "either")
    yield Case(
        "pre-tokenizer-empty-sequence", at(("pre_tokenizer",), {"type": "Sequence", "pretokenizers": []}), "either"
    )
    yield Case(
        "pre-tokenizer-sequence-of-null",
        at(("pre_tokenizer", "pretokenizers"), [None]),
        mentions=[TOKENIZER, "pre_tokenizer"],
    )

    def deep(depth):
        def build(model):
            for _ in range(depth):
                model.tokenizer["pre_tokenizer"] = {
                    "type": "Sequence",
                    "pretokenizers": [model.tokenizer["pre_tokenizer"]],
                }

        return build

    yield Case("pre-tokenizer-20-deep", deep(20), "either")

    def very_deep(model):
        opening = '{"type":"Sequence","pretokenizers":['
        text = json.dumps({**model.tokenizer, "pre_tokenizer": "@@"})
        model.files[TOKENIZER] = text.replace('"@@"', opening * 50_000 + "]}" * 50_000).encode()

    yield Case("pre-tokenizer-50000-deep", very_deep, mentions=TOKENIZER)
    yield Case(
        "pre-tokenizer-many-stages",
        at(("pre_tokenizer", "pretokenizers"), lambda old: old[:1] * 20_000 + old[1:]),
        "either",
    )


def file_cases():
    for how in BAD_JSON:
        for file_name in (TOKENIZER, SETTINGS):

            def build(model, file_name=file_name, how=how):
                model.files[file_name] = bad_json(model, file_name, how)

            yield Case(f"{file_name}-{how}", build, mentions=file_name)
    for what, make in NOT_FILES.items():

        def build(model, make=make):
            model.files[TOKENIZER] = make

        yield Case(f"tokenizer-is-{what}", build, mentions=TOKENIZER)

    def missing(model):
        model.files[TOKENIZER] = None

    yield Case("tokenizer-missing", missing, mentions=TOKENIZER)

    def no_settings(model):
        model.files[SETTINGS] = None

    yield Case("tokenizer-config-missing", no_settings, "either")

    def sparse(model):
        model.files[TOKENIZER] = sparse_at(1 << 36)

    yield Case("tokenizer-sparse-64-gigabytes", sparse, mentions=TOKENIZER)


def settings_cases():
    for name, fields in {
        "bos-unknown": {"bos_token": "<nobody>"},
        "bos-number": {"bos_token": 5},
        "bos-list": {"bos_token": ["<s>"]},
        "eos-unknown": {"eos_token": "<nobody>"},
        "eos-object-empty": {"eos_token": {}},
        "add-bos-text": {"add_bos_token": "yes"},
        "class-evil": {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
        "length-1e30": {"model_max_length": 1e30},
        "template-number": {"chat_template": 5},
        "template-list": {"chat_template": [{"name": "other", "template": "x"}]},
        "template-list-broken": {"chat_template": [5, None]},
    }.items():

        def build(model, fields=fields):
            model.tokenizer_config.update(fields)

        wrong = {"bos-number", "bos-list", "add-bos-text", "template-number", "template-list-broken"}
        yield Case(
            f"tokenizer-config-{name}",
            build,
            "error" if name in wrong else "either",
            [SETTINGS, "bos_token", "add_bos_token", "chat_template"],
        )

    def default_of_list(model):
        model.tokenizer_config["chat_template"] = [{"name": "default", "template": CHAT_TEMPLATE}]

    yield Case("tokenizer-config-template-default-of-list", default_of_list, "loads", command="template")


def cases(model, model_v3):
    del model, model_v3
    yield from vocabulary_cases()
    yield from merge_cases()
    yield from added_token_cases()
    yield from regex_cases()
    yield from stage_cases()
    yield from file_cases()
    yield from settings_cases()
