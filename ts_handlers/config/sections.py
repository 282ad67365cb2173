"""model-config.yaml's `handler:` section -> frozen dataclasses. Strict: a typo is an error when the model loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ts_handlers.config.settings import from_mapping, setting, shown
from ts_handlers.errors import ConfigError

ROOT = "model-config.yaml: handler"

DEFAULT_BODY_BYTES = 6_553_500
"""TorchServe's default of max_request_size and max_response_size."""

RESPONSE_ENV = "TS_HANDLERS_MAX_RESPONSE_SIZE"
"""Environment variable with the server's max_response_size, in bytes; `ts-handlers serve` sets it. Without it
a worker reads the file that the frontend was started with."""

_BYTES_PER_CHARACTER = 6
"""Most of a character in JSON: \\uXXXX. Those beyond need twelve bytes and count as two in UTF-16."""

_CHARACTERS_PER_TOKEN = 16
"""Taken for granted where many texts are bounded by their tokens; words are hardly longer."""

_FRAME_BYTES = 65_536
"""Room for what stands around an image: the lines of a form, JSON, line breaks of base64."""


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """`handler.runtime`: which engine runs the model, and how.

    Attributes:
        backend: Engine.
        file: Model file in the archive; by default the archive's serialized file.
        precision: What the model was built as; the torch backend casts to it (fp32 or bf16).
        target_cpu: CPU the build chose its integer types for, as `--target-cpu` has it; a worker on one that they are wrong
            for says so.
        providers: ONNX Runtime execution providers in order of preference. `auto` takes CUDA on a worker that was given
            a GPU and the CPU elsewhere; a provider named here and not available is an error.
        provider_options: One mapping for each provider, in the same order.
        graph_optimization_level: ONNX Runtime's level.
        share_weights: Whether several workers on CPUs map one copy of the packed weights, which the first of them writes
            beside the model (onnx backend).
        allow_spinning: Whether idle threads spin; by default only where every thread has a CPU of its own.
        output_names: Names for the outputs of a model that returns a tensor or a tuple (torch backend).
        output_keys: Where the model has each of output_names: a key of the mapping, a field, or a number of the tuple that
            it returns, so that others are left out. By default a mapping has its own names and a tuple is in order (torch
            backend).
        float_precision: What an INT8 model computes in where it has no integers (openvino backend).
        embedding_file: Table in the archive whose rows are looked up by input_ids and fed as inputs_embeds, so that no graph
            has a copy of it (openvino backend).
        max_memory_mb: Most memory of all graphs compiled for fixed shapes, in MiB; shapes past it share one graph (openvino
            backend).
    """

    backend: Literal["onnx", "openvino", "torch", "ipex"] = "onnx"
    file: str | None = None
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    target_cpu: str | None = None
    providers: Literal["auto"] | tuple[str, ...] = "auto"
    provider_options: tuple[Mapping[str, str], ...] = ()
    graph_optimization_level: Literal["disable", "basic", "extended", "all"] = "all"
    share_weights: bool = True
    allow_spinning: bool | None = None
    output_names: tuple[str, ...] = ("logits",)
    output_keys: tuple[str, ...] = ()
    float_precision: Literal["fp32", "bf16"] = "fp32"
    embedding_file: str | None = None
    max_memory_mb: int | None = setting(512, minimum=1)


@dataclass(frozen=True, slots=True)
class CpuConfig:
    """`handler.cpu`: the worker's share of the machine.

    Attributes:
        threads: Threads of every pool; by default floor(budget / workers), at least 1. TS_HANDLERS_THREADS goes before it.
        placement: `auto` gives each worker CPUs of its own, or where there are fewer CPUs than workers those of a node in
            common, unless something else has bound it; `none` leaves that to the kernel.
    """

    threads: int | None = setting(None, minimum=1)
    placement: Literal["auto", "none"] = "auto"


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """`handler.tokenizer`: texts to token ids. What is not set is read from tokenizer_config.json in the archive.

    Attributes:
        file: The tokenizers library's file.
        max_length: Most tokens of a sequence, special tokens included.
        truncation: Whether longer texts are cut; else they are answered with 413.
        truncation_side: Side on which they are cut.
        split_special_tokens: Whether special tokens' names in a text are read as text.
        pad_token_id: Id that fills padded positions.
        unk_token_id: Id of unknown tokens.
        input_names: Arrays that are made of a text: those that the model was trained with, of the three.
    """

    file: str = "tokenizer.json"
    max_length: int | None = setting(None, minimum=1)
    truncation: bool = False
    truncation_side: Literal["left", "right"] | None = None
    split_special_tokens: bool | None = None
    pad_token_id: int | None = setting(None, minimum=0)
    unk_token_id: int | None = setting(None, minimum=0)
    input_names: tuple[Literal["input_ids", "attention_mask", "token_type_ids"], ...] = (
        "input_ids",
        "attention_mask",
        "token_type_ids",
    )


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """`handler.image`: pictures to model inputs.

    Attributes:
        file: How pictures are resized and normalized.
        layout: Axes of the model's pixel_values.
        pixel_mask: Whether the model takes a pixel_mask, so that pictures of different sizes can share a call; by default
            whether the processor pads.
        reduces_jpeg: Whether a JPEG much larger than needed is decoded at a reduced scale: several times as fast, and a
            pixel that the model is fed differs by a few of 256 levels.
    """

    file: str = "preprocessor_config.json"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    pixel_mask: bool | None = None
    reduces_jpeg: bool = True


