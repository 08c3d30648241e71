"""liblathe by ctypes: where it lies, its structs, its functions. Mirrors include/lathe/lathe_c.h."""

import ctypes
import ctypes.util
import functools
import os
import pathlib

ABI_VERSION = 1

STATUS_OK = 0
MODEL_DEFAULT = -1
TOKENIZE_ADD_BOS = 1
TOKENIZE_RECOGNISE_SPECIAL = 2
DETOKENIZE_KEEP_SPECIAL = 1
LOGITS_ALL = 0
LOGITS_LAST = 1
CACHE_TYPES = {"auto": 0, "f32": 1, "f16": 2, "bf16": 3, "q8": 4, "q6": 5}
COMPUTE = {"auto": 0, "f32": 1}
FINISH_REASONS = {0: "stop", 1: "length", 2: "cancelled"}

TOKEN_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t)


class LatheError(Exception):
    """What the library refused or could not do; `status` is its name of the kind, e.g. "not found"."""

    def __init__(self, message: str, status: str = "invalid argument"):
        super().__init__(message)
        self.status = status


class OpenOptions(ctypes.Structure):
    """lathe_open_options."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("context_size", ctypes.c_int64),
        ("threads", ctypes.c_int32),
        ("cache_type", ctypes.c_int32),
        ("compute", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("weight_type", ctypes.c_char_p),
        ("packed_folder", ctypes.c_char_p),
    ]


class GenerateOptions(ctypes.Structure):
    """lathe_generate_options."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("max_tokens", ctypes.c_int64),
        ("temperature", ctypes.c_double),
        ("top_k", ctypes.c_int64),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("repetition_penalty", ctypes.c_double),
        ("presence_penalty", ctypes.c_double),
        ("frequency_penalty", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        ("use_seed", ctypes.c_int32),
        ("ignore_eos", ctypes.c_int32),
        ("stop", ctypes.POINTER(ctypes.c_char_p)),
        ("stop_count", ctypes.c_size_t),
        ("dry_multiplier", ctypes.c_double),
        ("dry_base", ctypes.c_double),
        ("dry_allowed_length", ctypes.c_int64),
        ("dry_penalty_last_n", ctypes.c_int64),
        ("dry_sequence_breakers", ctypes.POINTER(ctypes.c_char_p)),
        ("dry_sequence_breaker_count", ctypes.c_size_t),
    ]


class CompletionStruct(ctypes.Structure):
    """lathe_completion."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("text", ctypes.c_void_p),
        ("text_size", ctypes.c_size_t),
        ("token_ids", ctypes.POINTER(ctypes.c_int32)),
        ("token_count", ctypes.c_size_t),
        ("prompt_token_count", ctypes.c_int64),
        ("finish_reason", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("prefill_seconds", ctypes.c_double),
        ("decode_seconds", ctypes.c_double),
    ]


class ModelInfoStruct(ctypes.Structure):
    """lathe_model_info."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("architecture", ctypes.c_char * 64),
        ("vocab_size", ctypes.c_int64),
        ("context_size", ctypes.c_int64),
        ("max_context_size", ctypes.c_int64),
        ("layer_count", ctypes.c_int64),
        ("hidden_size", ctypes.c_int64),
        ("attention_head_count", ctypes.c_int64),
        ("routed_expert_count", ctypes.c_int64),
        ("experts_per_token", ctypes.c_int64),
        ("parameter_count", ctypes.c_int64),
        ("active_parameter_count", ctypes.c_int64),
        ("cache_bytes_per_token", ctypes.c_int64),
        ("weight_bytes", ctypes.c_uint64),
        ("cache_bytes", ctypes.c_uint64),
        ("scratch_bytes", ctypes.c_uint64),
        ("thread_count", ctypes.c_int32),
        ("has_tokenizer", ctypes.c_int32),
        ("bos_token_id", ctypes.c_int32),
        ("eos_token_id", ctypes.c_int32),
        ("load_seconds", ctypes.c_double),
    ]


