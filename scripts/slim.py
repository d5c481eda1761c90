"""Takes out of an environment what running the service never needs: headers, static libraries, tests, type stubs.

Run by the Dockerfile with the environment's own Python. Prints what it saved.
"""

import compileall
import shutil
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
FOLDERS = (
    "torch/include", "torch/share", "torch/test", "torch/utils/benchmark", "triton/backends/nvidia/include",
    "matplotlib/tests", "mpl_toolkits/tests",
)  # fmt: skip
TORCH_BIN, NEEDED_BIN = "torch/bin", ("torch_shm_manager",)
TESTS = ("numpy", "scipy", "sympy", "networkx", "fontTools", "pyparsing", "mpmath")
PATTERNS = ("*.pyi", "*.a", "*.h", "*.hpp", "*.cuh", "*.pxd", "*.cmake", "*.js.map")


def doomed(site: Path) -> list[Path]:
    """What can go."""
    folders = [site / name for name in FOLDERS]
    folders += [path for name in TESTS for path in (site / name).rglob("tests") if path.is_dir()]
    files = [path for path in (site / TORCH_BIN).iterdir() if path.name not in NEEDED_BIN]
    files += [path for pattern in PATTERNS for path in site.rglob(pattern)]
    return [path for path in (*folders, *files, *site.rglob("__pycache__")) if path.exists()]


def size_bytes(path: Path) -> int:
    """Of a file, or all files in a folder."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else path.stat().st_size


def main() -> None:
    """Remove it, and compile the rest, which a read-only file system could not keep."""
    saved = 0
    for path in doomed(SITE):
        if path.exists():
            saved += size_bytes(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"{saved / 1e6:.0f} MB taken out of {SITE}")
    compileall.compile_dir(SITE, quiet=2, workers=0)


if __name__ == "__main__":
    main()
