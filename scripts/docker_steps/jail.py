"""A program in a root of its own: chroot in a mount namespace, with what a container engine would mount there."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT_USER = "0:0"


@dataclass(frozen=True, slots=True)
class Jail:
    """How programs are run in `root`.

    Attributes:
        root: The folder that is / for them.
        binds: Folders and files of this machine, by where they are seen; read only.
        writable: Likewise, and written to.
        scratch: Folders that are empty and written to, in memory.
        is_read_only: Whether nothing else can be written to.
    """

    root: Path
    binds: Mapping[str, Path] = field(default_factory=dict)
    writable: Mapping[str, Path] = field(default_factory=dict)
    scratch: Sequence[str] = ()
    is_read_only: bool = False

    def command(self, arguments: Sequence[str], *, env: Mapping[str, str], cwd: str, user: str) -> list[str]:
        """Return the command that runs a program there; the namespace and its mounts end with it."""
        lines = ["set -e", f"cd {shlex.quote(str(self.root))}", *self._mounts()]
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
        inner = f"cd {shlex.quote(cwd)} && exec {shlex.join(arguments)}"
        lines.append(f"exec chroot --userspec={user} . /usr/bin/env -i {variables} /bin/sh -c {shlex.quote(inner)}")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str = "/",
        user: str = ROOT_USER,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program there; its output is this process's own, unless options of subprocess.run say otherwise."""
        command = self.command(arguments, env=env, cwd=cwd, user=user)
        return subprocess.run(command, stdin=subprocess.DEVNULL, text=True, check=False, **options)

    def start(
        self, arguments: Sequence[str], *, env: Mapping[str, str], cwd: str, user: str
    ) -> subprocess.Popen[bytes]:
        """Start a program there."""
        return subprocess.Popen(self.command(arguments, env=env, cwd=cwd, user=user), stdin=subprocess.DEVNULL)

    def _mounts(self) -> list[str]:
        lines = [f"mount --bind . {shlex.quote(str(self.root))}", f"cd {shlex.quote(str(self.root))}"]
        for seen, real in {**self.binds, **self.writable}.items():
            inside, outside = shlex.quote(f".{seen}"), shlex.quote(str(real))
            make = (
                f"mkdir -p {inside}"
                if real.is_dir()
                else f"mkdir -p {shlex.quote(f'.{Path(seen).parent}')} && touch {inside}"
            )
            lines += [make, f"mount --rbind {outside} {inside}"]
            if seen in self.binds and not seen.startswith("/dev"):
                lines.append(f"mount -o remount,bind,ro {inside}")
        lines += ["mkdir -p proc dev", "mount -t proc proc proc", "mount --rbind /dev dev"]
        lines += [f"mount -t tmpfs -o mode=1777 tmpfs {shlex.quote(f'.{folder}')}" for folder in self.scratch]
        return [*lines, "mount -o remount,bind,ro ."] if self.is_read_only else lines
