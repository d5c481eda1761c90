/** A result: the verdict, the player, and the timeline in time with it. */

import { Timeline, hopOf } from "./charts.js";
import { $, make, save } from "./dom.js";
import { report } from "./jobs.js";
import { FaceLane, addVoiceLane } from "./lanes.js";
import { Player, drawBoxes } from "./player.js";
import { WindowTable } from "./table.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").Analysis} Analysis */
/** @typedef {import("./types.js").Track} Track */

const FACES_AT_ONCE = 4;
const MARKS = {
  fake: "M24 6 44 40H4ZM24 19v10m0 5v1",
  real: "M24 5a19 19 0 1 1 0 38a19 19 0 1 1 0-38m-9 19 7 7 12-13",
  inconclusive: "M24 5a19 19 0 1 1 0 38a19 19 0 1 1 0-38m-7 14h14m-14 10h14",
};
const ADVICE_TITLES = { fake: "What to look at", real: "What to look at", inconclusive: "What would help" };
const BOX_COLOUR = "#ffb000";

/** Shows one analysis until it is closed. */
export class Result {
  /** @param {Analysis} analysis @param {File|null} file null: the video is not at hand @param {string} jobId */
  constructor(analysis, file, jobId) {
    this._analysis = analysis;
    this._stem = file?.name.replace(/\.[^.]*$/, "") || "video";
    this._jobId = jobId;
    this._address = file && URL.createObjectURL(file);
    this._lanes = [];
    this._pointed = null;
    this._left = new AbortController();
    this._tracks = inOrder(analysis.tracks);
    this._windows = Map.groupBy(analysis.windows, (window) => window.track_id);
    this._hopS = hopOf(this._windows.values().next().value ?? []);
    this._showVerdict();
    this._showFacts();
    $("result").hidden = false;

    this._player = new Player($("video"), analysis.media.duration_s, {
      moved: (timeS) => this._moved(timeS),
      changed: () => { $("play").textContent = this._player.playing ? "Pause" : "Play"; },
      picture: (there, sound) => this._pictureKnown(there, sound),
    });
    this._timeline = new Timeline(analysis.media.duration_s, {
      seek: (timeS) => this._player.seek(timeS),
      point: (timeS) => this._point(timeS),
    });
    this._table = new WindowTable(analysis.windows, (timeS) => this._player.seek(timeS));
    this._showStage();
    addVoiceLane(this._timeline, $("lanes"), analysis);
    this._addLanes();
    this._listen();
    this._moved(0);
    this._player.open(this._address);
  }

  close() {
    this._left.abort();
    this._player.close();
    this._timeline.close();
    this._table.close();
    if (this._address) URL.revokeObjectURL(this._address);
    for (const id of ["lanes", "reasons", "advice", "moments", "gauge", "warnings", "file-facts"]) $(id).replaceChildren();
    $("result").hidden = true;
  }

  // ---- The verdict -------------------------------------------------------------------------------------------

  _showVerdict() {
    const analysis = this._analysis;
    const { sentence, meaning } = words.verdict(analysis);
    $("verdict").dataset.verdict = analysis.verdict;
    $("verdict-mark").firstElementChild.setAttribute("d", MARKS[analysis.verdict]);
    $("verdict-sentence").textContent = sentence;
    $("verdict-meaning").textContent = meaning;
    $("reasons").replaceChildren(...analysis.reasons.map(({ detail }) => make("li", {}, detail)));
    $("advice").replaceChildren(...words.advice(analysis).map((text) => make("li", {}, text)));
    $("advice-title").textContent = analysis.fake_probability === null ? "What is missing" : ADVICE_TITLES[analysis.verdict];
    this._showGauge();
    this._showMoments();
  }

