"""Writes the lock files: exact versions of everything, with the hashes of their files, for pip's ``--require-hashes``.

``requirements.txt`` is what the service needs; what an extra of ``pyproject.toml`` needs beside that has a file of its
own. PyTorch and what CUDA brings are left out of it: which build is right depends on the machine, so it is installed
first, by version; ``requirements-cuda.txt`` has the registry's build for images. Run: ``make lock``, with ``--upgrade``
as ARGUMENTS to take newer versions.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("test", "tracing", "cluster")
TORCH = re.compile(r"(torch|triton|nvidia|cuda)(?!audio)")
HEAD = "# Written by `make lock`: exact versions and hashes. Installed with --no-deps.\n"


def compiled(output: Path, *arguments: str) -> dict[str, str]:
    """What uv resolves, by package: its lines of a requirements file. Versions in ``output`` stay if they can.

    Raises subprocess.CalledProcessError.
    """
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--universal", "--generate-hashes",
        "--python-version", "3.11", "--fork-strategy", "fewest", "--no-annotate", "--no-header", *arguments,
    ]  # fmt: skip
    (ROOT / "build").mkdir(exist_ok=True)
    subprocess.run([*command, "--output-file", str(output)], cwd=ROOT, check=True)
    text = "\n".join(line for line in output.read_text().splitlines() if not line.startswith("#"))
    return {re.split("[=;\\[ ]", block, maxsplit=1)[0]: block for block in re.split(r"\n(?=\S)", text.strip())}


def write(extra: str | None, packages: dict[str, str]) -> None:
    """One lock file."""
    path = ROOT / (f"requirements-{extra}.txt" if extra else "requirements.txt")
    path.write_text(HEAD + "\n".join(packages[name] for name in sorted(packages)) + "\n")
    print(f"{path.name}: {len(packages)} packages")


def main() -> None:
    """Write all of them; versions stay as they were unless `--upgrade` is given."""
    build = ROOT / "build"
    everything = compiled(_known(build / "everything.txt"), *(f"--extra={extra}" for extra in EXTRAS), *sys.argv[1:])
    pins = build / "pins.txt"
    pins.write_text(_versions("\n".join(everything.values())))
    needed = compiled(build / "needed.txt", "--constraints", str(pins))
    write(None, {name: everything[name] for name in needed if not TORCH.match(name)})
    write("cuda", {name: everything[name] for name in needed if TORCH.match(name)})
    for extra in EXTRAS:
        more = compiled(build / f"{extra}.txt", f"--extra={extra}", "--constraints", str(pins))
        write(extra, {name: everything[name] for name in more if name not in needed})


def _known(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(_versions(file.read_text()) for file in sorted(ROOT.glob("requirements*.txt"))))
    return path


def _versions(text: str) -> str:
    return "".join(line.split(" \\")[0] + "\n" for line in text.splitlines() if re.match(r"[a-zA-Z0-9]", line))


if __name__ == "__main__":
    main()
