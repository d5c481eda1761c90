"""The documentation: its examples run, its settings exist, its site builds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Live
from markdown_it import MarkdownIt

from app.problems import KINDS
from app.settings import Settings

ROOT = Path(__file__).parent.parent
README, DOCS = ROOT / "README.md", sorted((ROOT / "docs").glob("*.md"))
SERVED_AT = "http://127.0.0.1:8000"
EXAMPLES = [ROOT / "docs" / "api.md", ROOT / "docs" / "command-line.md"]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    tokens = MarkdownIt().parse(page.read_text())
    return [(token.info, token.content) for token in tokens if token.type == "fence"]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_examples_run(live: Live, tmp_path: Path, page: Path):
    (tmp_path / "not-a-video.txt").write_text("text")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    commands = {"sh": ["bash", "-e", "-o", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    for language, text in blocks(page):
        if language not in commands:
            continue
        run = subprocess.run(
            [*commands[language], text.replace(SERVED_AT, live.url)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, f"{text}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"


def test_every_setting_and_every_problem_is_in_the_readme():
    text = README.read_text()
    prefix = Settings.model_config["env_prefix"]
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias or f"{prefix}{name}".upper()
        assert f"| `{variable}` |" in text, variable
        assert field.description in text, variable
    missing = {code for code in KINDS if f"`{code}`" not in text}
    assert missing == {"not_found", "method_not_allowed", "internal_error"}


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    pages = [page for page in (tmp_path / "site").glob("*.html") if page.stem != "404"]
    assert len(pages) > len(DOCS)
    for page in pages:
        for source in re.findall(r'src="(?!https?:|data:|#)([^"?]+)', page.read_text()):
            assert (page.parent / source).exists(), (page.name, source)
