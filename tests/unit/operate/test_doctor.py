from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ts_handlers.cli import main
from ts_handlers.errors import OperatorError
from ts_handlers.machine import CpuBudget
from ts_handlers.machine.cgroup import cgroup_version
from ts_handlers.machine.features import parse_cpuinfo
from ts_handlers.operate import doctor
from ts_handlers.operate.doctor import Advice, Facts, find_problems
from ts_handlers.operate.torchserve.process.java import Java

AMX = "fpu sse2 fma avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 avx_vnni amx_bf16 amx_tile amx_int8"
ZEN_3 = "fpu sse2 fma avx2 sha_ni vaes"
OLD = "fpu sse2 ssse3 sse4_1 sse4_2 avx hypervisor"


def cpuinfo(name: str, flags: str, *, cores: int, threads: int, packages: int = 1) -> str:
    blocks = []
    for number in range(cores * threads * packages):
        package, core = divmod(number % (cores * packages), cores)
        blocks.append(
            f"processor\t: {number}\nmodel name\t: {name}\nphysical id\t: {package}\nsiblings\t: {cores * threads}\n"
            f"core id\t\t: {core}\ncpu cores\t: {cores}\nflags\t\t: {flags}\n"
        )
    return "\n".join(blocks) + "\n"


@pytest.mark.parametrize(
    ("flags", "shape", "sets", "int8", "bf16"),
    [
        (
            AMX,
            {"cores": 4, "threads": 2, "packages": 2},
            {"AMX INT8", "AMX BF16", "AVX-512 VNNI", "AVX-VNNI"},
            "AMX",
            "AMX",
        ),
        (ZEN_3, {"cores": 2, "threads": 2}, {"AVX2", "FMA"}, "without VNNI", "slower than fp32"),
        (OLD, {"cores": 2, "threads": 1}, set(), "not faster than fp32", ""),
        (
            "avx2 avx512f avx512_vnni avx512_bf16",
            {"cores": 1, "threads": 1},
            {"AVX-512 BF16"},
            "fast: one instruction",
            "fast: the CPU multiplies bf16",
        ),
    ],
)
def test_what_a_cpu_has_and_what_it_is_good_for(
    flags: str, shape: dict[str, int], sets: set[str], int8: str, bf16: str
) -> None:
    cpu = parse_cpuinfo(cpuinfo("A CPU", flags, **shape))

    cores = shape["cores"] * shape.get("packages", 1)
    assert (cpu.num_logical, cpu.num_cores) == (cores * shape["threads"], cores)
    assert (cpu.threads_per_core, cpu.is_virtual) == (shape["threads"], "hypervisor" in flags)
    assert sets <= set(cpu.instruction_sets)
    assert bool(sets) == bool(cpu.instruction_sets)
    assert int8 in cpu.int8_advice
    assert bf16 in cpu.bf16_advice


def test_an_arm_cpu() -> None:
    block = "BogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp sve i8mm bf16\nCPU implementer\t: 0x41\n"
    cpu = parse_cpuinfo("\n".join(f"processor\t: {number}\n{block}" for number in range(4)))

    assert (cpu.model_name, cpu.num_logical, cpu.num_cores, cpu.threads_per_core) == ("", 4, 4, 1)
    assert cpu.int8_advice.startswith("fast")
    assert cpu.bf16_advice.startswith("fast")


def test_an_empty_cpuinfo_is_no_crash() -> None:
    assert parse_cpuinfo("").num_logical == 0
    assert parse_cpuinfo("").threads_per_core == 1


V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("mountinfo", "version"), [(V2, "v2"), (V1, "v1"), (V1 + V2, "v1 and v2"), ("", "none"), (None, "none")]
)
def test_the_control_groups_that_are_mounted(tmp_path: Path, mountinfo: str | None, version: str) -> None:
    if mountinfo is not None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "mountinfo").write_text(mountinfo)
    assert cgroup_version(tmp_path) == version


