from __future__ import annotations

import pytest

from ts_handlers.operate.quantity import format_cpus, parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("1500m", 1.5), ("0.5", 0.5), ("2Gi", 2 * 2**30), ("1e3", 1000), ("128M", 128e6), ("100u", 1e-4)],
)
def test_quantities_are_read(text: str, number: float) -> None:
    assert parse_quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "1 Gi", "2Qi", "Gi", "one", "1e", None])
def test_what_is_no_quantity_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        parse_quantity(text)


def test_cpus_are_written_in_thousandths() -> None:
    assert [format_cpus(cpus) for cpus in (2.0, 1.5, 0.333333, 0.0001)] == ["2", "1500m", "333m", "1m"]
