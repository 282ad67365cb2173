"""Text tasks: one class each, a few overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from ts_handlers.batching.padding import ModelInput
from ts_handlers.config.labels import read_labels
from ts_handlers.config.tasks import AnswerOutput, ClassificationOutput, EmbeddingOutput, EntityOutput
from ts_handlers.errors import PayloadTooLargeError, RequestError
from ts_handlers.handler import InferenceHandler
from ts_handlers.nlp.entities import TokenizedText, aggregate_entities, merge_windows
from ts_handlers.nlp.spans import best_answers, window_from_encoding
from ts_handlers.nlp.tokenization import TextTokenizer, require_tokens
from ts_handlers.outputs import default_function, embed, require_finite, score_labels
from ts_handlers.shapes import Array


class TextExample(NamedTuple):
    """A text, or a pair of texts."""

    text: str
    pair: str | None = None


class TextHandler(InferenceHandler):
    """What the text tasks share: a tokenizer, and instances that are texts.

    Attributes:
        takes_pairs: Whether an instance can be a pair of texts.
        is_pair: Whether it always is one.
        tokenizer: The archive's.
    """

    takes_pairs: ClassVar[bool] = False
    is_pair: ClassVar[bool] = False
    tokenizer: TextTokenizer

    def prepare(self) -> None:
        """Load the tokenizer."""
        self.tokenizer = TextTokenizer(self.model_dir, self.config.tokenizer)

    @property
    def pad_values(self) -> Mapping[str, int]:
        """The padding token's id for input_ids, 0 elsewhere."""
        return self.tokenizer.pad_values

    @property
    def max_length(self) -> int | None:
        """Longest sequence, in tokens."""
        return self.tokenizer.max_length

    def decode(self, instance: Any) -> Any:
        """Take a string or {"text"}, and, where the task has pairs, {"text", "text_pair"}; return a `TextExample`.

        Raises:
            RequestError: 400, anything else, an empty text, or one that is no valid Unicode.
            PayloadTooLargeError: 413, more characters than handler.limits.max_text_length.
        """
        if isinstance(instance, str):
            return TextExample(self.check_text(instance, "the text"))
        fields = _fields(instance, required=("text",), optional=("text_pair",) if self.takes_pairs else ())
        pair = fields.get("text_pair")
        return TextExample(
            self.check_text(fields["text"], '"text"'), None if pair is None else self.check_text(pair, '"text_pair"')
        )

    def transform(self, example: Any) -> Sequence[ModelInput]:
        """Tokenize a `TextExample`.

        Raises:
            RequestError: 400, a text becomes no token.
            PayloadTooLargeError: 413, more tokens than the model takes.
        """
        encoding = self.tokenizer.encode(example.text, example.pair)
        require_tokens(encoding, *(("the text",) if example.pair is None else ('"text"', '"text_pair"')))
        return [self.tokenizer.to_model_input(encoding)]

    def warmup_input(self, length: int) -> ModelInput:
        """Return a sequence of `length` tokens of no meaning, with the special tokens that models look for."""
        return self.tokenizer.to_model_input(self.tokenizer.filler(length, is_pair=self.is_pair))

    def check_text(self, text: Any, name: str) -> str:
        """Return a text that can be tokenized.

        Raises:
            RequestError: 400, it is no string, empty, or no valid Unicode.
            PayloadTooLargeError: 413, too many characters.
        """
        if not isinstance(text, str):
            raise RequestError(f"{name} is of type {type(text).__name__}; send a string", code="invalid_type")
        if not text:
            raise RequestError(f"{name} is empty; send at least one character", code="empty_text")
        limit = self.config.limits.max_text_length
        if len(text) > limit:
            raise PayloadTooLargeError(
                f"{name} has {len(text)} characters; this model takes {limit}: shorten it", code="text_too_long"
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RequestError(
                f"{name} has a lone surrogate at character {error.start}; send valid Unicode", code="invalid_utf8"
            ) from error
        return text

    def read_labels(self) -> tuple[str, ...]:
        """Read index_to_name.json.

        Raises:
            ConfigError: It is missing, or its indices are not 0 to n - 1.
        """
        return read_labels(self.model_dir)


class TextClassificationHandler(TextHandler):
    """Text, or pair of texts -> {label: score}, best first."""

    takes_pairs = True
    task = "text-classification"
    output_config = ClassificationOutput

    def prepare(self) -> None:
        """Load the tokenizer and the labels."""
        super().prepare()
        self._labels = self.read_labels()
        self._function = default_function(self.config.output.problem_type, len(self._labels))

    def format(
        self, example: TextExample, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]
    ) -> dict[str, float]:
        """Score the labels from `logits` (num_labels,)."""
        del example, inputs
        return score_labels(
            outputs[0]["logits"],
            self._labels,
            self._function,
            top_k=self.config.output.top_k,
            threshold=self.config.output.threshold,
        )


class FeatureExtractionHandler(TextHandler):
    """Text -> embedding, a list of floats."""

    task = "feature-extraction"
    output_config = EmbeddingOutput
    sequence_outputs = ("last_hidden_state",)

    def format(
        self, example: TextExample, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]
    ) -> Array:
        """Pool `last_hidden_state` (seq_len, hidden) to (hidden,) float32, or to (truncate_dim,)."""
        del example, inputs
        settings = self.config.output
        vector = embed(
            outputs[0]["last_hidden_state"],
            settings.pooling,
            normalize=settings.normalize,
            truncate_dim=settings.truncate_dim,
        )
        require_finite(vector)
        return vector