@dataclass(frozen=True, slots=True)
class BucketingConfig:
    """`handler.bucketing`: how sequences of different lengths share model calls.

    Attributes:
        max_batch_size: Most sequences in one call.
        max_padded_tokens: Most tokens in one call, padding included; a single longer sequence still runs, alone.
        max_padded_pixels: Most pixels of images in one call, the same way.
        boundaries: Lengths to pad to, ascending; empty: each call is padded to its own longest sequence.
        call_overhead_tokens: Fixed cost of one call, in the time of so many tokens; sequences are grouped where padding
            costs less than another call. Where it is not configured, `load_config` takes what was measured for the engine.
        call_overhead_pixels: The same for images, in pixels. Without any, only images of one size share a call: padding
            shows in a model's answer, a little, even under a mask.
        group_sizes: Numbers of sequences that calls are filled up to by repeating the last one, ascending; for engines with
            graphs compiled for some shapes.
    """

    max_batch_size: int = setting(8, minimum=1)
    max_padded_tokens: int = setting(2048, minimum=1)
    max_padded_pixels: int = setting(4_194_304, minimum=1)
    boundaries: tuple[int, ...] = setting((), minimum=1)
    call_overhead_tokens: float = setting(12.0, minimum=0)
    call_overhead_pixels: float = setting(0.0, minimum=0)
    group_sizes: tuple[int, ...] = setting((), minimum=1)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """`handler.limits`: what one request may carry; past them it is answered with 413.

    Attributes:
        max_instances: Instances in one request.
        max_text_length: Characters of one text, checked before it is tokenized.
        max_tokens: Tokens of all sequences of one request, the overlap of windows counted. A worker that takes longer for
            a batch than TorchServe's responseTimeout is killed, and its whole batch fails.
        max_image_bytes: Bytes of one image file.
        max_image_pixels: Width times height of one image, as its header says, and of what it is resized to.
        max_pixels: Pixels of all images of one request, as the model is fed them.
    """

    max_instances: int = setting(128, minimum=1)
    max_text_length: int = setting(100_000, minimum=1)
    max_tokens: int = setting(16_384, minimum=1)
    max_image_bytes: int = setting(20_000_000, minimum=1)
    max_image_pixels: int = setting(50_000_000, minimum=1)
    max_pixels: int = setting(33_554_432, minimum=1)

    def max_body_bytes(self, *, is_image: bool) -> int:
        """Return how large a body within these limits can be.

        That is one image in base64, a pair of the longest texts, or as many texts as their tokens allow; at least
        TorchServe's default.
        """
        if is_image:
            largest = -(-self.max_image_bytes // 3) * 4 + self.max_image_bytes // 50 + _FRAME_BYTES
        else:
            many = min(self.max_instances * self.max_text_length, self.max_tokens * _CHARACTERS_PER_TOKEN)
            largest = max(2 * self.max_text_length, many) * _BYTES_PER_CHARACTER
        return max(DEFAULT_BODY_BYTES, largest)


@dataclass(frozen=True, slots=True)
class WarmupConfig:
    """`handler.warmup`: shapes that are run before the worker reports ready.

    Attributes:
        lengths: Sequence lengths, each run with one sequence and with a full batch; by default the bucket boundaries,
            or a few lengths up to max_length.
        enabled: Whether to warm up at all.
    """

    lengths: tuple[int, ...] = setting((), minimum=1)
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """`handler.output` of a handler that has no such settings; tasks declare their own."""


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    """The whole `handler:` section.

    Attributes:
        task: Task the archive was built for; must be the handler's where both say one.
        profile: TorchServe's own switch: emit ts_handler_preprocess, _inference and _postprocess times.
        output: The task's own settings, of the handler's `output_config` class.
    """

    task: str | None = None
    profile: bool = False
    runtime: RuntimeConfig = RuntimeConfig()
    cpu: CpuConfig = CpuConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    image: ImageConfig = ImageConfig()
    bucketing: BucketingConfig = BucketingConfig()
    limits: LimitsConfig = LimitsConfig()
    warmup: WarmupConfig = WarmupConfig()
    output: Any = OutputConfig()


def load_config(model_config: Mapping[str, Any] | None, output_config: type = OutputConfig) -> HandlerConfig:
    """Read the `handler:` section of a parsed model-config.yaml.

    Args:
        model_config: The whole file as TorchServe parsed it; None or empty where there is none.
        output_config: Dataclass of `handler.output`.

    Raises:
        ConfigError: An unknown key, a wrong type or a value out of range, with its path.
    """
    section = (model_config or {}).get("handler", {})
    if not isinstance(section, Mapping):
        raise ConfigError(f"{ROOT} is {shown(section)}; it must be a mapping of settings")
    output: Any = from_mapping(output_config, section.get("output", {}), f"{ROOT}.output")
    rest = {key: value for key, value in section.items() if key != "output"}
    config = from_mapping(HandlerConfig, rest, ROOT)
    bucketing = config.bucketing
    if "call_overhead_tokens" not in rest.get("bucketing", {}):
        bucketing = dataclasses.replace(bucketing, call_overhead_tokens=call_overhead_tokens(config.runtime))
    return dataclasses.replace(config, output=output, bucketing=bucketing)


def call_overhead_tokens(runtime: RuntimeConfig) -> float:
    """Return what a call costs beside its tokens, in tokens, by the engine.

    A call of n sequences of L tokens is taken to cost a + b n L; the overhead is a / b. docs/performance.md has the figures.
    Workers do not measure it: those that start together disturb one another too much.
    """
    if runtime.backend != "onnx":
        return 16.0
    return 4.0 if runtime.precision == "int8" else 12.0
