"""Cases in config.json and generation_config.json."""

from cases import BAD_JSON, NOT_FILES, Case, bad_json, sparse_at

CONFIG = "config.json"
GENERATION = "generation_config.json"

# Sizes that must be positive, and counts that may be zero.
POSITIVE = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_group",
    "topk_group",
    "moe_layer_freq",
]
COUNTS = ["n_routed_experts", "n_shared_experts", "first_k_dense_replace", "q_lora_rank"]
REQUIRED = [
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "vocab_size",
    "intermediate_size",
    "rms_norm_eps",
]

# Required ones that may also follow from something else (model_type from architectures) or have a default.
DEFAULTED = ("model_type", "rms_norm_eps")

# A size so large that a plan may refuse it (exit 3) before a tensor contradicts it (exit 1).
PLAN = (1, 3)


def with_text(field, text):
    """config.json in which the field's value is this text, for values that json.dumps does not write."""

    def build(model):
        model.config[field] = "@@"
        model.files[CONFIG] = model.parts()[CONFIG].replace(b'"@@"', text.encode())

    return build


def with_value(**fields):
    def build(model):
        model.config.update(fields)

    return build


def with_rope(**fields):
    def build(model):
        model.config["rope_scaling"].update(fields)

    return build


def without(field):
    def build(model):
        del model.config[field]

    return build


def integer_cases():
    for field in POSITIVE + COUNTS:
        if field in POSITIVE:
            yield Case(f"config-{field}-0", with_value(**{field: 0}), mentions=field)
        yield Case(f"config-{field}-minus-1", with_value(**{field: -1}), mentions=field)
        yield Case(
            f"config-{field}-2-31",
            with_value(**{field: 1 << 31}),
            exits=PLAN,
            expect="either" if field == "max_position_embeddings" else "error",
        )
        yield Case(f"config-{field}-2-62", with_value(**{field: 1 << 62}), mentions=field)
        yield Case(f"config-{field}-2-64", with_text(field, str(1 << 64)), mentions=field)
        yield Case(f"config-{field}-half", with_value(**{field: 2.5}), mentions=field)
        yield Case(f"config-{field}-text", with_value(**{field: "8"}), mentions=field)
        yield Case(f"config-{field}-list", with_value(**{field: [8]}), mentions=field)
        yield Case(f"config-{field}-true", with_value(**{field: True}), mentions=field)
    for field in REQUIRED:
        yield Case(
            f"config-{field}-missing",
            without(field),
            mentions=field,
            expect="either" if field in DEFAULTED else "error",
        )
        yield Case(
            f"config-{field}-null",
            with_value(**{field: None}),
            mentions=field,
            expect="either" if field in DEFAULTED else "error",
        )


def relation_cases():
    yield Case("config-more-chosen-than-experts", with_value(num_experts_per_tok=9), mentions="num_experts_per_tok")
    yield Case(
        "config-more-chosen-than-in-kept-groups",
        with_value(num_experts_per_tok=5),
        mentions=["num_experts_per_tok", "topk_group"],
    )
    yield Case("config-groups-do-not-divide", with_value(n_group=3), mentions="n_group")
    yield Case("config-more-groups-than-experts", with_value(n_group=16), mentions="n_group")
    yield Case("config-more-kept-groups-than-groups", with_value(topk_group=5), mentions="topk_group")
    yield Case("config-rope-dim-odd", with_value(qk_rope_head_dim=7), mentions="qk_rope_head_dim")
    yield Case(
        "config-heads-do-not-match-tensors",
        with_value(num_attention_heads=3, num_key_value_heads=3),
        mentions="self_attn",
    )
    yield Case("config-kv-heads-differ", with_value(num_key_value_heads=3), "either")
    yield Case(
        "config-vocab-smaller-than-tokenizer", with_value(vocab_size=100), mentions=["vocab", "embed_tokens", "token"]
    )
    yield Case("config-vocab-one-smaller", with_value(vocab_size=267), mentions=["vocab", "embed_tokens", "token"])
    yield Case("config-vocab-larger-than-tensors", with_value(vocab_size=300), mentions=["embed_tokens"])
    yield Case(
        "config-layers-billion",
        with_value(num_hidden_layers=10**9),
        mentions=["num_hidden_layers", "model.layers"],
        exits=PLAN,
    )
    yield Case("config-layers-three", with_value(num_hidden_layers=3), mentions="model.layers.2")
    yield Case("config-layers-one", with_value(num_hidden_layers=1), "either")
    yield Case(
        "config-experts-million",
        with_value(n_routed_experts=1 << 20),
        mentions=["n_routed_experts", "mlp.gate", "experts"],
        exits=PLAN,
    )
    yield Case(
        "config-layers-times-experts",
        with_value(num_hidden_layers=100_000, n_routed_experts=100_000),
        mentions=["num_hidden_layers", "n_routed_experts", "model.layers", "experts"],
        exits=PLAN,
    )
    yield Case(
        "config-dense-layers-past-end",
        with_value(first_k_dense_replace=5),
        mentions=["first_k_dense_replace", "mlp."],
    )
    yield Case("config-all-layers-sparse", with_value(first_k_dense_replace=0), mentions="model.layers.0.mlp")
    yield Case("config-experts-0", with_value(n_routed_experts=0), mentions=["n_routed_experts", "experts", "mlp."])
    yield Case("config-q-rank-null", with_value(q_lora_rank=None), mentions="q_proj")
    yield Case(
        "config-q-rank-billion", with_value(q_lora_rank=10**9), mentions=["q_lora_rank", "q_a_proj"], exits=PLAN
    )
    yield Case("config-bias-without-tensors", with_value(attention_bias=True), mentions="bias")
    yield Case("config-tied-with-head", with_value(tie_word_embeddings=True), "either")
    yield Case("config-context-1", with_value(max_position_embeddings=1), "either", exits=(1, 2, 3))
    yield Case(
        "config-products-wrap",
        with_value(num_attention_heads=1 << 21, qk_nope_head_dim=1 << 21, v_head_dim=1 << 21, kv_lora_rank=1 << 21),
        exits=PLAN,
    )


