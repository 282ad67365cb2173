"""Texts -> unpadded token ids, with the tokenizers library alone: a worker does not import transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, models, processors

from ts_handlers.batching.padding import ModelInput
from ts_handlers.config.reading import load_json
from ts_handlers.config.sections import TokenizerConfig
from ts_handlers.errors import ConfigError, PayloadTooLargeError, RequestError

NO_MAX_LENGTH = 10**6
"""transformers writes a number far above this one where a tokenizer has no maximum."""

_FILLER = "a"
"""Repeated, it makes a text of any length."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that padding and decoding need; None where the tokenizer has none."""

    pad: int | None
    unk: int | None
    cls: int | None


class TextTokenizer:
    """A tokenizer.json with the limits of one model.

    Each text is tokenized once, without special tokens; then it is cut, and the special tokens are put around what is left.
    Cutting by `Tokenizer.enable_truncation` would change the tokenizer for every thread that uses it meanwhile.

    Attributes:
        max_length: Most tokens of a sequence, special tokens included; None: no limit.
        special: Ids of its special tokens.
        pad_values: Fill of each model input where a sequence is padded.
        has_subword_prefix: Whether the model marks tokens that continue a word (WordPiece's ##).
    """

    def __init__(self, model_dir: Path, config: TokenizerConfig) -> None:
        file = model_dir / config.file
        if not file.is_file():
            raise ConfigError(f"{config.file} is not in the archive; add it, or name it in handler.tokenizer.file")
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._finisher = _finisher_of(self._tokenizer)
        self._tokenizer.post_processor = None
        settings = _read_settings(model_dir / "tokenizer_config.json")
        self._input_names = config.input_names
        self._tokenizer.encode_special_tokens = _chosen(
            config.split_special_tokens, settings, "split_special_tokens", False
        )
        self._direction: str = _chosen(config.truncation_side, settings, "truncation_side", "right")
        self.max_length = config.max_length or _max_length(settings)
        self.special = SpecialTokens(
            pad=self._special_id(config.pad_token_id, settings, "pad_token"),
            unk=self._special_id(config.unk_token_id, settings, "unk_token"),
            cls=self._special_id(None, settings, "cls_token"),
        )
        if self.special.pad is None:
            raise ConfigError("the tokenizer names no padding token; set handler.tokenizer.pad_token_id")
        self.pad_values: Mapping[str, int] = {"input_ids": self.special.pad, "attention_mask": 0, "token_type_ids": 0}
        self.has_subword_prefix = bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))
        self._truncation = config.truncation

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """Tokenize a text or a pair of texts.

        Raises:
            PayloadTooLargeError: 413, more tokens than `max_length`, unless truncation is on.
        """
        parts = self._tokenize(text, pair)
        length = sum(map(len, parts)) + self._num_special_tokens(is_pair=pair is not None)
        if self.max_length is not None and length > self.max_length:
            if not self._truncation:
                raise PayloadTooLargeError(
                    f"the text has {length} tokens; this model takes {self.max_length}: shorten it",
                    code="text_too_long",
                )
            self._truncate(parts, self.max_length)
        return self._finish(parts)

    def encode_windows(self, text: str, context: str | None, *, window_length: int, stride: int) -> list[Encoding]:
        """Tokenize into overlapping windows of at most `window_length` tokens.

        Args:
            text: Text to cut, or the question that every window begins with where there is a context.
            context: Text to cut in the second case.
            window_length: Most tokens of a window, special tokens included.
            stride: Tokens that one window shares with the next.

        Raises:
            PayloadTooLargeError: 413, the question leaves no room for more than `stride` tokens of context.
        """
        parts = self._tokenize(text, context)
        room = window_length - self._num_special_tokens(is_pair=context is not None) - sum(map(len, parts[:-1]))
        if context is not None and room <= stride:
            raise PayloadTooLargeError(
                f"the question leaves room for {max(room, 0)} tokens of context in a window of {window_length}; "
                "shorten it",
                code="text_too_long",
            )
        self._cut(parts[-1], room, stride)
        return [self._finish([*parts[:-1], window]) for window in (parts[-1], *parts[-1].overflowing)]

    def filler(self, length: int, *, is_pair: bool = False) -> Encoding:
        """Return an encoding of `length` tokens of no meaning, made as every other is, special tokens included.

        Where a sequence cannot be so short, it is the shortest that has a token of a text.
        """
        length = max(length, self._num_special_tokens(is_pair=is_pair) + (2 if is_pair else 1))
        text = " ".join([_FILLER] * length)
        parts = self._tokenize(_FILLER, text) if is_pair else self._tokenize(text, None)
        self._truncate(parts, length)
        return self._finish(parts)

    def check_stride(self, stride: int, name: str, window_length: int | None, *, is_pair: bool = False) -> None:
        """Refuse a stride that leaves every window no token of its own, with which the tokenizers library panics.

        Args:
            stride: Tokens that one window shares with the next.
            name: Its setting.
            window_length: Most tokens of a window, special tokens included; None: there are no windows.
            is_pair: Whether each window begins with another text, which has one token at least.

        Raises:
            ConfigError: It is too large.
        """
        if window_length is None:
            return
        room = window_length - self._num_special_tokens(is_pair=is_pair) - (1 if is_pair else 0)
        if stride >= room:
            raise ConfigError(f"{name} is {stride}; windows of {window_length} tokens share less than {room}")

    def tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens to text as the tokenizer's decoder does."""
        decoder = self._tokenizer.decoder
        return str(decoder.decode(list(tokens))) if decoder is not None else " ".join(tokens)

    def to_model_input(self, encoding: Encoding) -> ModelInput:
        """Return the arrays of an encoding that the model was trained with, each `(seq_len,) int64`."""
        ids = np.asarray(encoding.ids, dtype=np.int64)
        made = {
            "input_ids": lambda: ids,
            "attention_mask": lambda: np.ones_like(ids),
            "token_type_ids": lambda: np.asarray(encoding.type_ids, dtype=np.int64),
        }
        return ModelInput({name: made[name]() for name in self._input_names}, len(ids), encoding)

    def _tokenize(self, *texts: str | None) -> list[Encoding]:
        """Return the tokens of each text that is one, special tokens left out."""
        return [self._tokenizer.encode(text) for text in texts if text is not None]

    def _finish(self, parts: Sequence[Encoding]) -> Encoding:
        """Put the special tokens around a text or a pair of texts."""
        return self._finisher.post_process(parts[0], parts[1] if len(parts) > 1 else None)

    def _num_special_tokens(self, *, is_pair: bool) -> int:
        return int(self._finisher.num_special_tokens_to_add(is_pair))

    def _truncate(self, parts: Sequence[Encoding], max_length: int) -> None:
        """Cut a text or a pair until it fits, the longer one first: what the tokenizers library calls longest_first."""
        most = max(0, max_length - self._num_special_tokens(is_pair=len(parts) > 1))
        shorter, longer = min(map(len, parts)), max(map(len, parts))
        if len(parts) == 1:
            self._cut(parts[0], most)
        elif shorter + longer > most:
            # Both are cut to a half where the shorter one is longer than that; of an odd number the longer one has more.
            shorter = min(shorter, most // 2)
            kept = (shorter, most - shorter)
            for part, length in zip(parts, kept if len(parts[0]) <= len(parts[1]) else kept[::-1], strict=True):
                self._cut(part, length)

    def _cut(self, part: Encoding, length: int, stride: int = 0) -> None:
        if len(part) > length:
            part.truncate(length, stride=stride, direction=self._direction)

    def _special_id(self, configured: int | None, settings: Mapping[str, Any], name: str) -> int | None:
        if configured is not None:
            return configured
        token = settings.get(name)
        content = token.get("content") if isinstance(token, Mapping) else token
        return None if content is None else self._tokenizer.token_to_id(content)


def _finisher_of(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer of an empty vocabulary, for what a tokenizer does after a text is cut: it adds special tokens."""
    finisher = Tokenizer(models.BPE())
    types = processors.TemplateProcessing(
        single="$A", pair="$A $B:1", special_tokens=[]
    )  # texts come one by one: all 0
    after = tokenizer.post_processor
    finisher.post_processor = types if after is None else processors.Sequence([types, after])
    return finisher


def _chosen(configured: Any, settings: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a setting as the archive has it, else as tokenizer_config.json has it, else the default."""
    if configured is not None:
        return configured
    found = settings.get(name)
    return default if found is None else found


def require_tokens(encoding: Encoding, *names: str) -> None:
    """Refuse texts of which no token is left: a tokenizer drops control characters, and some drop blanks.

    Args:
        encoding: The encoding of the texts together.
        names: What each text is called in an error.

    Raises:
        RequestError: 400, there is such a text.
    """
    found = set(encoding.sequence_ids)
    for number, name in enumerate(names):
        if number not in found:
            raise RequestError(
                f"{name} becomes no token: it has only blanks or characters that the model does not read; send words",
                code="empty_text",
            )


def _read_settings(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        settings = load_json(file, any_number=True)
    except ValueError as error:
        raise ConfigError(f"{file.name} cannot be read: {error}; build the model again") from error
    return settings if isinstance(settings, Mapping) else {}


def _max_length(settings: Mapping[str, Any]) -> int | None:
    value = settings.get("model_max_length")
    return int(value) if isinstance(value, (int, float)) and 0 < value < NO_MAX_LENGTH else None
