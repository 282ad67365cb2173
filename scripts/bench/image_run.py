"""What the experiment with images measured: blocks, their medians as a table, and the ratios that are aimed at. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.image_sides import OURS, PROCESS, STOCK
from bench.report import table

MIN_OVER_PROCESS = 12.0
"""Ours in INT8 over the best of one process an image."""

MIN_OVER_STOCK = 3.5
"""Ours in INT8 over the best stock setting. The article's own gain was 3.75 over its baseline."""

MIN_OVER_STOCK_LARGE = 2.0
"""Ours in fp32 over the best stock setting, on pictures of many megapixels."""

REFERENCE = "process-1"
"""Setting whose labels the others are compared with."""


@dataclass(frozen=True, slots=True)
class ImageBlock:
    """One block: a number of images by one setting.

    Attributes:
        setting: Name of the setting.
        group: Its group.
        round: Counted from 1.
        num_images: How many.
        wall_s: Time for all of them.
        num_errors: How many were not answered.
        cpu_s: CPU time of the setting's processes.
        peak_mib: Most memory of its processes together.
        start_s: Seconds until the server was ready; not in wall_s.
        labels: Index of a picture -> its best label.
    """

    setting: str
    group: str
    round: int
    num_images: int
    wall_s: float
    num_errors: int
    cpu_s: float
    peak_mib: float
    start_s: float
    labels: Mapping[str, str]

    @property
    def images_per_second(self) -> float:
        """Rate of those that were answered."""
        return (self.num_images - self.num_errors) / self.wall_s


@dataclass(frozen=True, slots=True)
class Row:
    """The blocks of a setting: medians, every error, and labels that are the reference's."""

    setting: str
    group: str
    images_per_second: float
    lowest: float
    highest: float
    num_images: int
    cpu_s_per_image: float
    peak_mib: float
    start_s: float
    num_errors: int
    same_labels: str


def rows(blocks: Sequence[ImageBlock], order: Sequence[str]) -> list[Row]:
    """Return a row for each setting that was measured, in this order."""
    reference = next((block.labels for block in blocks if block.setting == REFERENCE), {})
    found = []
    for name in order:
        mine = [block for block in blocks if block.setting == name]
        if not mine:
            continue
        rates = [block.images_per_second for block in mine]
        found.append(
            Row(
                setting=name,
                group=mine[0].group,
                images_per_second=statistics.median(rates),
                lowest=min(rates),
                highest=max(rates),
                num_images=sum(block.num_images for block in mine),
                cpu_s_per_image=statistics.median(block.cpu_s / block.num_images for block in mine),
                peak_mib=statistics.median(block.peak_mib for block in mine),
                start_s=statistics.median(block.start_s for block in mine),
                num_errors=sum(block.num_errors for block in mine),
                same_labels=_same(mine[-1].labels, reference),
            )
        )
    return found


def images_table(found: Sequence[Row]) -> str:
    """Return the Markdown table."""
    head = ["setting", "images/s", "rounds", "images", "CPU s an image", "peak MiB", "ready after s", "errors"]
    lines = [[*head, f"labels as {REFERENCE}"]]
    for row in found:
        rounds = "-" if row.lowest == row.highest else f"{row.lowest:.2f} to {row.highest:.2f}"
        start = f"{row.start_s:.0f}" if row.start_s else "-"
        numbers = [f"{row.images_per_second:.2f}", rounds, str(row.num_images), f"{row.cpu_s_per_image:.3f}"]
        lines.append([row.setting, *numbers, f"{row.peak_mib:.0f}", start, str(row.num_errors), row.same_labels])
    return table(lines)


def verdicts(found: Sequence[Row], *, is_large: bool) -> list[tuple[str, bool]]:
    """Return each aim that can be judged in words, and whether it is reached.

    Args:
        found: The rows.
        is_large: Whether the pictures were large; then only ours in fp32 has an aim.
    """
    ours = {row.setting: row for row in found if row.group == OURS}
    aims = [("ours-fp32", STOCK, MIN_OVER_STOCK_LARGE)] if is_large else []
    if not is_large:
        aims = [("ours-int8", PROCESS, MIN_OVER_PROCESS), ("ours-int8", STOCK, MIN_OVER_STOCK)]
    lines = []
    for name, group, aim in aims:
        others = [row for row in found if row.group == group]
        if name in ours and others:
            best = max(others, key=lambda row: row.images_per_second)
            ratio = ours[name].images_per_second / best.images_per_second
            is_reached = ratio >= aim and not ours[name].num_errors
            word = "reached" if is_reached else "MISSED"
            lines.append((f"{name} over {best.setting}: {ratio:.2f}x; aim {aim:g}x: {word}", is_reached))
    return lines


def block_from_json(value: Mapping[str, Any]) -> ImageBlock:
    """Read what `asdict` wrote."""
    return ImageBlock(**value)


def blocks_json(blocks: Sequence[ImageBlock]) -> list[dict[str, Any]]:
    """Return the blocks, ready for json.dumps."""
    return [asdict(block) for block in blocks]


def _same(labels: Mapping[str, str], reference: Mapping[str, str]) -> str:
    both = [index for index in labels if index in reference]
    if not both:
        return "-"
    return f"{sum(labels[index] == reference[index] for index in both)} of {len(both)}"