class MessageStruct(ctypes.Structure):
    """lathe_message."""

    _fields_ = [("role", ctypes.c_char_p), ("content", ctypes.c_char_p)]


def _candidates():
    """Names for the loader: LATHE_LIBRARY alone where it is set, else this package's prefix, then the system's."""
    chosen = os.environ.get("LATHE_LIBRARY")
    if chosen:
        yield chosen
        return
    here = pathlib.Path(__file__).resolve()
    if len(here.parents) > 4:  # PREFIX/share/lathe/python/lathe/_library.py
        for pattern in ("lib*/liblathe.so", "lib/*/liblathe.so"):
            yield from (str(path) for path in sorted(here.parents[4].glob(pattern)))
    yield ctypes.util.find_library("lathe") or "liblathe.so"


_HANDLE, _SIZE, _INT32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32
_OPTIONS = [ctypes.POINTER(GenerateOptions), TOKEN_CALLBACK, ctypes.c_void_p, ctypes.POINTER(CompletionStruct)]
_FUNCTIONS = {
    "lathe_abi_version": (ctypes.c_uint32, []),
    "lathe_version": (ctypes.c_char_p, []),
    "lathe_status_name": (ctypes.c_char_p, [_INT32]),
    "lathe_last_error": (ctypes.c_char_p, []),
    "lathe_free": (None, [ctypes.c_void_p]),
    "lathe_open": (_INT32, [ctypes.c_char_p, ctypes.POINTER(OpenOptions), ctypes.POINTER(_HANDLE)]),
    "lathe_close": (None, [_HANDLE]),
    "lathe_get_model_info": (_INT32, [_HANDLE, ctypes.POINTER(ModelInfoStruct)]),
    "lathe_tokenize": (
        _INT32,
        [
            _HANDLE,
            ctypes.c_char_p,
            _SIZE,
            ctypes.c_uint32,
            ctypes.POINTER(ctypes.POINTER(_INT32)),
            ctypes.POINTER(_SIZE),
        ],
    ),
    "lathe_detokenize": (
        _INT32,
        [
            _HANDLE,
            ctypes.POINTER(_INT32),
            _SIZE,
            ctypes.c_uint32,
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.POINTER(_SIZE),
        ],
    ),
    "lathe_generate": (_INT32, [_HANDLE, ctypes.c_char_p, _SIZE, *_OPTIONS]),
    "lathe_generate_ids": (_INT32, [_HANDLE, ctypes.POINTER(_INT32), _SIZE, *_OPTIONS]),
    "lathe_chat": (_INT32, [_HANDLE, ctypes.POINTER(MessageStruct), _SIZE, *_OPTIONS]),
    "lathe_logits": (
        _INT32,
        [_HANDLE, ctypes.POINTER(_INT32), _SIZE, _INT32, ctypes.POINTER(ctypes.c_float), _SIZE],
    ),
}


@functools.lru_cache(maxsize=None)
def library() -> ctypes.CDLL:
    """liblathe with the types of its functions set; loaded once."""
    failures = []
    for name in _candidates():
        try:
            loaded = ctypes.CDLL(name)
        except OSError as error:
            failures.append(str(error))
            continue
        for function, (result, arguments) in _FUNCTIONS.items():
            try:
                entry = getattr(loaded, function)
            except AttributeError:
                raise LatheError(f"{name}: expected the function {function}, found none", "unsupported") from None
            entry.restype, entry.argtypes = result, arguments
        found = loaded.lathe_abi_version()
        if found != ABI_VERSION:
            raise LatheError(f"{name}: expected interface version {ABI_VERSION}, found {found}", "unsupported")
        return loaded
    raise LatheError(
        f"liblathe: expected it by LATHE_LIBRARY, in the prefix or the loader's path, found {failures}", "not found"
    )


def check(status: int) -> None:
    """Raises what a function of the library reports."""
    if status != STATUS_OK:
        message = library().lathe_last_error().decode("utf-8", "replace")
        raise LatheError(message, library().lathe_status_name(status).decode())


def version() -> str:
    """Version of the library, e.g. "0.1.0"."""
    return library().lathe_version().decode()
