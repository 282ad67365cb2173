"""Unpadded inputs -> model calls -> the outputs of each: plan_batches, pad_batch, session.run, split_batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ts_handlers.batching.bucketing import BatchPlan, calls_side_by_side, fixed_shapes, plan_batches, plan_images
from ts_handlers.batching.padding import ModelInput, pad_batch, split_batch
from ts_handlers.batching.parallel import ParallelCalls
from ts_handlers.config.sections import BucketingConfig
from ts_handlers.runtime import Session
from ts_handlers.shapes import Array, Shape

Outputs = dict[str, Array]


class ModelCalls:
    """Runs sequences in as few and as little padded calls as pays, at the same time where the session can.

    Args:
        bucketing: How sequences share calls.
        pad_values: Fill of each model input where it is padded.
        sequence_outputs: Outputs with the sequence as their second axis.
        pads_images: Whether images of different sizes may share a call, padded.
    """

    def __init__(
        self,
        bucketing: BucketingConfig,
        pad_values: Mapping[str, int],
        sequence_outputs: Collection[str],
        *,
        pads_images: bool = False,
    ) -> None:
        self._pads_images = pads_images
        self._bucketing = bucketing
        self._pad_values, self._sequence_outputs = pad_values, sequence_outputs
        self._parallel = ParallelCalls()

    @property
    def shapes(self) -> list[Shape]:
        """Shapes that occur again and again, because calls are padded and filled to them."""
        bucketing = self._bucketing
        return fixed_shapes(bucketing.boundaries, bucketing.group_sizes, bucketing.max_padded_tokens)

    def plan(self, session: Session, inputs: Sequence[ModelInput]) -> list[BatchPlan]:
        """Decide which sequences share a call."""
        num_parallel = _num_parallel(session, inputs)
        return self.plan_within(inputs, calls_side_by_side(len(inputs), self.max_batch_size, num_parallel))

    def max_in_call(self, session: Session, num_inputs: int) -> int:
        """Return the most inputs of a call, where inputs are made while the model computes.

        A call that leaves the CPU alone has half of them: while it is made, the other half is.
        """
        if session.runs_on_device:
            return max(1, min(self.max_batch_size, -(-num_inputs // 2)))
        return calls_side_by_side(num_inputs, self.max_batch_size, session.max_parallel)

    def plan_within(self, inputs: Sequence[ModelInput], max_batch_size: int) -> list[BatchPlan]:
        """Decide which sequences share a call, at most so many."""
        bucketing = self._bucketing
        if inputs and inputs[0].size is not None:
            return plan_images(
                [item.size or (0, 0) for item in inputs],
                max_batch_size=max_batch_size,
                max_padded_pixels=bucketing.max_padded_pixels,
                can_pad=self._pads_images,
                call_overhead_pixels=bucketing.call_overhead_pixels,
            )
        return plan_batches(
            [item.length for item in inputs],
            max_batch_size=max_batch_size,
            max_padded_tokens=bucketing.max_padded_tokens,
            boundaries=bucketing.boundaries,
            call_overhead_tokens=bucketing.call_overhead_tokens,
            group_sizes=bucketing.group_sizes,
        )

    @property
    def max_batch_size(self) -> int:
        """Most inputs of a call."""
        return min((self._bucketing.max_batch_size, *self._bucketing.group_sizes[-1:]))

    def run(
        self, session: Session, inputs: Sequence[ModelInput], plans: Sequence[BatchPlan]
    ) -> list[Outputs | Exception]:
        """Make the calls; return the outputs of each sequence, without padding, or what failed."""
        outcomes: list[Outputs | Exception] = [{} for _ in inputs]
        num_parallel = _num_parallel(session, inputs)

        def call(plan: BatchPlan) -> None:
            for index, outcome in zip(plan.indices, self.run_plan(session, inputs, plan, num_parallel), strict=True):
                outcomes[index] = outcome

        longest_first = sorted(plans, key=lambda plan: plan.num_positions, reverse=True)
        self._parallel.for_each(call, longest_first, num_parallel)
        return outcomes

    def run_plan(
        self, session: Session, inputs: Sequence[ModelInput], plan: BatchPlan, num_parallel: int
    ) -> Sequence[Outputs | Exception]:
        """Make one call; where it fails, run its sequences one by one, so that only the guilty one fails.

        Returns:
            The outputs of its sequences, or what failed, in the plan's order.
        """
        try:
            return self.run_call(session, inputs, plan, num_parallel)
        except Exception as error:  # noqa: BLE001  # engines raise what they like
            if len(plan.indices) == 1:
                return [error]
        alone = [_alone(inputs[index], index, plan) for index in plan.indices]
        return [outcome for part in alone for outcome in self.run_plan(session, inputs, part, num_parallel)]

    def run_call(
        self, session: Session, inputs: Sequence[ModelInput], plan: BatchPlan, num_parallel: int = 1
    ) -> list[Outputs]:
        """Make one call; return the outputs of its sequences, in the plan's order."""
        batch = pad_batch(inputs, plan, self._pad_values)
        return split_batch(session.run(batch.arrays, num_parallel=num_parallel), batch, self._sequence_outputs)


def _alone(item: ModelInput, index: int, plan: BatchPlan) -> BatchPlan:
    """Return the plan of one of a call's inputs by itself: a sequence keeps its padding, an image needs none."""
    return BatchPlan((index,), plan.padded_length, padded_size=item.size)


def _num_parallel(session: Session, inputs: Sequence[ModelInput]) -> int:
    """Return how many calls to make at the same time: with fewer sequences than threads, one call has all threads."""
    return session.max_parallel if len(inputs) >= session.max_parallel else 1


def padding_ratio(inputs: Sequence[ModelInput], plans: Sequence[BatchPlan]) -> float:
    """Return the share of padding among the tokens, or pixels, that the model is fed."""
    fed = sum(plan.num_positions for plan in plans)
    return 1 - sum(item.num_positions for item in inputs) / fed if fed else 0.0