  _showGauge() {
    const { fake_probability: found, model: { thresholds } } = this._analysis;
    $("gauge").hidden = found === null;
    if (found === null) return;
    const zone = (name, from, to) => {
      const element = make("span", { className: `zone ${name}` }, make("span", {}, name.replaceAll("-", " ")));
      element.style.flexGrow = String(to - from);
      return element;
    };
    const marker = make("span", { className: "marker" }, words.probability(found));
    marker.style.insetInlineStart = `${found * 100}%`;
    $("gauge").setAttribute("aria-label", `Fake probability ${words.probability(found)} on a scale from 0 to 1; below `
      + `${thresholds.real_below.toFixed(2)} is no sign of a fake, above ${thresholds.fake_above.toFixed(2)} points to a fake.`);
    $("gauge").replaceChildren(marker, zone("no-sign", 0, thresholds.real_below),
      zone("inconclusive", thresholds.real_below, thresholds.fake_above), zone("points-to-a-fake", thresholds.fake_above, 1));
  }

  _showMoments() {
    const { title, note } = words.moments(this._analysis);
    const frames = this._analysis.playback.key_frames;
    $("moments-part").hidden = frames.length === 0;
    $("moments-title").textContent = title;
    $("moments-note").textContent = note;
    $("moments").replaceChildren(...frames.map((frame) => {
      const picture = (data, alt) => make("img", { src: `data:image/jpeg;base64,${data}`, alt });
      const name = words.face(frame.track_id);
      const button = make("button", { type: "button", className: "moment" },
        picture(frame.picture, `Picture with ${name} in a box`), picture(frame.mouth, "its mouth"),
        make("span", {}, `${words.clock(frame.time_s)} · ${name}`),
        make("span", {}, `fake probability ${words.probability(frame.fake_probability)}`));
      button.addEventListener("click", () => {
        this._player.seek(frame.time_s);
        $("stage").scrollIntoView({ block: "nearest" });
      });
      return make("li", {}, button);
    }));
  }

  _showFacts() {
    const { media, model, sync, warnings, timing_ms: timing } = this._analysis;
    $("warnings").hidden = warnings.length === 0;
    $("warnings").replaceChildren(...warnings.map((warning) => make("li", {}, warning)));
    const facts = {
      Length: `${media.duration_s.toFixed(1)} s`,
      Picture: `${media.width} × ${media.height}, ${Number(media.fps.toFixed(2))} a second, ${media.video_codec}`,
      Sound: media.audio_codec ? `${media.audio_codec}, ${media.sample_rate} Hz` : "none",
      "Sound on the whole": sync.offset_ms === null ? "offset unknown"
        : `${words.offset(sync.offset_ms)} (sure to ${words.probability(sync.confidence)} within 40 ms)`,
      "SHA-256": media.sha256,
      Detector: `${model.name} ${model.version} on ${model.device}, in ${(timing.total / 1000).toFixed(1)} s`,
    };
    $("file-facts").replaceChildren(...Object.entries(facts).flatMap(([name, fact]) => [make("dt", {}, name), make("dd", {}, fact)]));
  }

  // ---- The player and the timeline ---------------------------------------------------------------------------

  _showStage() {
    const { width, height, duration_s } = this._analysis.media;
    $("stage").style.aspectRatio = `${width} / ${height}`;
    $("stage").style.setProperty("--shape", String(width / height));
    $("no-picture").hidden = true;
    $("result").classList.remove("pictureless");
    $("seek").max = String(duration_s);
    $("speed").value = "1";
    $("video").muted = false;
    this._showMuted();
  }

  _pictureKnown(there, sound) {
    $("no-picture").hidden = there;
    const why = this._address
      ? `This browser can't show the picture of this kind of file${sound ? ", only play its sound" : ""}. `
      : "The service did not keep the video. To see it here, check it again. ";
    $("no-picture").textContent = `${why}The analysis is complete: charts, boxes and moments work as usual.`;
    $("result").classList.toggle("pictureless", !there);
  }

  _addLanes() {
    const next = this._tracks.slice(this._lanes.length, this._lanes.length + FACES_AT_ONCE);
    for (const track of next) {
      const windows = this._windows.get(track.track_id) ?? [];
      this._lanes.push(new FaceLane(this._timeline, $("lanes"), this._analysis, track, windows));
    }
    const left = this._tracks.length - this._lanes.length;
    $("more-faces").hidden = left === 0;
    $("more-faces").textContent = `Show ${Math.min(left, FACES_AT_ONCE)} more of ${this._tracks.length} faces`;
  }

