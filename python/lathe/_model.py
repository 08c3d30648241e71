"""An open model."""

import ctypes
import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Optional, Union

from lathe import _library
from lathe._library import LatheError, check, library

Prompt = Union[str, Sequence[int]]


class Piece(NamedTuple):
    """A token of an answer and the text that became certain with it; the text may be empty."""

    token_id: int
    text: str


class Message(NamedTuple):
    """A turn of a conversation; dictionaries with these two keys do as well."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True)
class Completion:
    """A finished answer."""

    text: str
    token_ids: list[int]
    prompt_tokens: int
    finish_reason: str  # "stop", "length" or "cancelled"
    prefill_seconds: float
    decode_seconds: float


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model is; token ids are -1 where it has none."""

    architecture: str
    vocab_size: int
    context_size: int
    max_context_size: int
    layer_count: int
    hidden_size: int
    attention_head_count: int
    routed_expert_count: int
    experts_per_token: int
    parameter_count: int
    active_parameter_count: int
    cache_bytes_per_token: int
    weight_bytes: int
    cache_bytes: int
    scratch_bytes: int
    thread_count: int
    has_tokenizer: bool
    bos_token_id: int
    eos_token_id: int
    load_seconds: float


def _bytes_of(what: str, text: str) -> bytes:
    data = text.encode("utf-8")
    if b"\0" in data:
        raise LatheError(f"{what}: expected text without zero bytes, found some")
    return data


def _ids(ids: Sequence[int]) -> Any:
    for value in ids:
        if not -(2**31) <= value < 2**31:
            raise LatheError(f"ids: expected 32-bit integers, found {value}")
    return (ctypes.c_int32 * len(ids))(*ids)


def _choice(what: str, names: dict[str, int], name: str) -> int:
    if name not in names:
        raise LatheError(f"{what}: expected one of {', '.join(names)}, found {name!r}")
    return names[name]


def _generate_options(
    max_tokens: int = -1,
    temperature: Optional[float] = None,
    top_k: Optional[int] = None,
    top_p: Optional[float] = None,
    min_p: float = 0.0,
    repetition_penalty: Optional[float] = None,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    seed: Optional[int] = None,
    ignore_eos: bool = False,
    stop: Sequence[str] = (),
    dry_multiplier: Optional[float] = None,
    dry_base: Optional[float] = None,
    dry_allowed_length: Optional[int] = None,
    dry_penalty_last_n: int = -1,
    dry_sequence_breakers: Optional[Sequence[str]] = None,
) -> _library.GenerateOptions:
    if seed is not None and not 0 <= seed < 2**64:
        raise LatheError(f"seed: expected an integer from 0 to 2^64 - 1, found {seed}")

    def texts(what: str, given: Union[str, Sequence[str]]) -> Any:
        all_texts = [given] if isinstance(given, str) else given
        return (ctypes.c_char_p * len(all_texts))(*[_bytes_of(what, text) for text in all_texts])

    stops = texts("stop", stop)
    breakers = None if dry_sequence_breakers is None else texts("dry_sequence_breakers", dry_sequence_breakers)

    def given(value: Any) -> Any:
        return _library.MODEL_DEFAULT if value is None else value

    return _library.GenerateOptions(
        struct_size=ctypes.sizeof(_library.GenerateOptions),
        max_tokens=max_tokens,
        temperature=given(temperature),
        top_k=given(top_k),
        top_p=given(top_p),
        min_p=min_p,
        repetition_penalty=given(repetition_penalty),
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed or 0,
        use_seed=seed is not None,
        ignore_eos=ignore_eos,
        stop=stops,
        stop_count=len(stops),
        dry_multiplier=given(dry_multiplier),
        dry_base=given(dry_base),
        dry_allowed_length=given(dry_allowed_length),
        dry_penalty_last_n=dry_penalty_last_n,
        dry_sequence_breakers=breakers,
        dry_sequence_breaker_count=0 if breakers is None else len(breakers),
    )