class TokenClassificationHandler(TextHandler):
    """Text -> entities [{entity_group, score, word, start, end}], start and end in characters."""

    task = "token-classification"
    output_config = EntityOutput
    sequence_outputs = ("logits",)

    def prepare(self) -> None:
        """Load the tokenizer and the labels; two may have one name, since answers do not have them as keys."""
        super().prepare()
        self._labels = read_labels(self.model_dir, are_keys=False)
        stride = self.config.output.stride
        if stride is not None:
            self.tokenizer.check_stride(stride, "handler.output.stride", self.tokenizer.max_length)

    def transform(self, example: Any) -> Sequence[ModelInput]:
        """Tokenize, into windows where a stride is configured.

        Raises:
            RequestError: 400, the text becomes no token.
            PayloadTooLargeError: 413, more tokens than the model takes, and no stride.
        """
        stride, window_length = self.config.output.stride, self.tokenizer.max_length
        if stride is None or window_length is None:
            return super().transform(example)
        windows = self.tokenizer.encode_windows(example.text, None, window_length=window_length, stride=stride)
        require_tokens(windows[0], "the text")
        return [self.tokenizer.to_model_input(window) for window in windows]

    def format(
        self, example: TextExample, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]
    ) -> list[dict[str, Any]]:
        """Group the tokens of `logits` (seq_len, num_labels) into entities."""
        settings = self.config.output
        found = [
            entity
            for item, output in zip(inputs, outputs, strict=True)
            for entity in aggregate_entities(
                output["logits"],
                TokenizedText(
                    text=example.text,
                    ids=item.source.ids,
                    tokens=item.source.tokens,
                    offsets=item.source.offsets,
                    special_tokens_mask=item.source.special_tokens_mask,
                ),
                labels=self._labels,
                strategy=settings.aggregation_strategy,
                ignore_labels=settings.ignore_labels,
                has_subword_prefix=self.tokenizer.has_subword_prefix,
                unk_token_id=self.tokenizer.special.unk,
                tokens_to_string=self.tokenizer.tokens_to_string,
            )
        ]
        return merge_windows(found) if len(inputs) > 1 else found


class QuestionExample(NamedTuple):
    """A question about a context."""

    question: str
    context: str


class QuestionAnsweringHandler(TextHandler):
    """Question and context -> {answer, score, start, end}, start and end in characters of the context."""

    is_pair = True
    task = "question-answering"
    output_config = AnswerOutput
    sequence_outputs = ("start_logits", "end_logits")

    def prepare(self) -> None:
        """Load the tokenizer and settle the windows."""
        super().prepare()
        settings = self.config.output
        self._window_length = settings.max_seq_len or min(self.tokenizer.max_length or 384, 384)
        self._stride = min(self._window_length // 2, 128) if settings.doc_stride is None else settings.doc_stride
        self.tokenizer.check_stride(self._stride, "handler.output.doc_stride", self._window_length, is_pair=True)

    @property
    def max_length(self) -> int | None:
        """Window length, in tokens."""
        return self._window_length

    def decode(self, instance: Any) -> Any:
        """Take {"question", "context"}; return a `QuestionExample`.

        Raises:
            RequestError: 400, anything else, or an empty one.
            PayloadTooLargeError: 413, more characters than handler.limits.max_text_length.
        """
        fields = _fields(instance, required=("question", "context"))
        return QuestionExample(
            self.check_text(fields["question"], '"question"'), self.check_text(fields["context"], '"context"')
        )

    def transform(self, example: Any) -> Sequence[ModelInput]:
        """Tokenize into overlapping windows of the context, each with the question before it.

        Raises:
            RequestError: 400, one of the two becomes no token.
            PayloadTooLargeError: 413, the question leaves no room for the context.
        """
        windows = self.tokenizer.encode_windows(
            example.question, example.context, window_length=self._window_length, stride=self._stride
        )
        require_tokens(windows[0], '"question"', '"context"')
        return [self.tokenizer.to_model_input(window) for window in windows]

    def format(
        self, example: QuestionExample, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Array]]
    ) -> Any:
        """Pick the best spans over all windows, from `start_logits` and `end_logits` (seq_len,) each."""
        settings = self.config.output
        windows = [
            window_from_encoding(item.source, output["start_logits"], output["end_logits"], self.tokenizer.special.cls)
            for item, output in zip(inputs, outputs, strict=True)
        ]
        answers = best_answers(
            windows,
            example.context,
            top_k=settings.top_k,
            max_answer_len=settings.max_answer_len,
            handle_impossible_answer=settings.handle_impossible_answer,
            align_to_words=settings.align_to_words,
        )
        return answers[0] if len(answers) == 1 else answers


def _fields(instance: Any, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return an object that has every required key and none that is unknown.

    Raises:
        RequestError: 400, it is not one.
    """
    expected = "{" + ", ".join(f'"{name}"' for name in required) + "}"
    if not isinstance(instance, Mapping):
        raise RequestError(f"the instance is of type {type(instance).__name__}; send {expected}", code="invalid_type")
    missing = [name for name in required if name not in instance]
    unknown = [repr(name) for name in instance if name not in (*required, *optional)]
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has unknown keys {', '.join(unknown)[:200]}"
        raise RequestError(f"the instance {wrong}; send {expected}", code="invalid_type")
    return instance
