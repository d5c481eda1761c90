/** Charts on one axis of time, with one playhead: the voice, and of each face its scores and its offset. */

import uPlot from "./vendor/uPlot.esm.js";
import { clock } from "./words.js";

/** @typedef {import("./types.js").Track} Track */
/** @typedef {import("./types.js").Window} Window */

const CURSOR = "time";
const AXIS_PX = 58;
const ENVELOPE_S = 0.04;
const NO_POINTS = { show: false };
const DENSE = 1500;
/** Shortest span of time that is shown, in seconds. */
const CLOSEST_S = 1;

/** Colours of the style sheet, by the names of its variables; read anew when light turns to dark. */
const colours = new Proxy({}, {
  get: (known, name) => (known[name] ??= getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()),
});

/** All charts of a result: the span of time that they show, where the playhead is, and where the pointer. */
export class Timeline {
  /**
   * @param {number} durationS
   * @param {{seek: (timeS: number) => void, point: (timeS: number|null) => void}} told
   */
  constructor(durationS, told) {
    this.durationS = Math.max(durationS, 0.04);
    this.timeS = 0;
    this._told = told;
    this._charts = new Set();
    this._from = 0;
    this._to = this.durationS;
    this._resized = new ResizeObserver((entries) => entries.forEach(({ target }) => this._fit(target)));
    this._dark = matchMedia("(prefers-color-scheme: dark)");
    this._recolour = () => {
      for (const name of Object.keys(colours)) delete colours[name];
      this._charts.forEach(({ plot }) => plot.redraw(false));
    };
    this._dark.addEventListener("change", this._recolour);
  }

  close() {
    this._dark.removeEventListener("change", this._recolour);
    this._resized.disconnect();
    this._charts.forEach(({ plot }) => plot.destroy());
    this._charts.clear();
  }

  /** @param {number} timeS the playhead's; the charts follow when it leaves them */
  move(timeS) {
    this.timeS = timeS;
    const span = this._to - this._from;
    if (timeS < this._from || timeS > this._to) this.show(timeS - span * 0.1, timeS + span * 0.9);
    this._charts.forEach((chart) => this._place(chart));
  }

  /** @param {number} factor how many times as much time is shown */
  zoom(factor) {
    const span = (this._to - this._from) * factor;
    this.show(this.timeS - span / 2, this.timeS + span / 2);
  }

  /** @param {number} fromS @param {number} toS */
  show(fromS, toS) {
    const span = Math.min(Math.max(toS - fromS, CLOSEST_S), this.durationS);
    this._from = Math.min(Math.max(0, fromS), this.durationS - span);
    this._to = this._from + span;
    this._charts.forEach(({ plot }) => plot.setScale("x", { min: this._from, max: this._to }));
    this._charts.forEach((chart) => this._place(chart));
  }

  /**
   * @param {HTMLElement} element empty
   * @param {number} height
   * @param {number[][]} data
   * @param {{y: object, axis: object, series: object[], under?: (plot: uPlot) => void, over?: (plot: uPlot) => void,
   *   times?: boolean}} drawn
   */
  add(element, height, data, { y, axis, series, under, over, times = false }) {
    const plot = new uPlot({
      width: element.clientWidth, height: height + (times ? 22 : 0), legend: { show: false },
      padding: [6, 24, times ? 0 : 6, 0],
      scales: { x: { time: false, range: () => [this._from, this._to] }, y },
      axes: [
        {
          show: times, size: 22, gap: 2, stroke: () => colours.soft, grid: { show: false },
          ticks: { stroke: () => colours.line, size: 4 }, font: "11px system-ui, sans-serif", space: 64,
          values: (_, splits) => splits.map((at) => clock(at, this._to - this._from < 5 ? 1 : 0)),
          incrs: [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600],
        },
        {
          size: AXIS_PX, gap: 4, stroke: () => colours.soft, font: "11px system-ui, sans-serif",
          grid: { stroke: () => colours.grid, width: 1 }, ticks: { show: false }, ...axis,
        },
      ],
      series: [{}, ...series],
      cursor: {
        y: false, points: { show: false }, drag: { x: true, y: false, setScale: false, dist: 6 },
        sync: { key: CURSOR, setSeries: false, scales: ["x", null] },
      },
      hooks: {
        drawClear: [(drawing) => under?.(drawing)],
        draw: [(drawing) => over?.(drawing)],
        setCursor: [(pointed) => this._point(pointed)],
        setSelect: [(selected) => this._select(selected)],
      },
    }, data, element);
    const playhead = document.createElement("div");
    playhead.className = "playhead";
    plot.over.append(playhead);
    plot.over.addEventListener("click", (event) => this._told.seek(plot.posToVal(event.offsetX, "x")));
    const chart = { plot, playhead, element };
    this._charts.add(chart);
    this._resized.observe(element);
    this._place(chart);
  }

