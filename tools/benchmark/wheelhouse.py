"""Wheels for a GPU machine without a network: collect them here, install them there.

    python tools/benchmark/wheelhouse.py collect wheels                 # Python 3.12, x86-64 Linux
    python tools/benchmark/wheelhouse.py install wheels --target /tmp/site
    export PYTHONPATH=/tmp/site                                         # both on that machine

Collected is what requirements.txt and the tests of the GPU suite need, in the versions of
requirements/lock.txt. Left to the machine are torch, torchvision, numpy, transformers, scipy,
matplotlib, scikit-image and OpenCV with all that they need; `install` names what it lacks of it.
`collect` runs in the environment of the repository, `install` in any.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements/lock.txt"
#: Beside requirements.txt: of tests.
FOR_TESTS = ("hypothesis", "pytest")
#: Not in the lock file, which is also for machines without CUDA.
GPU_PACKAGES = ("liger-kernel==0.8.0",)
#: Their authors publish no wheels; built here they hold Python only, and run on every version.
BUILT = {"onedl-mmcv", "onedl-mmdetection"}
#: What such a machine has, with all that these need: as its driver and its Python want it.
MACHINE = {
    "matplotlib",
    "numpy",
    "opencv-python-headless",
    "scikit-image",
    "scipy",
    "torch",
    "torchvision",
    "transformers",
}
#: What others declare and no measurement imports: corrupted images, TensorBoard's server.
UNNEEDED = {"grpcio", "imaug", "tensorboard-data-server"}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    collect = commands.add_parser("collect", help="download and build, on a machine with a network")
    collect.add_argument("folder", type=Path, help="other wheels in it are removed")
    collect.add_argument("--python", default="3.12", help="of the GPU machine (default 3.12)")
    collect.add_argument("--glibc", type=int, default=28, help="2.N of that machine (default 28)")
    collect.add_argument("--limit", type=float, default=60, help="in MB (default 60)")
    install = commands.add_parser("install", help="on the GPU machine, with its python")
    install.add_argument("folder", type=Path, help="what was collected")
    install.add_argument("--target", type=Path, required=True, help="a folder for PYTHONPATH")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two commands."""
    args = parse_args(argv)
    if args.command == "install":
        return install(args.folder, args.target)
    return collect(args.folder, args.python, args.glibc, args.limit)


def collect(folder: Path, python: str, glibc: int, limit: float) -> int:
    """Download wheels, build those that nobody publishes, and print their sizes."""
    needed = set().union(*map(with_requirements, [*core_packages(), *FOR_TESTS]))
    needed -= UNNEEDED.union(*map(with_requirements, MACHINE))
    pins = {name: version for name, version in locked(python).items() if name in needed}
    pins |= dict(pin.split("==") for pin in GPU_PACKAGES)
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in folder.glob("*.whl"):
        if pins.get(distribution(wheel)[0]) != distribution(wheel)[1]:
            wheel.unlink()
    present = {distribution(wheel)[0] for wheel in folder.glob("*.whl")}
    missing = [f"{name}=={version}" for name, version in pins.items() if name not in present]
    built = [pin for pin in missing if pin.split("==")[0] in BUILT]
    if built:
        pip("wheel", "--no-deps", "--wheel-dir", folder, *built)
    if len(missing) > len(built):
        platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in range(glibc, 4, -1)]
        platforms += [f"--platform=manylinux{name}_x86_64" for name in ("2014", "2010", "1")]
        binary = ["--no-deps", "--only-binary=:all:", "--implementation=cp", *platforms]
        published = [pin for pin in missing if pin not in built]
        pip("download", *binary, "--python-version", python, "--dest", folder, *published)
    return report(folder, limit)


def locked(python: str) -> dict[str, str]:
    """Name -> version of the lock file, for one version of Python on Linux."""
    from packaging.requirements import Requirement

    machine = {"python_version": python, "sys_platform": "linux"}
    pins = {}
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(machine):
                pins[requirement.name] = str(requirement.specifier).removeprefix("==")
    return pins


def core_packages() -> list[str]:
    """The names in requirements.txt."""
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line).name for line in lines if line and not line.startswith("#")]


def with_requirements(name: str) -> set[str]:
    """The names of an installed package and of all that it needs."""
    from packaging.requirements import Requirement

    found: set[Requirement] = set()
    waiting = [Requirement(name)]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        try:
            lines = importlib.metadata.requires(package.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on other systems only
        waiting += [
            requirement
            for requirement in map(Requirement, lines)
            if requirement.marker is None
            or any(requirement.marker.evaluate({"extra": x}) for x in {"", *package.extras})
        ]
    return {canonical(package.name) for package in found}


def distribution(wheel: Path) -> tuple[str, str]:
    """Name, as the lock file writes it, and version of a wheel."""
    name, version = wheel.name.split("-")[:2]
    return canonical(name), version


def canonical(name: str) -> str:
    """A name as the lock file writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def report(folder: Path, limit: float) -> int:
    """Print what is there; 1 where it is over the limit or a built wheel fits one Python only."""
    sizes = {wheel: wheel.stat().st_size / 1e6 for wheel in folder.glob("*.whl")}
    for wheel in sorted(sizes, key=sizes.__getitem__, reverse=True)[:8]:
        print(f"{sizes[wheel]:8.1f} MB  {wheel.name}")
    total = sum(sizes.values())
    print(f"{total:8.1f} MB  in {len(sizes)} wheels in {folder}")
    compiled = [
        wheel.name
        for wheel in sizes
        if distribution(wheel)[0] in BUILT and not wheel.name.endswith("-none-any.whl")
    ]
    if compiled:
        print(f"error: built for this machine alone: {', '.join(compiled)}", file=sys.stderr)
    if total > limit:
        print(f"error: more than the {limit:g} MB of --limit", file=sys.stderr)
    return int(bool(compiled) or total > limit)


def install(folder: Path, target: Path) -> int:
    """Install every wheel into ``target``; name what the machine should have and has not."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        print(f"error: {folder} holds no wheels: collect them first", file=sys.stderr)
        return 2
    options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade"]
    pip("install", "--quiet", *options, "--target", target, *wheels)
    here = {canonical(found.metadata["Name"]) for found in importlib.metadata.distributions()}
    lacking = sorted(MACHINE - here)
    print(f"installed {len(wheels)} wheels; export PYTHONPATH={target}")
    if lacking:
        print(f"this machine lacks, and the wheels leave to it: {', '.join(lacking)}")
    return 0


def pip(*words: str | Path) -> None:
    """Run pip of this Python; what it prints is shown.

    Raises:
        SystemExit: pip failed; it has said why.
    """
    command = [sys.executable, "-m", "pip", *map(str, words), "--disable-pip-version-check"]
    if code := subprocess.run(command).returncode:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
