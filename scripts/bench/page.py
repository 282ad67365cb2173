"""Pages of docs/ of which a benchmark writes a part: what is between two markers; what people write around it stays."""

from __future__ import annotations

from pathlib import Path

from bench.process import BenchError


def write_between(path: Path, begin: str, end: str, text: str, *, empty_page: str) -> None:
    """Put text between a page's markers; make the page where there is none.

    Args:
        path: The page.
        begin: The line before.
        end: The line after.
        text: Markdown.
        empty_page: A page with both markers, for where there is none.

    Raises:
        BenchError: The page has not one of each marker.
    """
    page = path.read_text(encoding="utf-8") if path.exists() else empty_page
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise BenchError(f"{path} needs one line {begin} and, after it, one line {end}; put them back")
    before, rest = page.split(begin)
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")
