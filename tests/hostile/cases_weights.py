"""Cases in the weight files: containers, indexes, tensors, numbers."""

import json
import struct

from cases import NOT_FILES, Case, sparse_at
from tiny_model import elements, raw_safetensors, safetensors_bytes

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
U64 = (1 << 64) - 1


def one(dtype="U8", shape=(1,), offsets=(0, 1), **more):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}}


def entry(shape, begin, end, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def nested(depth):
    return '{"w":' + "[" * depth + "]" * depth + "}"


# name -> (header, bytes of data[, length field])
HEADERS = {
    "no-tensors": ({}, b""),
    "length-0": ("{}", b"", 0),
    "length-1": ("{}", b"", 1),
    "length-past-end": ("{}", b"", 3),
    "length-100-million": ("{}", b"", 100_000_000),
    "length-over-limit": ("{}", b"", 100_000_001),
    "length-2-32": ("{}", b"", 1 << 32),
    "length-2-63": ("{}", b"", 1 << 63),
    "length-2-64-minus-8": ("{}", b"", U64 - 7),
    "length-2-64-minus-1": ("{}", b"", U64),
    "leading-space": (" {}", b""),
    "array": ("[]", b""),
    "byte-order-mark": (b"\xef\xbb\xbf{}", b""),
    "utf-16": ("{}".encode("utf-16-le"), b""),
    "bad-utf-8": (b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "zero-bytes": (b"\0" * 64, b""),
    "trailing-text": ("{} x", b""),
    "unfinished": ('{"w":{"dtype":"U8"', b""),
    "deep": (nested(1_000_000), b""),
    "deep-metadata": ('{"__metadata__":' + '{"a":' * 100_000, b""),
    "entry-null": ({"w": None}, b""),
    "entry-array": ({"w": [1]}, b""),
    "entry-empty": ({"w": {}}, b""),
    "dtype-unknown": (one("F13"), b"x"),
    "dtype-number": (one(7), b"x"),
    "dtype-null": (one(None), b"x"),
    "dtype-4-bit": (one("F4", [2], [0, 1]), b"x"),
    "dtype-long": (one("F" * 1_000_000), b"x"),
    "dtype-escape": (one("\x1b[2J\r\nlathe: error: forged"), b"x"),
    "name-escape": ({"\x1b[2J\nlathe: error: forged": entry([1], 0, 2)}, b"xy"),
    "name-long": ({"n" * 2_000_000: entry([1], 0, 2)}, b"xy"),
    "shape-number": ({"w": entry(1, 0, 1)}, b"x"),
    "shape-null": ({"w": entry(None, 0, 1)}, b"x"),
    "shape-negative": (one(shape=[-1]), b"x"),
    "shape-float": ('{"w":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', b"x"),
    "shape-exponent": ('{"w":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', b"x"),
    "shape-string": (one(shape=["1"]), b"x"),
    "shape-bool": (one(shape=[True]), b"x"),
    "shape-2-63": (one(shape=[1 << 63]), b"x"),
    "shape-2-64": (one(shape=[1 << 64]), b"x"),
    "shape-rank-9": (one(shape=[1] * 9), b"x"),
    "shape-rank-million": (one(shape=[1] * 1_000_000), b"x"),
    "shape-product-wraps-to-0": (one(shape=[1 << 32, 1 << 32], offsets=[0, 0]), b""),
    "shape-product-wraps-to-1": (one(shape=[(1 << 63) - 1, (1 << 63) - 1]), b"x"),
    "shape-bytes-wrap": (one("F64", [1 << 61], [0, 0]), b""),
    "shape-wraps-beside-0": (one(shape=[0, 1 << 40, 1 << 40], offsets=[0, 0]), b""),
    "offsets-one": (one(offsets=[0]), b"x"),
    "offsets-three": (one(offsets=[0, 1, 2]), b"x"),
    "offsets-null": ({"w": {"dtype": "U8", "shape": [1], "data_offsets": None}}, b"x"),
    "offsets-negative": (one(offsets=[-1, 0]), b"x"),
    "offsets-swapped": (one(offsets=[1, 0]), b"x"),
    "offsets-past-end": (one(shape=[2], offsets=[0, 2]), b"x"),
    "offsets-2-64": (one(offsets=[U64 - 1, U64]), b"x"),
    "offsets-wrap": (one(offsets=[U64, 0]), b"x"),
    "offsets-2-65": (one(offsets=[1 << 65, 1 << 65]), b"x"),
    "size-too-small": (one("F32", [2], [0, 4]), b"xxxx"),
    "size-too-large": (one("U8", [2], [0, 4]), b"xxxx"),
    "hole-at-start": (one(offsets=[1, 2]), b"xx"),
    "hole": ({"a": entry([1], 0, 1), "b": entry([1], 2, 3)}, b"xxx"),
    "overlap": ({"a": entry([2], 0, 2), "b": entry([2], 1, 3)}, b"xxx"),
    "same-bytes": ({"a": entry([2], 0, 2), "b": entry([2], 0, 2)}, b"xx"),
    "bytes-left-over": (one(), b"xx"),
    "extra-field": (one(offset=3), b"x"),
    "field-twice": ('{"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "tensor-twice": (
        '{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        '"\\u0077":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"xx",
    ),
    "metadata-number": ({"__metadata__": 1}, b""),
    "metadata-value-number": ({"__metadata__": {"format": 1}}, b""),
    "metadata-value-object": ({"__metadata__": {"format": {}}}, b""),
    "metadata-twice": ('{"__metadata__":{},"__metadata__":{}}', b""),
    "metadata-million": ({"__metadata__": {str(i): "" for i in range(1_000_000)}}, b""),
    "pickle": (b"\x80\x02}q\x00(X\x01", b""),
}


def header_cases():
    for name, spec in HEADERS.items():

        def build(model, spec=spec):
            model.files[WEIGHTS] = raw_safetensors(*spec)

        # A header without tensors is a valid file: what is wrong is that the model's tensors are missing.
        mention = "embed_tokens" if name == "no-tensors" else WEIGHTS
        yield Case(f"header-{name}", build, mentions=mention)


def truncation_cases(model):
    """Cuts at every structural boundary of the good file, and one byte beside it."""
    good = model.weights_bytes()
    header = 8 + struct.unpack("<Q", good[:8])[0]
    sizes = [len(data) for _, _, data in model.tensors.values()]
    ends = [header + sum(sizes[: i + 1]) for i in range(len(sizes))]
    marks = {
        0,
        1,
        7,
        8,
        9,
        10,
        header // 2,
        header - 1,
        header,
        header + 1,
        ends[0],
        ends[0] + 1,
        ends[len(ends) // 2],
        ends[-2],
        len(good) - 2,
        len(good) - 1,
    }
    for mark in sorted(marks):

        def build(model, mark=mark):
            model.files[WEIGHTS] = good[:mark]

        yield Case(f"cut-at-{mark}", build, mentions=WEIGHTS)

    def longer(model):
        model.files[WEIGHTS] = good + b"\0"

    yield Case("one-byte-more", longer, mentions=WEIGHTS)

    def sparse(model):
        def make(path):
            with open(path, "wb") as file:
                file.write(good)
                file.truncate(1 << 40)

        model.files[WEIGHTS] = make

    yield Case("terabyte-of-zeros-behind", sparse, mentions=WEIGHTS)


def file_cases():
    for what, make in NOT_FILES.items():

        def single(model, make=make):
            model.files[WEIGHTS] = make

        yield Case(f"weights-are-{what}", single, mentions=WEIGHTS)

        def shard(model, make=make):
            model.files[model.split()[1]] = make

        yield Case(f"shard-is-{what}", shard, mentions="model-00002-of-00002.safetensors")

        def index(model, make=make):
            model.split()
            model.files[INDEX] = make

        yield Case(f"index-is-{what}", index, mentions=INDEX)

    def none(model):
        model.files[WEIGHTS] = None

    yield Case("weights-missing", none, mentions=WEIGHTS)

    def pickled(model):
        model.files[WEIGHTS] = None
        model.files["pytorch_model.bin"] = b"\x80\x02."

    yield Case("weights-pickled", pickled, mentions="pytorch_model.bin")

    def sparse(model):
        model.files[WEIGHTS] = sparse_at(1 << 42)

    yield Case("weights-sparse-4-terabytes", sparse, mentions=WEIGHTS)


def map_change(change):
    """A build function that edits the weight_map of a two-shard model."""

    def build(model):
        shards = model.split()
        model.weight_map = {n: shard for shard, names in model.shards.items() for n in names}
        change(model, shards)

    return build


def index_cases():
    norm = "model.norm.weight"
    for name, target in {
        "parent": "../model-00001-of-00002.safetensors",
        "dots": "..",
        "dot": ".",
        "empty": "",
        "absolute": "/etc/passwd",
        "device": "/dev/zero",
        "folder": "sub/model.safetensors",
        "backslash": "..\\model.safetensors",
        "newline": "model\n.safetensors",
        "zero-byte": "model\0.safetensors",
        "escape": "\x1b[31mmodel.safetensors",
        "override": "\u202esrotsnetefas",
        "long": "a" * 5000,
        "url": "https://example.org/model.safetensors",
        "windows": "C:\\model.safetensors",
    }.items():

        def change(model, shards, target=target):
            model.weight_map[norm] = target

        yield Case(f"index-names-{name}", map_change(change), mentions=[INDEX, "index"])

    for name, value in {
        "number": 1,
        "null": None,
        "array": ["model-00001-of-00002.safetensors"],
        "bool": True,
    }.items():

        def change(model, shards, value=value):
            model.weight_map[norm] = value

        yield Case(f"index-file-is-{name}", map_change(change), mentions=INDEX)

    def other_shard(model, shards):
        here = model.weight_map[norm]
        model.weight_map[norm] = shards[1] if here == shards[0] else shards[0]

    yield Case("index-names-the-other-shard", map_change(other_shard), mentions=norm)

    def unknown_tensor(model, shards):
        model.weight_map["model.layers.7.nothing.weight"] = shards[0]

    yield Case("index-names-a-tensor-nobody-has", map_change(unknown_tensor), mentions="nothing")

    def missing_shard(model, shards):
        model.files[shards[1]] = None

    yield Case("shard-missing", map_change(missing_shard), mentions="model-00002-of-00002.safetensors")

    def third_shard(model, shards):
        model.weight_map["model.norm.bias"] = "model-00003-of-00003.safetensors"

    yield Case("shard-invented", map_change(third_shard), mentions="model-00003-of-00003.safetensors")

    def twice(model, shards):
        model.shards[shards[0]].append(model.shards[shards[1]][0])

    yield Case("tensor-in-two-shards", map_change(twice), mentions="twice")

    def left_out(model, shards):
        del model.weight_map[norm]

    yield Case("index-leaves-a-tensor-out", map_change(left_out), "loads")

    def both(model, shards):
        model.files[WEIGHTS] = b"left over"

    yield Case("index-beside-a-broken-single-file", map_change(both), "loads")

    for name, value in {
        "empty-map": {"weight_map": {}},
        "no-map": {"metadata": {}},
        "map-array": {"weight_map": []},
        "map-null": {"weight_map": None},
    }.items():

        def replace(model, value=value):
            model.split()
            model.files[INDEX] = json.dumps(value).encode()

        yield Case(f"index-{name}", replace, mentions=INDEX)


def change_tensor(name, change):
    def build(model):
        model.tensors[name] = change(*model.tensors[name])

    return build


def one_row_more(dtype, shape, data):
    row = len(data) // shape[0]
    return dtype, [shape[0] + 1] + shape[1:], data + data[:row]


def other_rank(dtype, shape, data):
    return dtype, shape + [1], data


def transposed(dtype, shape, data):
    return dtype, shape[::-1], data


def as_i32(dtype, shape, data):
    return "I32", shape, b"\1\0\0\0" * elements(shape)


def emptied(dtype, shape, data):
    return dtype, [0] * len(shape), b""


def tensor_cases(model):
    """Every kind of tensor: missing, of another shape, of another type."""
    seen = set()
    for name in model.tensors:
        kind = "-".join(p for p in name.split(".") if not p.isdigit() and p not in ("model", "layers", "weight"))
        if kind in seen:
            continue
        seen.add(kind)

        def missing(model, name=name):
            del model.tensors[name]

        yield Case(f"{kind}-missing", missing, mentions=name)
        yield Case(f"{kind}-one-row-more", change_tensor(name, one_row_more), mentions=name)
        yield Case(f"{kind}-integers", change_tensor(name, as_i32), mentions=name)
    for name in ("model.norm.weight", "lm_head.weight"):
        yield Case(f"{name}-other-rank", change_tensor(name, other_rank), mentions=name)
        yield Case(f"{name}-emptied", change_tensor(name, emptied), mentions=name)
    for name in ("lm_head.weight", "model.layers.1.mlp.experts.7.down_proj.weight"):
        yield Case(f"{name}-transposed", change_tensor(name, transposed), mentions=name)

    def extra(model):
        model.tensors["model.layers.1.mlp.experts.8.gate_proj.weight"] = ("BF16", [1], b"\0\0")

    yield Case("tensor-nobody-asked-for", extra, "either")

    def unaligned(model):
        for filler in ("", "x"):  # a header of odd length: no tensor behind it is aligned
            data = safetensors_bytes(model.tensors, {"format": "pt", "filler": filler}, pad=False)
            if data[0] % 2 == 1:
                model.files[WEIGHTS] = data

    yield Case("unaligned-data", unaligned, "loads")


def put(at, value):
    """Overwrites bytes of a tensor's data at a byte offset."""

    def change(dtype, shape, data):
        return dtype, shape, data[:at] + value + data[at + len(value) :]

    return change


BF16_NAN, BF16_INF, BF16_MINUS_INF, BF16_HUGE = b"\xc0\x7f", b"\x80\x7f", b"\x80\xff", b"\x7f\x7f"


def number_cases():
    for name in (
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.norm.weight",
        "model.layers.0.self_attn.kv_b_proj.weight",
        "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.experts.3.up_proj.weight",
        "lm_head.weight",
    ):
        for label, value in (("nan", BF16_NAN), ("infinity", BF16_INF), ("minus-infinity", BF16_MINUS_INF)):
            if label == "minus-infinity" and "norm" not in name:
                continue
            yield Case(f"{name}-{label}-verify", change_tensor(name, put(6, value)), mentions=name, command="verify")

    def all_nan(dtype, shape, data):
        return dtype, shape, BF16_NAN * elements(shape)

    for name in ("model.norm.weight", "lm_head.weight", "model.layers.1.mlp.gate.weight"):
        yield Case(f"{name}-all-nan-generate", change_tensor(name, all_nan), exits=(1,))

    def all_huge(dtype, shape, data):
        return dtype, shape, BF16_HUGE * elements(shape)

    yield Case("norm-all-huge-generate", change_tensor("model.norm.weight", all_huge))


def fp8_cases():
    weight = "model.layers.1.mlp.experts.2.gate_proj.weight"
    scale = weight + "_scale_inv"
    for label, value in {
        "nan": float("nan"),
        "infinity": float("inf"),
        "zero": 0.0,
        "negative": -0.02,
        "minus-infinity": float("-inf"),
        "huge": 3e38,
        "denormal": 1e-45,
    }.items():
        # A block of zeros may have the scale 0.
        expect = {"huge": "either", "denormal": "either", "zero": "loads"}.get(label, "error")
        for command in ("generate", "verify"):
            yield Case(
                f"scale-{label}-{command}",
                change_tensor(scale, put(0, struct.pack("<f", value))),
                expect,
                scale,
                command=command,
                v3=True,
            )

    def wrong(shape):
        return lambda *_: ("F32", shape, b"\0\0\0\x3f" * elements(shape))

    for label, shape in {"more-blocks": [2, 2], "per-row": [16, 1], "scalar": [], "empty": [0, 1]}.items():
        yield Case(f"scale-shape-{label}", change_tensor(scale, wrong(shape)), mentions=scale, v3=True)
    yield Case("scale-integers", change_tensor(scale, as_i32), mentions=scale, v3=True)

    def missing(model):
        del model.tensors[scale]

    yield Case("scale-missing", missing, "either", v3=True)

    def no_weight(model):
        del model.tensors[weight]

    yield Case("scale-without-weight", no_weight, mentions=weight, v3=True)
    yield Case("fp8-nan-code", change_tensor(weight, put(5, b"\x7f")), mentions=weight, command="verify", v3=True)
    yield Case(
        "fp8-minus-nan-code", change_tensor(weight, put(5, b"\xff")), mentions=weight, command="verify", v3=True
    )
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    for label, value in {"nan": float("nan"), "infinity": float("inf")}.items():
        yield Case(
            f"correction-bias-{label}",
            change_tensor(bias, put(4, struct.pack("<f", value))),
            mentions=bias,
            command="verify",
            v3=True,
        )


def cases(model, model_v3):
    del model_v3
    yield from header_cases()
    yield from truncation_cases(model)
    yield from file_cases()
    yield from index_cases()
    yield from tensor_cases(model)
    yield from number_cases()
    yield from fp8_cases()