def enum_cases():
    for field, values in {
        "model_type": ["gpt2", "", "deepseek_v2\n", "DEEPSEEK_V2", "a" * 100_000, "\x1b[2J", 5, ["deepseek_v2"]],
        "hidden_act": ["gelu", "", 3],
        "topk_method": ["magic", "", 1, "noaux_tc"],
        "scoring_func": ["tanh", "", 1],
        "norm_topk_prob": ["yes", 7, 2.0],
        "tie_word_embeddings": ["no", 1, []],
        "attention_bias": ["no", 3],
    }.items():
        for number, value in enumerate(values):
            yield Case(
                f"config-{field}-value-{number}",
                with_value(**{field: value}),
                mentions=field,
                expect="either" if value == "noaux_tc" else "error",
            )
    yield Case("config-architectures-number", with_value(architectures=5), "either")
    yield Case("config-architectures-empty", with_value(architectures=[]), "either")
    yield Case("config-architectures-other", with_value(architectures=["GPT2LMHeadModel"]), "either")
    for name, value in {
        "awq": {"quant_method": "awq"},
        "gptq": {"quant_method": "gptq", "bits": 4},
        "text": "fp8",
        "empty": {},
        "list": [],
        "method-number": {"quant_method": 8},
    }.items():
        yield Case(
            f"config-quantization-{name}",
            with_value(quantization_config=value),
            mentions="quant",
            expect="either" if name == "empty" else "error",
        )
    for name, value in {
        "block-0": [0, 0],
        "block-64": [64, 64],
        "block-one": [128],
        "block-negative": [-128, 128],
        "block-text": "128",
    }.items():

        def block(model, value=value):
            model.config["quantization_config"]["weight_block_size"] = value

        yield Case(f"config-fp8-{name}", block, mentions=["weight_block_size", "quantization"], v3=True)

    def format_e5m2(model):
        model.config["quantization_config"]["fmt"] = "e5m2"

    yield Case("config-fp8-e5m2", format_e5m2, mentions=["fmt", "quantization"], v3=True)


def real_cases():
    for field, expectations in {
        "rms_norm_eps": {
            "-1e-6": "error",
            "0": "either",
            "1e400": "error",
            "NaN": "error",
            '"small"': "error",
            "1e300": "either",
        },
        "rope_theta": {
            "0": "error",
            "-10000": "error",
            "1e400": "error",
            '"1e4"': "error",
            "1e-300": "either",
            "1e300": "either",
            "Infinity": "error",
            "1": "either",
        },
        "routed_scaling_factor": {
            "1e400": "error",
            '"2"': "error",
            "[]": "error",
            "1e308": "either",
            "-1": "either",
            "0": "either",
            "-Infinity": "error",
        },
    }.items():
        for number, (text, expect) in enumerate(expectations.items()):
            mentions = [field, CONFIG] if text in ("NaN", "Infinity", "-Infinity", "1e400") else field
            yield Case(f"config-{field}-real-{number}", with_text(field, text), expect, mentions)
    for field, values in {
        "type": ["warp", "", 5, None],
        "factor": [0, -1, "4", 1e-300, None],
        "original_max_position_embeddings": [0, -64, "64", 1 << 62, 2.5],
        "beta_fast": [-1, "32", 0],
        "beta_slow": ["1", 1e300],
        "mscale": ["1", [], -1e300],
        "mscale_all_dim": ["1", {}, 1e300],
    }.items():
        doubtful = (1e300, -1e300, None, 1 << 62, 2.5, 1e-300)
        for number, value in enumerate(values):
            soft = value in doubtful or (field.startswith("beta") and value in (-1, 0))
            yield Case(
                f"config-rope-{field}-value-{number}",
                with_rope(**{field: value}),
                "either" if soft else "error",
                [field, "rope"],
            )
    for name, value in {"list": [], "text": "yarn", "number": 4, "empty": {}, "true": True}.items():
        yield Case(
            f"config-rope-scaling-{name}",
            with_value(rope_scaling=value),
            mentions="rope",
            expect="either" if name == "empty" else "error",
        )
    for number, value in enumerate([10**9, -2, "0", 1.5, [[0]], [-1], ["x"], 1 << 40, {}]):
        yield Case(
            f"config-eos-value-{number}",
            with_value(eos_token_id=value),
            mentions="eos_token_id",
            expect="either" if value in (10**9, -2) else "error",
        )
        yield Case(
            f"config-bos-value-{number}",
            with_value(bos_token_id=value),
            mentions="bos_token_id",
            expect="either" if value in (10**9, -2) else "error",
        )