  _moved(timeS) {
    const { duration_s: durationS, width, height } = this._analysis.media;
    $("seek").value = String(timeS);
    $("seek").style.setProperty("--done", `${(timeS / durationS) * 100}%`);
    $("seek").setAttribute("aria-valuetext", `${words.clock(timeS)} of ${words.clock(durationS)}`);
    $("time").textContent = `${words.clock(timeS)} / ${words.clock(durationS)}`;
    this._timeline.move(timeS);
    drawBoxes($("boxes"), { width, height },
      this._lanes.map((lane) => ({ trackId: lane.trackId, box: lane.place("boxes", timeS) })), BOX_COLOUR);
    for (const lane of this._lanes) {
      if (this._player.hasPicture) lane.drawMouth($("video"), timeS);
      if (this._pointed === null) lane.read(timeS);
    }
  }

  _point(timeS) {
    this._pointed = timeS;
    for (const lane of this._lanes) lane.read(timeS ?? this._player.timeS);
  }

  // ---- What people do ----------------------------------------------------------------------------------------

  _listen() {
    const { signal } = this._left;
    const on = (id, name, act) => $(id).addEventListener(name, act, { signal });
    const player = this._player;
    on("play", "click", () => player.toggle());
    on("back", "click", () => player.seek(player.timeS - this._hopS));
    on("forth", "click", () => player.seek(player.timeS + this._hopS));
    on("seek", "input", () => player.seek($("seek").valueAsNumber));
    on("speed", "change", () => player.speed(Number($("speed").value)));
    on("mute", "click", () => {
      $("video").muted = !$("video").muted;
      this._showMuted();
    });
    on("stage", "click", () => player.toggle());
    on("zoom-in", "click", () => this._timeline.zoom(0.5));
    on("zoom-out", "click", () => this._timeline.zoom(2));
    on("zoom-all", "click", () => this._timeline.zoom(Infinity));
    on("more-faces", "click", () => {
      this._addLanes();
      this._moved(player.timeS);
    });
    on("save-json", "click", () => this._saveJson());
    on("save-report", "click", () => this._saveReport());
    document.addEventListener("keydown", (event) => this._key(event), { signal });
    window.addEventListener("resize", () => this._moved(player.timeS), { signal });
  }

  _key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { target } = event;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && !target.closest("select, .scroller, input:not(#seek)")) {
      this._player.seek(this._player.timeS + step * this._hopS * (event.shiftKey ? 5 : 1));
    } else if (event.key === " " && (target === $("seek") || !target.closest("button, a, input, select, summary, .scroller"))) {
      this._player.toggle();
    } else {
      return;
    }
    event.preventDefault();
  }

  _showMuted() {
    $("mute").setAttribute("aria-pressed", String($("video").muted));
  }

  _saveJson() {
    const { playback, ...answer } = this._analysis;
    save(new Blob([JSON.stringify(answer, null, 2)], { type: "application/json" }), `${this._stem}.lipsync.json`);
  }

  async _saveReport() {
    $("save-trouble").hidden = true;
    try {
      save(await report(this._jobId), `${this._stem}.lipsync.html`);
    } catch (error) {
      $("save-trouble").hidden = false;
      $("save-trouble").textContent = error.problem?.code === "job_not_found"
        ? "The service has forgotten this analysis, and with it the report. The JSON can still be downloaded; or analyse the video again."
        : `The report could not be fetched. ${error.problem?.detail ?? ""}`;
    }
  }
}

/** Who speaks most comes first. @param {Track[]} tracks @returns {Track[]} */
function inOrder(tracks) {
  const speaks = (track) => track.speaking_share * (track.end_s - track.start_s);
  return tracks.toSorted((a, b) => speaks(b) - speaks(a) || a.track_id - b.track_id);
}