  _fit(element) {
    for (const { plot, element: its } of this._charts) {
      if (its === element && element.clientWidth && element.clientWidth !== plot.width) {
        plot.setSize({ width: element.clientWidth, height: plot.height });
      }
    }
    this.move(this.timeS);
  }

  _place({ plot, playhead }) {
    playhead.style.transform = `translateX(${plot.valToPos(this.timeS, "x")}px)`;
  }

  _point(plot) {
    const { left } = plot.cursor;
    this._told.point(left >= 0 ? plot.posToVal(left, "x") : null);
  }

  _select(plot) {
    const { left, width } = plot.select;
    if (width > 0) {
      this.show(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
      plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    }
  }
}

/**
 * The voice: how loud it is, and when it speaks.
 * @param {Timeline} timeline @param {HTMLElement} element @param {number[]} waveform @param {[number, number][]} speech
 */
export function addVoice(timeline, element, waveform, speech) {
  const times = waveform.map((_, i) => (i + 0.5) * ENVELOPE_S);
  const loudest = waveform.reduce((most, peak) => Math.max(most, peak), 0.05);
  const line = { stroke: () => colours.voice, fill: () => colours.voice, width: 1, points: NO_POINTS, fillTo: 0 };
  timeline.add(element, 96, [times, waveform, waveform.map((peak) => -peak)], {
    y: { range: [-loudest * 1.15, loudest * 1.15] },
    axis: { splits: [0], values: () => ["voice"], grid: { show: false } },
    series: [line, line],
    under: (plot) => {
      const { top, height } = plot.bbox;
      hatch(plot, [[0, timeline.durationS]]);
      for (const [left, width] of boxes(plot, speech)) {
        plot.ctx.fillStyle = colours.paper;
        plot.ctx.fillRect(left, top, width, height);
        plot.ctx.fillStyle = colours.speech;
        plot.ctx.fillRect(left, top, width, height);
        plot.ctx.fillStyle = colours["speech-line"];
        plot.ctx.fillRect(left, top + height - 4 * uPlot.pxRatio, width, 4 * uPlot.pxRatio);
      }
    },
  });
}

/**
 * Fake probability, sync score and filmed look of every window, at its middle.
 * @param {Timeline} timeline @param {HTMLElement} element @param {Window[]} windows
 * @param {{real_below: number, fake_above: number}} thresholds
 */
export function addScores(timeline, element, windows, thresholds) {
  const of = (name) => windows.map((window) => window[name]);
  const points = { show: (plot) => shownPoints(plot) < 60, size: 4 };
  timeline.add(element, 136, [middles(windows), of("sync_score"), of("content_score"), of("fake_probability")], {
    y: { range: [-0.03, 1.03] },
    axis: { splits: [0, 0.25, 0.5, 0.75, 1], values: (_, splits) => splits.map((at) => (at % 0.5 ? "" : at.toFixed(1))) },
    series: [
      { stroke: () => colours.sync, width: 1.5, dash: [7, 4], points: { ...points, fill: () => colours.sync } },
      { stroke: () => colours.filmed, width: 1.5, dash: [2, 3], points: NO_POINTS },
      { stroke: () => colours.fake, width: 2.25, points: { ...points, size: 5, fill: () => colours.fake } },
    ],
    under: (plot) => hatch(plot, silent(windows)),
    over: (plot) => {
      level(plot, thresholds.fake_above, colours.fake, [10, 4]);
      level(plot, thresholds.real_below, colours.soft, [10, 4]);
    },
  });
}

/**
 * The sound's best offset of every window.
 * @param {Timeline} timeline @param {HTMLElement} element @param {Window[]} windows @param {Track} track
 */
export function addOffsets(timeline, element, windows, track) {
  const offsets = windows.map((window) => window.offset_ms);
  const known = offsets.filter((ms) => ms !== null).map(Math.abs);
  const most = Math.max(200, Math.ceil(known.reduce((a, b) => Math.max(a, b), 0) / 200) * 200);
  timeline.add(element, 92, [middles(windows), offsets], {
    y: { range: [-most * 1.12, most * 1.12] },
    axis: {
      splits: [-most, 0, most],
      values: (_, splits) => splits.map((ms) => (ms ? `${ms > 0 ? "+" : "−"}${Math.abs(ms)} ms` : "0 ms")),
    },
    series: [{
      stroke: () => colours.offset,
      ...(windows.length > DENSE ? { width: 1, points: NO_POINTS } : {
        paths: () => null, points: { show: true, size: 5, fill: () => colours.offset },
      }),
    }],
    under: (plot) => hatch(plot, silent(windows)),
    over: (plot) => track.offset_ms !== null && level(plot, track.offset_ms, colours.offset, [2, 4]),
    times: true,
  });
}

/**
 * Sync scores while they come in.
 * @param {Timeline} timeline @param {HTMLElement} element @param {Window[]} windows
 */
export function addEarly(timeline, element, windows) {
  timeline.add(element, 90, [middles(windows), windows.map((window) => window.sync_score)], {
    y: { range: [-0.03, 1.03] },
    axis: { splits: [0, 0.5, 1] },
    series: [{ stroke: () => colours.sync, width: 1.5, points: { show: true, size: 4, fill: () => colours.sync }, paths: () => null }],
    under: (plot) => hatch(plot, silent(windows)),
    times: true,
  });
}

/** @param {Window} window @returns {number} */
export const middle = (window) => (window.start_s + window.end_s) / 2;

/** @param {Window[]} windows */
const middles = (windows) => windows.map(middle);

/** @param {Window[]} windows of one face, in order @returns {number} seconds from one to the next */
export function hopOf(windows) {
  return windows.length > 1 ? windows[1].start_s - windows[0].start_s : 0.2;
}

/** Spans of windows without scores. @param {Window[]} windows @returns {[number, number][]} */
function silent(windows) {
  const half = hopOf(windows) / 2;
  /** @type {[number, number][]} */
  const spans = [];
  for (const window of windows) {
    if (!window.note) continue;
    const [from, to] = [middle(window) - half, middle(window) + half];
    const last = spans.at(-1);
    if (last && from <= last[1] + half) last[1] = to;
    else spans.push([from, to]);
  }
  return spans;
}

/** @param {uPlot} plot @returns {number} how many values it shows */
function shownPoints(plot) {
  const { min, max } = plot.scales.x;
  return plot.valToIdx(max) - plot.valToIdx(min);
}

/** Left and width of spans of time, in canvas pixels. @param {uPlot} plot @param {[number, number][]} spans */
function boxes(plot, spans) {
  const { left, width } = plot.bbox;
  const clamp = (x) => Math.min(Math.max(x, left), left + width);
  return spans
    .map(([from, to]) => [clamp(plot.valToPos(from, "x", true)), clamp(plot.valToPos(to, "x", true))])
    .filter(([from, to]) => to > from)
    .map(([from, to]) => [from, to - from]);
}

/** Hatch spans of time in which there is nothing. @param {uPlot} plot @param {[number, number][]} spans */
function hatch(plot, spans) {
  const { ctx, bbox } = plot;
  const gap = 7 * uPlot.pxRatio;
  ctx.save();
  ctx.beginPath();
  for (const [left, width] of boxes(plot, spans)) ctx.rect(left, bbox.top, width, bbox.height);
  ctx.clip();
  ctx.beginPath();
  for (let x = bbox.left - bbox.height; x < bbox.left + bbox.width; x += gap) {
    ctx.moveTo(x, bbox.top + bbox.height);
    ctx.lineTo(x + bbox.height, bbox.top);
  }
  ctx.strokeStyle = colours.hatch;
  ctx.lineWidth = uPlot.pxRatio;
  ctx.stroke();
  ctx.restore();
}

/** A level line. @param {uPlot} plot @param {number} value @param {string} colour @param {number[]} dash */
function level(plot, value, colour, dash) {
  const { ctx, bbox } = plot;
  const y = Math.round(plot.valToPos(value, "y", true));
  ctx.save();
  ctx.beginPath();
  ctx.setLineDash(dash.map((length) => length * uPlot.pxRatio));
  ctx.lineWidth = uPlot.pxRatio;
  ctx.strokeStyle = colour;
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}
