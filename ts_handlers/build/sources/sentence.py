"""A sentence-transformers folder, read by sentence-transformers itself: all that it says is honoured, or refused by name."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from ts_handlers.build.sources.model import read_json
from ts_handlers.errors import OperatorError, all_lines

MODULES_FILE = "modules.json"

_CHAINS = (("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize"))
"""Modules that the handler has, in the order that it has them in."""


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """What sentence-transformers makes of a folder.

    Attributes:
        encoder: Its SentenceTransformer, on the CPU.
        folder: The checkpoint's own folder, which may be one within it.
        tokenizer: Its tokenizer, with the maximum length and the lower-casing that the folder asks for.
        output: `handler.output`: pooling, normalize, truncate_dim.
    """

    encoder: Any
    folder: Path
    tokenizer: Any
    output: dict[str, Any]

    def embed(self, text: str) -> Any:
        """Return the embedding of a text, `(hidden,) float32`."""
        return self.encoder.encode(text, show_progress_bar=False)


def read_sentence_model(folder: Path) -> SentenceModel | None:
    """Read a folder; None where it is none of sentence-transformers'.

    Raises:
        OperatorError: It has a step that the handler does not have, or cannot be read.
    """
    if not (folder / MODULES_FILE).is_file():
        return None
    modules = read_json(folder / MODULES_FILE)
    try:
        kinds = tuple(str(module["type"]).rsplit(".", 1)[-1] for module in modules)
        own = [
            str(module["type"]) for module in modules if not str(module["type"]).startswith("sentence_transformers.")
        ]
        inner = folder / str(modules[0]["path"])
    except (TypeError, KeyError, IndexError) as error:
        raise OperatorError(f"{folder / MODULES_FILE} is no list of modules with a type and a path") from error
    if own:
        raise OperatorError(
            f"{folder} needs code of its own ({', '.join(own)}), and a build never runs a folder's code"
        )
    if kinds not in _CHAINS:
        raise OperatorError(
            f"{folder} has the sentence-transformers modules {', '.join(kinds)}; Transformer, Pooling and, after them, "
            "Normalize are served: remove the others, or serve it with a handler of your own"
        )
    encoder = _load(folder)
    pooling = encoder[1].pooling_mode
    if not isinstance(pooling, str):
        raise OperatorError(f"{folder} pools by {' and '.join(pooling)} together; one of them is served")
    if prompt := (encoder.prompts or {}).get(encoder.default_prompt_name or ""):
        raise OperatorError(
            f"{folder} puts the prompt {prompt!r} before every text (default_prompt_name in "
            "config_sentence_transformers.json); that is not served: remove it, and let clients send it"
        )
    output: dict[str, Any] = {"pooling": pooling, "normalize": len(kinds) == 3}
    if encoder.truncate_dim is not None:
        output["truncate_dim"] = int(encoder.truncate_dim)
    return SentenceModel(encoder, inner, encoder.tokenizer, output)


def _load(folder: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own future, not of the folder
            import sentence_transformers
    except ImportError as error:
        raise OperatorError(
            f"{folder} is of sentence-transformers, which is not installed here; install ts_handlers[build]"
        ) from error
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # the build prints its own steps
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sentence_transformers.SentenceTransformer(
                str(folder), device="cpu", trust_remote_code=False, local_files_only=True
            ).eval()
    except Exception as error:  # a folder can be broken in many ways
        raise OperatorError(f"sentence-transformers cannot load {folder}: {all_lines(error)}") from error