FACTS = Facts(
    budget=CpuBudget((0, 1)),
    cpu=parse_cpuinfo(cpuinfo("AMD EPYC 7763", ZEN_3, cores=2, threads=1)),
    cgroup="v2",
    memory_bytes=8 * 2**30,
    versions={"torch": "2.13.0", "torchserve": "0.12.0", "torch-model-archiver": "0.12.0", "onnxruntime": "1.31.1"},
    providers=("CPUExecutionProvider",),
    java=Java(Path("/jdk/bin/java"), Path("/jdk"), 17, "JAVA_HOME"),
    java_error="",
    torchserve_error="",
    ports_in_use=(),
    sockets_in_use=(),
    environ={"LD_PRELOAD": "/usr/lib/libtcmalloc_minimal.so.4"},
)


def findings(**changes: Any) -> list[Advice]:
    return list(find_problems(dataclasses.replace(FACTS, **changes)))


def test_a_good_machine_has_nothing_to_say() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"java": None, "java_error": "TorchServe needs Java 17 or newer: none. Install one"},
            "TorchServe needs Java 17",
        ),
        (
            {"torchserve_error": "TorchServe is not installed (no ts); install it"},
            "TorchServe is not installed (no ts)",
        ),
        ({"versions": {"onnxruntime": "1"}}, "torch is not installed"),
        ({"versions": {"torch": "2", "onnxruntime": "1", "onnxruntime-gpu": "1"}}, "are both installed"),
        ({"environ": {"OMP_NUM_THREADS": "64"}}, "OMP_NUM_THREADS is 64, more than the 2 CPUs"),
        ({"environ": {"TS_HANDLERS_WORKERS": "none"}}, "TS_HANDLERS_WORKERS is 'none'"),
    ],
)
def test_problems(changes: dict[str, Any], text: str) -> None:
    problems = [finding for finding in findings(**changes) if finding.kind == "problem"]

    assert len(problems) == 1
    assert text in problems[0].text
    assert problems[0].remedy


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"environ": {}}, "tcmalloc"),
        ({"budget": CpuBudget((0, 1), 0.5)}, "the CPU budget is 0.5"),
        ({"budget": CpuBudget((0, 1), 1.5)}, "workers use 1, and the frontend the rest"),
        ({"memory_bytes": 2**30}, "1.0 GiB of memory"),
        ({"ports_in_use": (8080, 8081)}, "ports in use: 8080, 8081"),
        ({"sockets_in_use": ("/tmp/.ts.sock.9000",)}, "/tmp/.ts.sock.9000"),  # noqa: S108
        ({"versions": {"torch": "2", "torch-model-archiver": "1"}}, "onnxruntime is not installed"),
        ({"versions": {"torch": "2", "onnxruntime": "1"}}, "nothing can be built here"),
    ],
)
def test_hints_are_no_problems(changes: dict[str, Any], text: str) -> None:
    (hint,) = findings(**changes)

    assert hint.kind == "hint"
    assert text in hint.text


def test_threads_within_the_budget_are_no_problem() -> None:
    assert findings(environ=dict(FACTS.environ) | {"OMP_NUM_THREADS": "2"}) == []


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"java": None, "java_error": "no Java. Install"}, 1)])
def test_the_report_says_everything_and_the_exit_code_the_verdict(
    changes: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "collect_facts", lambda: dataclasses.replace(FACTS, **changes))

    assert main(["doctor"]) == code
    output = capsys.readouterr().out
    assert "2 CPUs (affinity 2, no cgroup quota)" in output
    assert "2 cores, no SMT" in output
    assert ("no problems" in output) == (code == 0)
    assert main(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["cpus"] == 2.0
    assert len(report["findings"]) == code


def test_facts_of_this_machine_can_be_collected() -> None:
    facts = doctor.collect_facts(environ={"OMP_NUM_THREADS": "2", "PATH": "", "HOME": "/"})

    assert facts.budget.cpus > 0
    assert facts.cpu.num_logical > 0
    assert facts.environ == {"OMP_NUM_THREADS": "2"}
    assert set(facts.versions) == set(doctor.PACKAGES)


def test_what_cannot_be_found_is_said_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise OperatorError("not here; install it")

    def no_import(_name: str) -> None:
        raise ImportError

    monkeypatch.setattr(doctor, "torchserve_folder", missing)
    monkeypatch.setattr("importlib.import_module", no_import)
    facts = doctor.collect_facts(environ={"PATH": ""})

    assert facts.torchserve_error == "not here; install it"
    assert facts.providers == ()
    assert facts.java is None