def text_cases():
    for how in BAD_JSON:
        for file_name in (CONFIG, GENERATION):

            def build(model, file_name=file_name, how=how):
                model.files[file_name] = bad_json(model, file_name, how)

            yield Case(f"{file_name}-{how}", build, mentions=file_name)
    for what, make in NOT_FILES.items():

        def build(model, make=make):
            model.files[CONFIG] = make

        yield Case(f"config-is-{what}", build, mentions=CONFIG)

    def missing(model):
        model.files[CONFIG] = None

    yield Case("config-missing", missing, mentions=CONFIG)

    def sparse(model):
        model.files[CONFIG] = sparse_at(1 << 36)

    yield Case("config-sparse-64-gigabytes", sparse, mentions=CONFIG)

    def same_key(model):
        text = model.parts()[CONFIG]
        model.files[CONFIG] = text.replace(b"{", b'{"hidden_size": 64, ', 1)

    yield Case("config-hidden-size-twice", same_key, mentions=["duplicate", "hidden_size"])

    def unknown_fields(model):
        model.config["auto_map"] = {"AutoConfig": "configuration_evil.EvilConfig"}
        model.config["my_own_field"] = {"a": [1, 2, {"b": None}]}

    yield Case("config-unknown-fields", unknown_fields, "loads")

    def many_fields(model):
        model.config.update({f"field_{i}": i for i in range(50_000)})

    yield Case("config-many-unknown-fields", many_fields, "either")

    def nested_block(model):
        model.config["text_config"] = dict(model.config)

    yield Case("config-nested-in-itself", nested_block, "either")


def generation_cases():
    for field, values in {
        "temperature": [-1, "warm", [], "NaN-text"],
        "top_p": [2, -0.5, "x", {}],
        "top_k": [-5, 2.5, "x", 1 << 62],
        "repetition_penalty": [0, -1, "x"],
        "do_sample": ["yes", 3],
        "eos_token_id": ["x", 1.5, [None], {}],
    }.items():
        for number, value in enumerate(values):

            def build(model, field=field, value=value):
                model.generation[field] = value

            yield Case(f"generation-{field}-value-{number}", build, mentions=[field, GENERATION])

    def missing(model):
        model.files[GENERATION] = None

    yield Case("generation-missing", missing, "loads")

    def unknown(model):
        model.generation["sampler_of_my_own"] = 5

    yield Case("generation-unknown-field", unknown, "loads")

    def eos_outside(model):
        model.generation["eos_token_id"] = [10**6, 1]

    yield Case("generation-eos-outside-vocabulary", eos_outside, "either")


def inspect_cases():
    """The same configuration errors through a command that reads no weights."""
    for name, fields in {
        "heads-0": {"num_attention_heads": 0},
        "layers-2-62": {"num_hidden_layers": 1 << 62},
        "experts-2-62": {"n_routed_experts": 1 << 62},
        "hidden-text": {"hidden_size": "x"},
    }.items():
        yield Case(f"inspect-{name}", with_value(**fields), mentions=list(fields), command="inspect")
    yield Case(
        "inspect-huge",
        with_value(
            num_hidden_layers=1 << 20,
            n_routed_experts=1 << 14,
            hidden_size=1 << 20,
            moe_intermediate_size=1 << 20,
            vocab_size=1 << 24,
        ),
        "either",
        command="inspect",
        exits=PLAN,
    )


def cases(model, model_v3):
    del model, model_v3
    yield from integer_cases()
    yield from relation_cases()
    yield from enum_cases()
    yield from real_cases()
    yield from text_cases()
    yield from generation_cases()
    yield from inspect_cases()
