/** One lane of the timeline for the voice, and one for each face: charts, the mouth, and what they show right now. */

import { addOffsets, addScores, addVoice, hopOf, middle } from "./charts.js";
import { make } from "./dom.js";
import { drawMouth, placeAt } from "./player.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").Analysis} Analysis */
/** @typedef {import("./types.js").Track} Track */
/** @typedef {import("./types.js").Window} Window */

const SCORES = [["fake", "Fake probability"], ["sync", "Sync score"], ["filmed", "Filmed look"]];

/** @param {import("./charts.js").Timeline} timeline @param {HTMLElement} parent @param {Analysis} analysis */
export function addVoiceLane(timeline, parent, { playback, media }) {
  const spoken = playback.speech.reduce((sum, [from, to]) => sum + to - from, 0);
  const summary = media.audio_codec
    ? `Speech for ${spoken.toFixed(1)} s of ${media.duration_s.toFixed(1)} s`
    : "The file has no sound.";
  const chart = make("div", { className: "chart", role: "img", "aria-label": `Loudness of the sound. ${summary}` });
  parent.append(make("section", { className: "lane" },
    make("div", { className: "lane-head" }, make("h3", {}, "Voice"), make("p", { className: "small" }, summary)),
    make("div", { className: "lane-body" },
      make("p", { className: "legend gutter" }, key("speech", "speech"), key("silence", "silence")), chart)));
  addVoice(timeline, chart, playback.waveform, playback.speech);
}

/** The lane of one face. */
export class FaceLane {
  /**
   * @param {import("./charts.js").Timeline} timeline @param {HTMLElement} parent @param {Analysis} analysis
   * @param {Track} track @param {Window[]} windows of the track, in order
   */
  constructor(timeline, parent, analysis, track, windows) {
    this._windows = windows;
    this.trackId = track.track_id;
    this._media = analysis.media;
    this._stepS = analysis.playback.step_s;
    this._places = analysis.playback.places.find((one) => one.track_id === track.track_id);
    const name = words.face(track.track_id);
    this._mouth = make("canvas", { className: "mouth", role: "img", "aria-label": `Mouth of ${name}` });
    this._values = Object.fromEntries([...SCORES, ["offset"]].map(([kind]) => [kind, make("b", {}, "–")]));
    this._note = make("span", { className: "note" });
    const scores = make("div", { className: "chart", role: "img", "aria-label": described(name, windows) });
    const offsets = make("div", {
      className: "chart", role: "img",
      "aria-label": `Offset of the sound over time, ${name}. ${track.offset_ms === null ? "Unknown" : words.offset(track.offset_ms)} on the whole.`,
    });
    parent.append(make("section", { className: "lane" },
      make("div", { className: "lane-head" }, make("h3", {}, name), make("p", { className: "small" }, words.lane(track))),
      make("div", { className: "lane-body" },
        make("figure", { className: "gutter" }, this._mouth,
          make("figcaption", {}, "The mouth as the detector saw it")),
        make("div", {},
          make("p", { className: "legend" },
            ...SCORES.map(([kind, title]) => key(kind, title, this._values[kind])), this._note),
          scores,
          make("p", { className: "legend" }, key("offset", "Sound late (+) or early (−)", this._values.offset)),
          offsets))));
    addScores(timeline, scores, windows, analysis.model.thresholds);
    addOffsets(timeline, offsets, windows, track);
  }

  /** @param {string} what @param {number} timeS */
  place(what, timeS) {
    return this._places ? placeAt(this._places, what, this._stepS, timeS) : null;
  }

  /** Cut the mouth out of the picture that the video shows. @param {HTMLVideoElement} video @param {number} timeS */
  drawMouth(video, timeS) {
    drawMouth(this._mouth, video, this._media, this.place("mouths", timeS));
  }

  /** Say what the charts show at a time. @param {number} timeS */
  read(timeS) {
    const window = windowAt(this._windows, timeS);
    const say = (kind, value, text) => { this._values[kind].textContent = value == null ? "–" : text(value); };
    say("fake", window?.fake_probability, words.probability);
    say("sync", window?.sync_score, words.probability);
    say("filmed", window?.content_score, words.probability);
    say("offset", window?.offset_ms, words.offset);
    const missing = window?.fake_probability === null ? words.evidence(window) : "";
    this._note.textContent = window ? missing : "no window here";
  }
}

/**
 * The window whose middle is nearest to a time, if it is in it.
 * @param {Window[]} windows in order @param {number} timeS @returns {Window|undefined}
 */
export function windowAt(windows, timeS) {
  if (!windows.length) return undefined;
  const at = Math.round((timeS - middle(windows[0])) / hopOf(windows));
  const nearest = windows[Math.min(Math.max(at, 0), windows.length - 1)];
  return timeS >= nearest.start_s && timeS <= nearest.end_s ? nearest : undefined;
}

/** What the chart of scores shows, in words. @param {string} name @param {Window[]} windows */
function described(name, windows) {
  const known = windows.filter((window) => window.fake_probability !== null);
  if (!known.length) return `Scores of ${name} over time: no evidence.`;
  const worst = known.reduce((a, b) => (b.fake_probability > a.fake_probability ? b : a));
  return `Scores of ${name} over time: ${known.length} of ${windows.length} windows have evidence; the highest fake `
    + `probability is ${words.probability(worst.fake_probability)}, at ${words.clock(middle(worst))}. `
    + "The table of windows has all values.";
}

/** An entry of a legend. @param {string} kind @param {string} title @param {Node} [value] */
function key(kind, title, value) {
  return make("span", { className: "key" }, make("i", { className: `sample ${kind}` }), title, value ? " " : "", value ?? "");
}
