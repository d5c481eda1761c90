"""The command ``lipsync``: what it prints, its exit status, and that it never shows a traceback."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Live, write_media
from typer.testing import CliRunner, Result

from app import cli
from app.outcomes import Failure, Outcome, exit_code, find_videos, read_outcomes
from app.schemas import EXAMPLE, AnalysisResponse
from model.results import VERSION

ROOT = Path(__file__).parent.parent


def lipsync(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def inside(*arguments: object) -> Result:
    """Run it in this process."""
    return CliRunner().invoke(cli.cli, [str(one) for one in arguments])


def outcome(verdict: str) -> Outcome:
    """A made one."""
    if verdict == "error":
        return Outcome("none.mp4", 0, 0.0, {}, Failure(code="not_media", detail="No."))
    return Outcome("talk.mp4", 1, 1.0, {}, AnalysisResponse.model_validate(EXAMPLE | {"verdict": verdict}))


@pytest.fixture
def videos(tmp_path: Path, plain_video: Path) -> Path:
    """A folder with a video that says nothing, in it a folder with one that is none, and what is to be passed over."""
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    shutil.copy(plain_video, folder / "plain.MP4")
    (folder / "more" / "[bold]broken.mkv").write_text("no video")
    (folder / "more" / "._plain.mp4").write_text("no video")
    (folder / "notes.txt").write_text("no video")
    return folder


def test_here_with_the_detector(videos: Path, talk: Callable[[int], Path], tmp_path: Path):
    kept = tmp_path / "kept.jsonl"
    shutil.copy(talk(200), tmp_path)
    done = lipsync("analyze", "videos", "200.mp4", "--output", "kept.jsonl", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert done.stderr == ""
    for part in ("plain.MP4", "inconclusive", "Nobody is heard", "[bold]broken.mkv", "not a video", "200.mp4"):
        assert part in done.stdout
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["plain.MP4", "[bold]broken.mkv", "200.mp4"]
    assert lines[1]["error"]["code"] == "not_media"
    assert abs(lines[2]["sync"]["offset_ms"] - 200) <= 80

    again = lipsync(
        "analyze", "videos/plain.MP4", "200.mp4", "--output", kept, "--csv", "--device", "cuda:9", cwd=tmp_path
    )
    assert (again.returncode, again.stderr) == (3, "")  # without a detector
    rows = list(csv.DictReader(io.StringIO(again.stdout)))
    assert [row["verdict"] for row in rows] == ["inconclusive", lines[2]["verdict"]]
    assert rows[1]["fake_probability"] == str(lines[2]["fake_probability"])
    assert len(kept.read_text().splitlines()) == 3

    page = tmp_path / "report.html"
    assert lipsync("report", "200.mp4", "--from-json", kept, "--out", page, cwd=tmp_path).returncode == 0
    assert "200.mp4" in page.read_text()


def _as_in_foreground() -> None:
    """What a shell starts in the background, tests too, inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted(plain_video: Path, tmp_path: Path):
    kept = tmp_path / "kept.jsonl"
    copies = [shutil.copy(plain_video, tmp_path / f"{i}.mp4") for i in range(40)]
    command = [sys.executable, "-m", "app.cli", "analyze", *copies, "--output", kept]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_as_in_foreground
    )
    while process.poll() is None and not (kept.exists() and kept.read_text().count("\n") > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr and "of 40 files" in stderr and "--output" in stderr
    assert "0.mp4" in stdout
    assert 1 <= len(read_outcomes(kept)) < 40


def test_by_a_service(live: Live, videos: Path):
    done = inside("analyze", videos, "--url", live.url, "--json")
    assert done.exit_code == 4
    good, bad = map(json.loads, done.stdout.splitlines())
    AnalysisResponse.model_validate(good)
    assert good["request_id"] and good["parameters"] == {"window_s": 1.0, "hop_s": 0.2, "max_faces": 4}
    assert set(bad) == {"path", "size_bytes", "modified_s", "parameters", "error"}
    assert set(bad["error"]) == {"code", "detail"}
    assert inside("analyze", videos / "plain.MP4", "--url", live.url).exit_code == 3


def test_a_video_too_long_to_wait_for_becomes_a_job(live: Live, tmp_path: Path):
    long = write_media(tmp_path / "long.mp4", seconds=21, size=(80, 60), fps=5)
    done = inside("analyze", long, "--url", live.url, "--json")
    answer = json.loads(done.stdout)
    assert answer["media"]["duration_s"] > 20, answer


def test_what_is_analysed_again(live: Live, videos: Path, tmp_path: Path):
    kept, video = tmp_path / "kept.jsonl", videos / "plain.MP4"

    def analyses(*more: object) -> int:
        before = len(kept.read_text().splitlines()) if kept.exists() else 0
        assert inside("analyze", video, "--url", live.url, "--output", kept, *more).exit_code == 3
        return len(kept.read_text().splitlines()) - before

    assert analyses() == 1
    assert analyses() == 0
    os.utime(video, (1, 1))
    assert analyses() == 0, "the same bytes"
    assert analyses("--hop-s", 0.5) == 1, "another question"
    assert analyses("--hop-s", 0.5) == 0
    kept.write_bytes(kept.read_bytes()[:-50])
    assert analyses("--hop-s", 0.5) == 1, "an unfinished line"
    with video.open("ab") as file:
        file.write(bytes(8))
    assert analyses("--hop-s", 0.5) == 1, "another file"


def test_a_report_by_a_service(live: Live, plain_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = inside("report", plain_video, "--url", live.url)
    assert done.output == "plain.mp4.report.html: inconclusive\n"
    assert "plain.mp4" in Path("plain.mp4.report.html").read_text()
    Path("answer.json").write_text(json.dumps(EXAMPLE))
    assert inside("report", "--from-json", "answer.json", "--out", "a.png").exit_code == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["real", "real"], 0), (["real", "inconclusive"], 3), (["inconclusive", "error", "real"], 4),
        (["error", "inconclusive", "fake"], 1), ([], 0),
    ],
)  # fmt: skip
def test_the_exit_status_is_that_of_the_worst(verdicts: list[str], status: int):
    assert exit_code(map(outcome, verdicts)) == status


