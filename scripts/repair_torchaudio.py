"""Make torchaudio importable beside a CPU build of torch.

The torchaudio wheel's native extension is linked against CUDA and can't be loaded where torch has none. The
extension is optional: the transforms, all that is used here, are written in torch. So where, and only where,
the import fails because of it, the extension's files get another name. Run once after installing.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path


def imports() -> subprocess.CompletedProcess[str]:
    """Try the import in a process of its own; a half-loaded module can't be loaded again."""
    return subprocess.run([sys.executable, "-c", "import torchaudio"], capture_output=True, text=True)


def main() -> None:
    """Repair if need be. Exits with a message when that does not help."""
    if imports().returncode == 0:
        return
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        sys.exit("torchaudio is not installed")
    for library in (Path(spec.origin).parent / "lib").glob("*.so"):
        library.rename(library.with_suffix(".so.needs-cuda"))
    after = imports()
    if after.returncode:
        sys.exit(f"torchaudio can't be imported:\n{after.stderr}")
    print("torchaudio: left out its CUDA extension, which this torch can't load")


if __name__ == "__main__":
    main()
