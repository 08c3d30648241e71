"""Reduces a gradients.safetensors of the golden data to what the tests read: tensors of up to 256 values whole, of larger
ones 64 values at seeded places, under the names grad.<parameter>, grad_sample_index.<parameter> and
grad_sample.<parameter>. The norms of the whole gradients stay in gradients.json.

usage: select_gradients.py SOURCE_FOLDER DESTINATION_FOLDER
"""

import json
import pathlib
import shutil
import struct
import sys

import numpy

DTYPES = {"F32": numpy.float32, "I64": numpy.int64}
WHOLE = 256
SAMPLES = 64


def read(path):
    """Name -> array of a safetensors file of the dtypes above."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    return {
        name: numpy.frombuffer(body[slice(*entry["data_offsets"])], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def write(path, tensors):
    """The inverse of read()."""
    names = {numpy.dtype(kind): name for name, kind in DTYPES.items()}
    header, body = {}, b""
    for name, array in tensors.items():
        raw = numpy.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def select(tensors):
    """The reduced set, int64 tensors first so that everything is aligned."""
    rng = numpy.random.default_rng(1)
    integers, floats = {}, {}
    for name, array in tensors.items():
        if not name.startswith("grad."):
            (integers if array.dtype == numpy.int64 else floats)[name] = array
        elif array.size <= WHOLE:
            floats[name] = array
        else:
            places = numpy.sort(rng.choice(array.size, SAMPLES, replace=False)).astype(numpy.int64)
            parameter = name.removeprefix("grad.")
            integers["grad_sample_index." + parameter] = places
            floats["grad_sample." + parameter] = array.reshape(-1)[places]
    return integers | floats


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, destination = map(pathlib.Path, sys.argv[1:])
    write(destination / "gradients.safetensors", select(read(source / "gradients.safetensors")))
    shutil.copyfile(source / "gradients.json", destination / "gradients.json")


if __name__ == "__main__":
    main()
