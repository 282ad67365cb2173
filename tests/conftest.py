from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from ts_handlers.telemetry import disable_telemetry

if TYPE_CHECKING:
    from tests.model_dirs import ModelDirs

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

os.environ["HF_HUB_OFFLINE"] = "1"  # the tests have their models; nothing is to be fetched
os.environ["TQDM_DISABLE"] = "1"
disable_telemetry()  # some tests import the libraries themselves


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> ModelDirs:
    """Checkpoints and unpacked archives, made when first asked for."""
    from tests.model_dirs import ModelDirs

    return ModelDirs(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Real sentences of many lengths, then what tokenizers stumble over."""
    from tests.models import MINILM

    readme = (MINILM / "README.md").read_text(encoding="utf-8").splitlines()
    sentences = [line.strip() for line in readme if 20 < len(line) < 600 and not line.startswith("|")][:40]
    return [*sentences, *ODD_TEXTS]


ODD_TEXTS = (
    "a",
    "ok.",
    "Zürich, São Paulo & 北京 - 12,50 €!",
    "😀 emoji 👩‍👩‍👧 and ‮right-to-left‬ text",
    "ﬁ ligatures and é combining",
    "tabs\tand\nnew lines\r\n everywhere",
    "www.example.org/a?b=c&d=e#f user@example.org",
    "A sentence with [MASK], [SEP] and <mask> in it",
    "    leading and trailing spaces    ",
    "word " * 90,
    "Maria Gonzalez flew from Buenos Aires to Toronto with Dr. O'Neill-Smith.",
    "ᚠᛇᚻ unknown ⌘ characters",
)


@pytest.fixture(autouse=True)
def _restore_environment() -> Iterator[None]:
    """Undo what thread limits write into the environment of this process."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
