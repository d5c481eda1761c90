"""A rough preview of the Grafana dashboard, from a Prometheus that scrapes the service; no Grafana needed.

Run: ``python -m scripts.dashboard --prometheus http://127.0.0.1:9090 --minutes 30 --out dashboard.png``.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

DASHBOARD = Path(__file__).parent.parent / "deploy" / "monitoring" / "grafana" / "dashboards" / "lipsync.json"
RATE_INTERVAL = "1m"
CELL_WIDTH_IN, CELL_HEIGHT_IN = 1.0, 0.42


def series(prometheus: str, target: dict[str, Any], minutes: float) -> list[tuple[str, list[float], list[float]]]:
    """Label, minutes before now, values. Raises httpx.HTTPStatusError where the query is refused."""
    now = time.time()
    query = {
        "query": target["expr"].replace("$__rate_interval", RATE_INTERVAL),
        "start": now - 60 * minutes,
        "end": now,
        "step": max(5, minutes / 5),
    }
    answer = httpx.get(f"{prometheus}/api/v1/query_range", params=query)
    answer.raise_for_status()
    found = []
    for one in answer.json()["data"]["result"]:
        label = target["legendFormat"]
        for name, value in one["metric"].items():
            label = label.replace("{{" + name + "}}", value)
        times, values = zip(*one["values"])
        label = re.sub(r"{{\w+}}", "", label).strip()
        found.append((label, [(at - now) / 60 for at in times], [float(value) for value in values]))
    return found


def draw(axes: Axes, panel: dict[str, Any], found: list[tuple[str, list[float], list[float]]]) -> None:
    """One panel."""
    axes.set_title(panel["title"], fontsize=9, loc="left")
    if panel["type"] == "stat":
        value = f"{found[0][2][-1]:.3g}" if found else "no data"
        axes.text(0.5, 0.5, value, ha="center", va="center", fontsize=20)
        return axes.set_axis_off()
    for label, minutes, values in found:
        axes.plot(minutes, values, label=label, linewidth=1)
    if not found:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, fontsize=9)
    axes.tick_params(labelsize=7)
    lowest, highest = axes.get_ylim()
    axes.set_ylim(min(0, lowest), 1.2 * highest)
    if found:
        axes.legend(fontsize=6, loc="upper left", ncols=2)


def main() -> None:
    """Draw the dashboard."""
    parser = argparse.ArgumentParser(description="Draw the dashboard's panels into one picture.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", type=Path, default=Path("dashboard.png"))
    arguments = parser.parse_args()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(24 * CELL_WIDTH_IN, height * CELL_HEIGHT_IN))
    grid = figure.add_gridspec(height, 24, left=0.02, right=0.99, top=0.99, bottom=0.01, wspace=2.5, hspace=2.5)
    for panel in panels:
        at = panel["gridPos"]
        axes = figure.add_subplot(grid[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]])
        draw(axes, panel, [one for target in panel["targets"] for one in series(
            arguments.prometheus, target, arguments.minutes
        )])  # fmt: skip
    figure.savefig(arguments.out, dpi=70)
    print(f"{len(panels)} panels: {arguments.out}")


if __name__ == "__main__":
    main()
