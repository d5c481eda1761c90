/** All windows as a table: what the charts show, for who can't see them or wants the numbers. */

import { middle } from "./charts.js";
import { $, make } from "./dom.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").Window} Window */

const AT_ONCE = 100;

/** Fills the table when it is opened. */
export class WindowTable {
  /** @param {Window[]} windows @param {(timeS: number) => void} seek */
  constructor(windows, seek) {
    this._windows = windows;
    this._seek = seek;
    this._left = new AbortController();
    const { signal } = this._left;
    $("table").addEventListener("toggle", () => this._fill(), { signal });
    $("table-order").addEventListener("change", () => this._fill(), { signal });
    $("more-rows").addEventListener("click", () => this._more(), { signal });
    this._fill();
  }

  close() {
    this._left.abort();
    $("table").open = false;
    $("rows").replaceChildren();
  }

  _fill() {
    $("rows").replaceChildren();
    if (!$("table").open) return;
    const suspicious = $("table-order").value === "suspicious";
    this._ordered = suspicious
      ? this._windows.toSorted((a, b) => (b.fake_probability ?? -1) - (a.fake_probability ?? -1))
      : this._windows.toSorted((a, b) => a.start_s - b.start_s || a.track_id - b.track_id);
    this._more();
  }

  _more() {
    const shown = $("rows").childElementCount;
    $("rows").append(...this._ordered.slice(shown, shown + AT_ONCE).map((window) => this._row(window)));
    const now = Math.min(shown + AT_ONCE, this._windows.length);
    $("table-note").textContent = `${now} of ${this._windows.length} windows; the JSON has them all.`;
    $("more-rows").hidden = now === this._windows.length;
  }

  _row(window) {
    const score = (value) => make("td", { className: "number" }, value === null ? "–" : words.probability(value));
    const when = make("button", { type: "button", className: "link" }, `${words.clock(window.start_s)}–${words.clock(window.end_s)}`);
    when.addEventListener("click", () => this._seek(middle(window)));
    return make("tr", {}, make("th", { scope: "row" }, when), make("td", {}, words.face(window.track_id)),
      score(window.fake_probability), score(window.sync_score), score(window.content_score),
      make("td", {}, window.offset_ms === null ? "–" : words.offset(window.offset_ms)),
      make("td", {}, words.evidence(window)));
  }
}
