"""The project's manifests, which an overlay refers to: a copy of our own, or a folder or URL that the operator names."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import ts_handlers
from ts_handlers.errors import OperatorError

MANIFESTS = Path(__file__).with_name("manifests")
"""configs/kubernetes; in a checkout a link to it."""

COPY_NAME = "ts-handlers"
_STAMP = "VERSION"
_COPIED = ("base", "kserve", "components")


def refer(output: Path, root: str | None, part: str) -> str:
    """Return how an overlay in `output` names a part of the manifests.

    Args:
        output: The overlay's folder.
        root: Folder or URL of configs/kubernetes; None for the copy in the overlay.
        part: The part, as components/hpa.

    Raises:
        OperatorError: The root is no folder with these manifests, and no URL.
    """
    if root is not None and ("://" in root or root.startswith("git@")):
        path, mark, query = root.partition("?")
        return f"{path.rstrip('/')}/{part}{mark}{query}"
    folder = (MANIFESTS if root is None else Path(root).resolve()) / part
    if not (folder / "kustomization.yaml").is_file():
        missing = f"there is no {folder / 'kustomization.yaml'}"
        raise OperatorError(
            f"the manifests are not installed here: {missing}; name them with --kubernetes-base, or install ts_handlers "
            "from a whole checkout"
            if root is None
            else f"--kubernetes-base {root}: {missing}; give the folder configs/kubernetes of this project, a URL of it "
            "such as https://HOST/OWNER/REPOSITORY//configs/kubernetes?ref=TAG, or leave it out"
        )
    return f"{COPY_NAME}/{part}" if root is None else os.path.relpath(folder, output)


def check_copy(output: Path, *, force: bool) -> None:
    """Check that the place of the copy is free, or holds an older copy.

    Raises:
        OperatorError: Something else is there, and `force` is not given.
    """
    folder = output / COPY_NAME
    if folder.exists() and not force and not (folder / _STAMP).is_file():
        raise OperatorError(
            f"{folder} was not written by this command; choose another --kubernetes, or --force to replace it"
        )


def copy_manifests(output: Path) -> None:
    """Put a copy into the overlay's folder, in the place of an older one.

    Raises:
        OperatorError: It cannot be written.
    """
    folder = output / COPY_NAME
    part = output / f".{COPY_NAME}.{secrets.token_hex(8)}.part"
    try:
        for name in _COPIED:
            shutil.copytree(MANIFESTS / name, part / name)
        (part / _STAMP).write_text(f"{ts_handlers.__version__}\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise OperatorError(f"cannot write {folder}: {error.strerror or error}; choose another --kubernetes") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
