"""InferenceHandler: the whole data path. Read this file first; a handler of your own needs nothing else.

    rows -> decode -> transform -> plan_batches -> pad_batch -> session.run -> split_batch -> format -> responses

A row is one request of a TorchServe batch; it holds one instance or many. What a model call holds is an input.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ts_handlers import startup
from ts_handlers.batching.bucketing import BatchPlan, check_boundaries, check_group_sizes
from ts_handlers.batching.calls import ModelCalls, padding_ratio
from ts_handlers.batching.padding import ModelInput
from ts_handlers.batching.pipeline import Pipeline, can_interleave
from ts_handlers.batching.row import Row, open_rows
from ts_handlers.batching.transforms import Transforms
from ts_handlers.config.sections import HandlerConfig, OutputConfig, load_config
from ts_handlers.errors import (
    DeviceLostError,
    InferenceError,
    OperatorError,
    RequestError,
)
from ts_handlers.hosts.torchserve import answers, metrics
from ts_handlers.hosts.torchserve.base import BaseHandler, join_worker, timed
from ts_handlers.hosts.torchserve.lost_device import end_worker
from ts_handlers.hosts.torchserve.served import ServedModel, check_communication
from ts_handlers.machine import CpuShare, change_threads, limit_threads
from ts_handlers.requests.headers import Headers, guess_protocol
from ts_handlers.requests.payload import InstanceType, Reading, parse_request
from ts_handlers.requests.response import Answer, encode_error, encode_response
from ts_handlers.runtime import ModelFiles, Session, open_session
from ts_handlers.shapes import Array

logger = logging.getLogger(__name__)


class InferenceHandler(BaseHandler):
    """A TorchServe handler for many instances a row and many rows a batch.

    TorchServe's three steps call the hooks for every instance of every row: `preprocess` calls `decode`, `inference` calls
    `transform` and runs the model, `postprocess` calls `format`. Override the hooks and not the steps: what a hook raises
    fails its own row, what a step raises fails the batch.

    Override `decode`, `transform` and `format`, and, rarely, `open_session` and `prepare`. Nothing about a request is
    stored on the handler; everything else is built once, in `initialize`.

    Attributes:
        task: Name of the task, compared with `handler.task` of the archive.
        instance_type: What the bytes of a request are: text, or images.
        options: Keys that an instance's JSON object, or a form, may have beside an image.
        output_config: Dataclass of `handler.output`.
        sequence_outputs: Model outputs with the sequence as their second axis; they are returned without padding.
        interleaves: Whether examples are transformed while the model computes on others, where that gains something.
        config: The archive's `handler:` section.
        model_dir: The unpacked archive.
        calls: Makes the model calls.
        session: The loaded model.
        share: The worker's share of the CPUs.
    """

    task: ClassVar[str | None] = None
    instance_type: ClassVar[InstanceType] = "text"
    options: ClassVar[Sequence[str]] = ()
    output_config: ClassVar[type] = OutputConfig
    sequence_outputs: ClassVar[Collection[str]] = ()
    interleaves: ClassVar[bool] = False

    config: HandlerConfig
    model_dir: Path
    calls: ModelCalls
    session: Session
    share: CpuShare

    # What a team overrides

    def prepare(self) -> None:
        """Read what the handler needs from `self.model_dir` (a tokenizer, labels), before the session is opened."""

    def decode(self, instance: Any) -> Any:
        """Return the example of one instance as the client sent it.

        Raises:
            RequestError: 400, the instance is not of a form this task takes.
        """
        return instance

    def transform(self, example: Any) -> Sequence[ModelInput]:
        """Return the unpadded model inputs of one example.

        Raises:
            RequestError: 400 or 413, the example does not fit the model.
        """
        raise NotImplementedError(f"{type(self).__name__} must override transform")

    def format(self, example: Any, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]) -> Any:
        """Return the prediction of one example, as JSON can carry it (numpy included).

        Args:
            example: What `decode` returned.
            inputs: What `transform` returned.
            outputs: The model's outputs for each input, without batch axis and padding.
        """
        raise NotImplementedError(f"{type(self).__name__} must override format")

    def open_session(self, files: ModelFiles) -> Session:
        """Load the model."""
        return open_session(self.config.runtime, files, self.share, self.calls.shapes)

    def warmup_input(self, length: int) -> ModelInput | None:
        """Return an input of this length to warm up with; None: no warm-up."""
        del length
        return None

    # Once a worker

    def initialize(self, context: Any) -> None:
        """Load the model: config, place and CPU share, thread limits, session, warm-up, one log line.

        Raises:
            OperatorError: What the operator must change. TorchServe reports no other exception as a failed load.
        """
        try:
            self._initialize(context)
        except (OperatorError, MemoryError):
            raise
        except Exception as error:
            raise OperatorError(f"{type(self).__name__} cannot be loaded: {type(error).__name__}: {error}") from error

    def _initialize(self, context: Any) -> None:
        self.context = context
        self.manifest = context.manifest or {}
        self._served = served = ServedModel.of(context)
        self.model_dir = served.files.model_dir
        self.config = load_config(context.model_yaml_config, self.output_config)
        startup.check_task(self.config, self.task, type(self).__name__)
        check_communication(context.model_yaml_config or {}, self.handle)
        self._placement = startup.take_place(
            self.config.cpu,
            f"{served.name} {served.version}",
            context.model_yaml_config or {},
            owns_process=served.owns_process,
        )
        self.share = self._placement.place.share
        limit_threads(self.share.threads)
        self.prepare()
        check_boundaries(self.config.bucketing.boundaries, self.max_length)
        check_group_sizes(self.config.bucketing.group_sizes)
        self.calls = ModelCalls(
            self.config.bucketing, self.pad_values, self.sequence_outputs, pads_images=self.pads_images
        )
        self._transforms = Transforms(*self.request_limit)
        self._pipeline = Pipeline(self._transforms, self.calls)
        limits = self.config.limits
        self._reading = Reading(
            self.instance_type,
            limits.max_instances,
            limits.max_body_bytes(is_image=self.instance_type == "image"),
            self.options,
        )
        self.session = self.open_session(served.files)
        self._metrics = join_worker(context.metrics, owns_process=served.owns_process)
        warmed = startup.warm_up(self.config, self.max_length, self.warmup_input, self._warm_up)
        calls = startup.describe_calls(self.config.bucketing, self.instance_type, pads_images=self.pads_images)
        name, place = self.task or type(self).__name__, self._placement.describe()
        logger.info("%s", startup.decisions(name, self.config, calls, self.session.describe(), place, warmed))
        self.initialized = True

    # Every batch

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer one batch; TorchServe's entry point.

        Returns:
            One JSON body a row, in order. A row that failed has its own status and an error body.
        """
        started = time.perf_counter()
        self._metrics.begin_batch()
        self._follow_machine()
        if os.environ.get("ENABLE_TORCH_PROFILER"):
            responses, _ = self._infer_with_profiler(data=data)
        else:
            responses = self.postprocess(self.inference(self.preprocess(data)))
        if self._metrics.is_sampled:
            seconds = time.perf_counter() - started
            self._metrics.observe(metrics.BATCH_SECONDS, round(seconds, 6))
            context.metrics.add_time("HandlerTime", round(seconds * 1000, 2), None, "ms")
        return list(responses)

    @timed  # type: ignore[untyped-decorator]  # TorchServe has no types
    def preprocess(self, data: list[dict[str, Any]]) -> list[Row]:
        """Decode each row; a row that fails keeps its error."""
        rows = [Row() for _ in data]
        with self._metrics.timed(metrics.DECODE_SECONDS):
            for index, row in enumerate(rows):
                row.attempt(self._decode_row, row, data[index], index)
        return rows

    @timed  # type: ignore[untyped-decorator]
    def inference(self, data: list[Row], *args: Any, **kwargs: Any) -> list[Row]:
        """Transform the examples of all rows and run the model on their inputs, in few calls with little padding.

        Examples are transformed while the model computes on others, where the task allows it and threads are free for it;
        else all of them are transformed first.
        """
        del args, kwargs
        if self.interleaves and can_interleave(self.session, data, self.num_parallel_transforms):
            self._transform_and_run(data)
        else:
            with self._metrics.timed(metrics.TRANSFORM_SECONDS):
                self._transforms.run(list(open_rows(data)), self.transform, self.num_parallel_transforms)
            self._run(data)
        return data

    @timed  # type: ignore[untyped-decorator]
    def postprocess(self, data: list[Row]) -> list[bytes]:
        """Format each row in the protocol of its request, set its status, and count what was rejected."""
        with self._metrics.timed(metrics.FORMAT_SECONDS):
            for row in open_rows(data):
                row.attempt(self._format_row, row)
        self._metrics.observe(metrics.BATCH_FILL, round(len(data) / self._served.batch_size, 4))
        return [self._finish_row(row, index) for index, row in enumerate(data)]

    # Below: the steps of the above

    def _follow_machine(self) -> None:
        """Take another share of the CPUs where workers came or went, or the cpuset or the quota was changed."""
        place = self._placement.follow()
        if place is None:
            return
        before, self.share = self.share, place.share
        try:
            if self.share.threads != before.threads:
                change_threads(self.share.threads)
            self.session.change_threads(self.share)
        except Exception:  # the batch at hand must not pay for it
            logger.exception("threads could not follow; the worker goes on with those it has")

    def _decode_row(self, row: Row, data: Mapping[str, Any], index: int) -> None:
        headers = self.context.get_all_request_header(index)
        row.answer = answers.describe_answer(headers, self.describe_handle)
        if row.answer is not None:
            return
        sent = Headers.of(headers)
        try:
            row.request = parse_request(data, sent, self._reading)
        except RequestError:
            row.protocol = guess_protocol(data, sent)
            raise
        row.protocol = row.request.protocol
        row.examples = [
            row.call(number, self.decode, instance) for number, instance in enumerate(row.request.instances)
        ]

    def _transform_and_run(self, rows: Sequence[Row]) -> None:
        done = self._pipeline.run(rows, self.transform, self.session, self.num_parallel_transforms)
        self._metrics.observe(metrics.TRANSFORM_SECONDS, round(done.transform_s, 6))
        self._metrics.observe(metrics.RUN_SECONDS, round(done.run_s, 6))
        self._metrics.observe(metrics.PADDED_TOKENS, round(done.padding, 4))

    def _run(self, rows: Sequence[Row]) -> None:
        examples = [(row, inputs) for row in open_rows(rows) for inputs in row.inputs]
        flat = [item for _, inputs in examples for item in inputs]
        plans = self.calls.plan(self.session, flat)
        with self._metrics.timed(metrics.RUN_SECONDS):
            results = iter(self.calls.run(self.session, flat, plans))
        self._metrics.observe(metrics.PADDED_TOKENS, round(padding_ratio(flat, plans), 4))
        for row, inputs in examples:
            row.outputs.append([row.take(next(results)) for _ in inputs])

    def _warm_up(self, inputs: Sequence[ModelInput], plan: BatchPlan) -> None:
        for num_parallel in {1, self.session.max_parallel}:
            self.calls.run_call(self.session, inputs, plan, num_parallel)

    def _format_row(self, row: Row) -> None:
        if row.request is None:
            raise InferenceError("the row was not decoded", code="not_decoded")
        predictions = [
            row.call(index, self.format, *parts)
            for index, parts in enumerate(zip(row.examples, row.inputs, row.outputs, strict=True))
        ]
        row.answer = encode_response(
            row.request,
            predictions,
            model_name=self._served.name,
            model_version=self._served.version,
        )

    def _finish_row(self, row: Row, index: int) -> bytes:
        if isinstance(row.error, DeviceLostError) and self._served.owns_process:
            end_worker(row.error)
        answer = row.answer or Answer(b"")
        if row.error is None:
            row.attempt(answers.check_size, answer, self._served.max_response_bytes)
        if row.error is not None:
            self.context.set_response_status(row.error.status, row.error.phrase, index)
            self._metrics.observe(metrics.REJECTED_ROWS, 1, row.error.code)
            answer = Answer(encode_error(row.error, row.protocol))
        return answers.send(self.context, index, answer)

    @property
    def pad_values(self) -> Mapping[str, int]:
        """Fill of each model input where it is padded; 0 for those it does not name."""
        return {}

    @property
    def max_length(self) -> int | None:
        """Longest sequence the model takes, in tokens; None where there is no limit."""
        return None

    @property
    def request_limit(self) -> tuple[int, str]:
        """Most of what the inputs' lengths count in one request, and what that is."""
        return self.config.limits.max_tokens, "tokens"

    @property
    def num_parallel_transforms(self) -> int:
        """How many examples are transformed at the same time; more than one where `transform` lets other threads run."""
        return 1

    @property
    def pads_images(self) -> bool:
        """Whether images of different sizes may share a call, padded."""
        return False

    def describe_handle(self) -> dict[str, Any]:
        """Answer TorchServe's describe request (`GET /models/NAME?customized=true`)."""
        return {"task": self.task, "runtime": self.session.describe(), "threads": self.share.threads}

    def _is_explain(self) -> bool:
        return False  # rows are routed one by one, in _decode_row
