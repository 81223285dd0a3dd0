"""Benchmarks of several trainings and seeds, each done once and in a process of its own."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmdet.errors import ConfigError

_ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every such benchmark is told, but for its eye."""
    parser.add_argument("--work-dir", type=Path, required=True, help="gets a folder per training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument(
        "--processes", type=int, default=2, help="trainings at once, of one thread each (default 2)"
    )
    parser.add_argument(
        "--short", action="store_true", help="a step of each, to see that everything runs"
    )
    parser.add_argument("--run", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)


def folder_and_eye(args: argparse.Namespace) -> tuple[Path, Path | None]:
    """Where the jobs of a command line are, and the eye that it gives."""
    folder = args.work_dir.resolve() / ("short" if args.short else "")
    return folder, None if args.eye is None else args.eye.resolve()


@dataclass(frozen=True)
class SeededJobs:
    """Jobs and their results in a folder; the program that has them does one with ``--run``.

    Attributes:
        program: the benchmark's file.
        short_sizes: what ``sizes`` is with ``--short``.
        shared: names of jobs that serve all seeds.
        folder: has a folder for each job.
        sizes: how much is trained and asked.
        eye: checkpoint of a detector that is not to be trained.
    """

    program: ClassVar[str]
    short_sizes: ClassVar[Any]
    shared: ClassVar[Sequence[str]] = ()

    folder: Path
    sizes: Any
    eye: Path | None = None

    @property
    def toy(self) -> Path:
        """The toy set."""
        return self.folder / "toy"

    def keep_to_one_eye(self) -> None:
        """Note which eye the jobs of the folder have, by its content.

        Raises:
            ConfigError: those that are there have another one, or it is missing.
        """
        if self.eye is not None and not self.eye.is_file():
            raise ConfigError(f"--eye: there is no file {self.eye}")
        note = self.folder / "eye.txt"
        eye = "its own" if self.eye is None else hashlib.sha256(self.eye.read_bytes()).hexdigest()
        if note.is_file() and note.read_text() != eye:
            raise ConfigError(
                f"what is in {self.folder} was made with another eye than "
                f"{self.eye or 'one of its own'}: name another --work-dir"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        note.write_text(eye)

    def place(self, name: str, seed: int) -> Path:
        """The folder of a job."""
        title = name if name in self.shared else f"{name}_seed{seed}"
        return self.folder / title.replace(", ", "_").replace(" ", "_")

    def needs(self, name: str) -> Sequence[str]:
        """Jobs that a job needs, those that are shared or have its seed."""
        return ()

    def result_file(self, name: str, seed: int) -> Path:
        """What a finished job came to."""
        return self.place(name, seed) / "result.json"

    def result(self, name: str, seed: int) -> dict[str, Any]:
        """What a finished job came to, read."""
        return json.loads(self.result_file(name, seed).read_text())

    def run_all(self, names: Sequence[str], seeds: Sequence[int], processes: int) -> None:
        """Do what is not finished, some at once; a job begins when those that it needs are done.

        Args:
            names: of jobs, each behind those that it needs.
            seeds: for which they are done; shared ones are done once, with seed 0.
            processes: jobs at once.

        Raises:
            SystemExit: one failed; those that have not begun do not begin.
        """
        begun: dict[Path, Future[None]] = {}
        with ThreadPoolExecutor(processes) as pool:
            for name in names:
                for seed in (0,) if name in self.shared else seeds:
                    if self.result_file(name, seed).is_file() or self.place(name, seed) in begun:
                        continue
                    # They stand before it in the queue of the pool, and so never wait for it.
                    places = [self.place(needed, seed) for needed in self.needs(name)]
                    first = [begun[place] for place in places if place in begun]
                    begun[self.place(name, seed)] = pool.submit(self._run_after, first, name, seed)
            try:
                wait(begun.values(), return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        for job in begun.values():
            if not job.cancelled():
                job.result()

    def _run_after(self, first: Sequence[Future[None]], name: str, seed: int) -> None:
        for job in first:
            job.result()
        self.run_apart(name, seed)

    def run_apart(self, name: str, seed: int) -> None:
        """Do a job in a process of its own, with one thread; its words are in ``log.txt``.

        Raises:
            SystemExit: it failed.
        """
        short = self.sizes == self.short_sizes
        work_dir = self.folder.parent if short else self.folder
        command = [sys.executable, self.program, "--work-dir", str(work_dir)]
        command += ["--run", name, str(seed), *(["--short"] if short else [])]
        command += [] if self.eye is None else ["--eye", str(self.eye)]
        log = self.place(name, seed) / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stream:
            variables = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, cwd=_ROOT, env=variables, stdout=stream, stderr=subprocess.STDOUT
            )
        if done.returncode != 0:
            raise SystemExit(f"'{name}' with seed {seed} failed; see {log}")