def test_outcomes_survive_being_written():
    for one in map(outcome, ("fake", "error")):
        assert Outcome.from_json(one.as_json()) == one
        assert len(one.as_csv().split(",")) >= 12


def test_no_video_twice(videos: Path):
    found = find_videos([videos / "plain.MP4", videos, videos / "more" / ".." / "plain.MP4", videos / "notes.txt"])
    assert [path.name for path in found] == ["plain.MP4", "[bold]broken.mkv", "notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["analyze", "nowhere.mp4"], 2, "does not exist"),
        (["analyze", "."], 2, "no video in it"),
        (["analyze", "text", "--json", "--csv"], 2, "exclude each other"),
        (["analyze", "text", "--window-s", "99"], 2, "--window-s"),
        (["analyze", "text", "--output", "text"], 2, "not the outcome"),
        (["analyze", "text", "--device", "tpu"], 4, "LIPSYNC_DEVICE=tpu"),
        (["analyze", "text", "--url", "http://127.0.0.1:9"], 4, "can't be reached"),
        (["analyze", "text", "--url", "nonsense"], 4, "http://"),
        (["report"], 2, "name a video"),
        (["report", "text", "--out", "a.gif"], 2, ".png"),
        (["report", "--from-json", "text"], 4, "not an answer"),
        (["sample", "a.gif"], 4, "suffix must be"),
        (["sample", "nowhere/a.mp4"], 4, "can't be written"),
        (["train", "--data", "."], 4, "No clips"),
        (["evaluate", "--data", "nowhere"], 2, "does not exist"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    arguments: list,
    status: int,
    says: str,
):
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("no video")
    monkeypatch.setattr(sys, "argv", ["lipsync", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == status
    stderr = capfd.readouterr().err
    assert says in " ".join(stderr.split()) and "Traceback" not in stderr


def test_help_and_version_are_light():
    done = lipsync("--version")
    assert done.stdout == f"lipsync {VERSION}\n"
    assert "Exit status" in lipsync("analyze", "--help").stdout
    heavy = "import sys, app.cli, app.client; assert not {'torch', 'cv2', 'matplotlib', 'fastapi'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy], cwd=ROOT).returncode == 0


def test_bench_needs_the_source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    assert "checkout" in str(inside("bench").exception)


def test_a_sample_is_written(tmp_path: Path):
    out = tmp_path / "talk.mp4"
    assert lipsync("sample", out, "--seconds", 0.4, "--offset-ms", -80).stdout.startswith(str(out))
    assert out.stat().st_size > 1000
