/** The video, or a clock in its place, and what is drawn from it: boxes over the picture, mouths cut out of it. */

import { face } from "./words.js";

/** @typedef {import("./types.js").Four} Four */
/** @typedef {import("./types.js").Places} Places */

const MOUTH_PX = 96;

/** One time for everything: the video's, as long as it can be played, else that of a clock. */
export class Player {
  /**
   * @param {HTMLVideoElement} video
   * @param {number} durationS
   * @param {{moved: (timeS: number) => void, changed: () => void, picture: (there: boolean, sound: boolean) => void}} told
   *   of every new time, of playing and pausing, and once, of what the browser can play
   */
  constructor(video, durationS, told) {
    this.video = video;
    this.durationS = durationS;
    this.hasPicture = false;
    this._told = told;
    this._onClock = false;
    this._clockS = 0;
    this._running = false;
    this._rate = 1;
    this._lastTick = 0;
    this._left = new AbortController();
    const on = (name, act) => video.addEventListener(name, act, { signal: this._left.signal });
    on("loadeddata", () => this._ready(video.videoWidth > 0));
    on("error", () => this._useClock());
    on("play", () => this._start());
    on("pause", () => told.changed());
    on("ended", () => told.changed());
    on("seeked", () => told.moved(this.timeS));
    on("timeupdate", () => told.moved(this.timeS));
  }

  /** @param {string|null} address of the video; null: it is not at hand */
  open(address) {
    if (address) this.video.src = address;
    else this._useClock();
  }

  close() {
    this._left.abort();
    this._running = false;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }

  get timeS() {
    return this._onClock ? this._clockS : Math.min(this.video.currentTime, this.durationS);
  }

  get playing() {
    return this._onClock ? this._running : !this.video.paused && !this.video.ended;
  }

  /** @param {number} timeS */
  seek(timeS) {
    const to = Math.min(Math.max(0, timeS), this.durationS);
    if (this._onClock) this._clockS = to;
    else this.video.currentTime = to;
    this._told.moved(to);
  }

  toggle() {
    if (this.playing) this._pause();
    else this._play();
  }

  /** @param {number} rate */
  speed(rate) {
    this._rate = rate;
    this.video.defaultPlaybackRate = this.video.playbackRate = rate;
  }

  _play() {
    if (!this._onClock) return void this.video.play().catch(() => this._told.changed());
    if (this._clockS >= this.durationS) this._clockS = 0;
    this._start();
  }

  _pause() {
    this._running = false;
    this.video.pause();
    this._told.changed();
  }

  _start() {
    this._running = true;
    this._lastTick = performance.now();
    this._told.changed();
    requestAnimationFrame((now) => this._tick(now));
  }

  _tick(now) {
    if (this._onClock) {
      this._clockS = Math.min(this.durationS, this._clockS + ((now - this._lastTick) / 1000) * this._rate);
      if (this._clockS >= this.durationS) this._running = false;
    }
    this._lastTick = now;
    this._told.moved(this.timeS);
    if (this.playing) requestAnimationFrame((next) => this._tick(next));
    else this._told.changed();
  }

  _ready(picture) {
    this.hasPicture = picture;
    this._told.picture(picture, true);
    this._told.moved(this.timeS);
  }

  _useClock() {
    this._onClock = true;
    this.hasPicture = false;
    this._told.picture(false, false);
    this._told.moved(this.timeS);
  }
}

/**
 * Where something is at a time: between two known places as far as the time is between them.
 * @param {Places} places @param {"boxes"|"mouths"} what @param {number} stepS @param {number} timeS
 * @returns {Four|null}
 */
export function placeAt(places, what, stepS, timeS) {
  const known = places[what];
  const at = (timeS - places.start_s) / stepS;
  if (at < -0.5 || at > known.length) return null;
  const before = Math.min(Math.max(Math.floor(at), 0), known.length - 1);
  const after = Math.min(before + 1, known.length - 1);
  const part = Math.min(Math.max(at - before, 0), 1);
  const [a, b] = [known[before], known[after]];
  if (!a || !b) return part < 0.5 ? a : b;
  return /** @type {Four} */ (a.map((value, i) => value + (b[i] - value) * part));
}

/**
 * Draw the box and the name of every face that is there.
 * @param {HTMLCanvasElement} canvas over the picture @param {{width: number, height: number}} media
 * @param {{trackId: number, box: Four|null}[]} faces @param {string} colour
 */
export function drawBoxes(canvas, media, faces, colour) {
  const ratio = window.devicePixelRatio;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const scale = width / media.width;
  context.lineWidth = 2 * ratio;
  context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { trackId, box } of faces) {
    if (!box) continue;
    const [left, top, wide, high] = box.map((value) => value * scale);
    context.strokeStyle = "#000";
    context.strokeRect(left - 1.5 * ratio, top - 1.5 * ratio, wide + 3 * ratio, high + 3 * ratio);
    context.strokeStyle = colour;
    context.strokeRect(left, top, wide, high);
    const name = face(trackId);
    const tall = 20 * ratio;
    const above = Math.max(0, top - tall);
    context.fillStyle = colour;
    context.fillRect(left - ratio, above, context.measureText(name).width + 12 * ratio, tall);
    context.fillStyle = "#000";
    context.fillText(name, left + 5 * ratio, above + tall / 2);
  }
}

/**
 * Draw a mouth as the detector saw it: upright, as large, and as coarse.
 * @param {HTMLCanvasElement} canvas @param {HTMLVideoElement} video @param {{width: number, height: number}} media
 * @param {Four|null} mouth
 */
export function drawMouth(canvas, video, media, mouth) {
  if (canvas.width !== MOUTH_PX) Object.assign(canvas, { width: MOUTH_PX, height: MOUTH_PX });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, MOUTH_PX, MOUTH_PX);
  if (!mouth) return;
  const [x, y, side, degrees] = mouth;
  context.imageSmoothingQuality = "high";
  context.translate(MOUTH_PX / 2, MOUTH_PX / 2);
  context.rotate((-degrees * Math.PI) / 180);
  context.scale(MOUTH_PX / side, MOUTH_PX / side);
  context.drawImage(video, -x, -y, media.width, media.height);
}