class Model:
    """A model: a folder in HuggingFace layout, or ORG/NAME of one in the local hub cache.

    Usable from several threads, whose calls wait for one another, and as a context manager. `temperature`, `top_k`,
    `top_p` and `repetition_penalty` are the model's own where they are not given; without `seed` an answer is random.
    """

    def __init__(
        self,
        name: Union[str, "os.PathLike[str]"],
        *,
        context_size: int = 0,
        threads: int = 0,
        cache_type: str = "auto",
        compute: str = "auto",
        weight_type: Optional[str] = None,
        packed_folder: Union[str, "os.PathLike[str]", None] = None,
    ):
        self._handle: Optional[int] = None
        self._lock = threading.Lock()
        self._calls = 0
        options = _library.OpenOptions(
            struct_size=ctypes.sizeof(_library.OpenOptions),
            context_size=context_size,
            threads=threads,
            cache_type=_choice("cache_type", _library.CACHE_TYPES, cache_type),
            compute=_choice("compute", _library.COMPUTE, compute),
            weight_type=None if weight_type is None else _bytes_of("weight_type", weight_type),
            packed_folder=None if packed_folder is None else os.fsencode(packed_folder),
        )
        handle = ctypes.c_void_p()
        check(library().lathe_open(os.fsencode(name), ctypes.byref(options), ctypes.byref(handle)))
        self._handle = handle.value

    def close(self) -> None:
        """Frees the model. Refused while a call or a stream of it is on its way; closing twice is fine."""
        with self._lock:
            if self._calls:
                raise LatheError(f"close: expected no call on its way, found {self._calls}")
            handle, self._handle = self._handle, None
        if handle is not None:
            library().lathe_close(handle)

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            library().lathe_close(self._handle)

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        with self._lock:
            if self._handle is None:
                raise LatheError("model: expected an open one, found a closed one")
            self._calls += 1
            handle = self._handle
        try:
            check(function(handle, *arguments))
        finally:
            with self._lock:
                self._calls -= 1

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        raw = _library.ModelInfoStruct(struct_size=ctypes.sizeof(_library.ModelInfoStruct))
        self._call(library().lathe_get_model_info, ctypes.byref(raw))
        values = {field.name: getattr(raw, field.name) for field in dataclasses.fields(ModelInfo)}
        values["architecture"] = values["architecture"].decode("utf-8", "replace")
        values["has_tokenizer"] = bool(values["has_tokenizer"])
        return ModelInfo(**values)

    def tokenize(self, text: str, *, add_bos: bool = False, recognise_special: bool = False) -> list[int]:
        """Token ids of `text`. Special tokens stay text unless `recognise_special`; never for strangers' text."""
        flags = add_bos * _library.TOKENIZE_ADD_BOS | recognise_special * _library.TOKENIZE_RECOGNISE_SPECIAL
        data = text.encode("utf-8")
        ids, count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        self._call(library().lathe_tokenize, data, len(data), flags, ctypes.byref(ids), ctypes.byref(count))
        try:
            return ids[: count.value]
        finally:
            library().lathe_free(ids)

    def detokenize(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Text of token ids."""
        flags = keep_special * _library.DETOKENIZE_KEEP_SPECIAL
        text, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._call(library().lathe_detokenize, _ids(ids), len(ids), flags, ctypes.byref(text), ctypes.byref(size))
        try:
            return ctypes.string_at(text, size.value).decode("utf-8", "replace")
        finally:
            library().lathe_free(text)

    def generate(
        self, prompt: Prompt, *, on_piece: Optional[Callable[[Piece], Any]] = None, **options: Any
    ) -> Completion:
        """Continues a text, or token ids as they are.

        Options: max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty,
        seed, ignore_eos, stop, dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n, dry_sequence_breakers.
        `on_piece` is called for every token; False from it ends the answer, and what it raises is raised here.
        """
        function, head = self._prompt(prompt)
        return self._answer(function, head, options, on_piece)

    def chat(
        self,
        messages: Sequence[Union[Message, dict[str, str]]],
        *,
        on_piece: Optional[Callable[[Piece], Any]] = None,
        **options: Any,
    ) -> Completion:
        """Answers a conversation through the model's chat template; otherwise as generate()."""
        return self._answer(library().lathe_chat, self._messages(messages), options, on_piece)

    def stream(self, prompt: Prompt, **options: Any) -> Iterator[Piece]:
        """The pieces of generate() as they come. Leaving the loop early ends the answer."""
        function, head = self._prompt(prompt)
        return self._stream(function, head, options)

    def stream_chat(self, messages: Sequence[Union[Message, dict[str, str]]], **options: Any) -> Iterator[Piece]:
        """The pieces of chat() as they come; see stream()."""
        return self._stream(library().lathe_chat, self._messages(messages), options)

    def logits(self, ids: Sequence[int], *, last: bool = False) -> memoryview:
        """Scores of the next token after each of `ids`, or after the last one alone: floats [rows, vocab_size].

        Indexed as view[row, id]; numpy.asarray(view) makes an array of it without a copy.
        """
        rows = 1 if last else len(ids)
        vocab_size = self.info.vocab_size
        values = (ctypes.c_float * (rows * vocab_size))()
        which = _library.LOGITS_LAST if last else _library.LOGITS_ALL
        self._call(library().lathe_logits, _ids(ids), len(ids), which, values, len(values))
        return memoryview(values).cast("B").cast("f", shape=[rows, vocab_size])

    @staticmethod
    def _prompt(prompt: Prompt) -> tuple[Callable[..., int], tuple[Any, int]]:
        if isinstance(prompt, str):
            data = prompt.encode("utf-8")
            return library().lathe_generate, (data, len(data))
        return library().lathe_generate_ids, (_ids(prompt), len(prompt))

    @staticmethod
    def _messages(messages: Sequence[Union[Message, dict[str, str]]]) -> tuple[Any, int]:
        turns = [Message(**turn) if isinstance(turn, dict) else Message(*turn) for turn in messages]
        raw = [(_bytes_of("role", turn.role), _bytes_of("content", turn.content)) for turn in turns]
        return (_library.MessageStruct * len(raw))(*raw), len(raw)

    def _answer(
        self,
        function: Callable[..., int],
        head: tuple[Any, int],
        options: dict[str, Any],
        on_piece: Optional[Callable[[Piece], Any]],
    ) -> Completion:
        raised: list[BaseException] = []

        def on_token(_user: Any, token_id: int, text: int, size: int) -> int:
            try:
                piece = Piece(token_id, ctypes.string_at(text, size).decode("utf-8", "replace"))
                return int(on_piece is not None and on_piece(piece) is False)
            except BaseException as error:  # it must not unwind through the library
                raised.append(error)
                return 1

        callback = _library.TOKEN_CALLBACK(on_token) if on_piece is not None else _library.TOKEN_CALLBACK()
        raw = _library.CompletionStruct(struct_size=ctypes.sizeof(_library.CompletionStruct))
        typed = _generate_options(**options)
        self._call(function, *head, ctypes.byref(typed), callback, None, ctypes.byref(raw))
        try:
            if raised:
                raise raised[0]
            return Completion(
                text=ctypes.string_at(raw.text, raw.text_size).decode("utf-8", "replace"),
                token_ids=raw.token_ids[: raw.token_count],
                prompt_tokens=raw.prompt_token_count,
                finish_reason=_library.FINISH_REASONS.get(raw.finish_reason, "length"),
                prefill_seconds=raw.prefill_seconds,
                decode_seconds=raw.decode_seconds,
            )
        finally:
            library().lathe_free(raw.text)
            library().lathe_free(raw.token_ids)

    def _stream(self, function: Callable[..., int], head: tuple[Any, int], options: dict[str, Any]) -> Iterator[Piece]:
        pieces: "queue.SimpleQueue[Union[Piece, BaseException, None]]" = queue.SimpleQueue()
        left = threading.Event()

        def on_piece(piece: Piece) -> bool:
            pieces.put(piece)
            return not left.is_set()

        def work() -> None:
            try:
                self._answer(function, head, options, on_piece)
                pieces.put(None)
            except BaseException as error:  # raised where the pieces are read
                pieces.put(error)

        worker = threading.Thread(target=work, name="lathe-stream", daemon=True)
        worker.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            left.set()
            worker.join()
