/** From a file to its result: choose, upload, analyse, show; and what to do when it does not work. */

import { Timeline, addEarly } from "./charts.js";
import { $ } from "./dom.js";
import { Failed, callOff, follow, limits, send } from "./jobs.js";
import { Result } from "./result.js";
import * as words from "./words.js";

/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {import("./types.js").Progress} Progress */
/** @typedef {import("./types.js").Window} Window */

const TITLE = document.title;
const STEPS = ["uploading", "queued", "listening", "watching", "judging"];
/** Problems after which the job may still be there. */
const RESUMABLE = new Set(["connection_lost", "draining", "starting"]);
const VIEWS = ["start", "work", "result"];

/** @type {{max_upload_mb: number, max_duration_s: number, keep_results_s: number}|null} */
let allowed = null;
/** @type {File|null} */
let chosen = null;
/** The job that analyses it; empty before its upload is complete. Set by `name`. */
let jobId = "";
/** @type {Result|null} */
let result = null;
/** @type {AbortController|null} */
let underWay = null;
/** @type {Timeline|null} */
let early = null;
/** @type {Window[]} */
let earlyWindows = [];
/** As far as known, of the video that is analysed. */
let durationS = 0;

/** @param {string} text for who listens to the page */
function speak(text) {
  if ($("spoken").textContent !== text) $("spoken").textContent = text;
}

/** Keep a job in the address, so that reloading the page finds it again. @param {string} job */
function name(job) {
  jobId = job;
  history.replaceState(null, "", job ? `#${job}` : location.pathname);
}

/** @param {"start"|"work"|"result"} view */
function show(view) {
  for (const id of VIEWS) $(id).hidden = id !== view;
  $("again").hidden = view !== "result";
  $("problem").hidden = true;
  document.title = TITLE;
  window.scrollTo(0, 0);
}

function backToStart() {
  result?.close();
  result = null;
  name("");
  show("start");
  $("file").value = "";
}

// ---- Analysing -------------------------------------------------------------------------------------------------

/** @param {File|null} file null: not at hand @param {string} [known] the job that analyses it already */
async function analyse(file, known = "") {
  stopWork();
  backToStart();
  chosen = file;
  name(known);
  const wrong = file && refused(file);
  if (wrong) return showProblem(wrong);
  beginWork(file);
  const { signal } = (underWay = new AbortController());
  signal.addEventListener("abort", () => jobId && callOff(jobId));
  try {
    if (!jobId) name(await send(file, uploaded, signal));
    progressed({ stage: "queued", done_s: 0, duration_s: null, share: 0 });
    const analysis = await follow(jobId, { progress: progressed, windows: scored, trouble: troubled }, signal);
    endWork();
    show("result");
    result = new Result(analysis, file, jobId);
    announceResult();
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    if (!RESUMABLE.has(error.problem.code)) name("");
    endWork();
    show("start");
    showProblem(error.problem);
  }
}

/** @param {File} file @returns {Problem|null} why it need not even be sent */
function refused(file) {
  if (file.size === 0) return { code: "empty_file", title: "Empty file", detail: `“${file.name}” has no bytes.` };
  if (allowed && file.size > allowed.max_upload_mb * 2 ** 20) {
    return {
      code: "upload_too_large", title: "The file is too large",
      detail: `“${file.name}” has ${words.mebibytes(file.size)}; the limit is ${allowed.max_upload_mb} MiB. `
        + "Cut out the part that matters, or export it smaller; heavy compression hides what is looked for.",
    };
  }
  return null;
}

/** @param {File|null} file */
function beginWork(file) {
  show("work");
  $("work-file").textContent = file ? `${file.name}, ${words.mebibytes(file.size)}` : "";
  $("work-title").focus();
  uploaded(file ? 0 : 1);
}

function endWork() {
  underWay = null;
  early?.close();
  early = null;
  earlyWindows = [];
  $("early").hidden = true;
  $("work-trouble").hidden = true;
}

function stopWork() {
  underWay?.abort();
  endWork();
}

/** @param {string} step @param {number} share @param {string} text */
function showWork(step, share, text) {
  const at = STEPS.indexOf(step);
  [...$("steps").children].forEach((item, i) => {
    item.dataset.state = i < at ? "done" : i === at ? "now" : "next";
    if (i === at) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
  if (step === "queued") $("work-bar").removeAttribute("value");
  else $("work-bar").value = share;
  $("work-now").textContent = text;
  document.title = `${Math.round(share * 100)}% · ${TITLE}`;
}

/** @param {number} share */
function uploaded(share) {
  showWork("uploading", share, share < 1 ? `Uploading: ${Math.floor(share * 100)}%` : "Uploaded …");
  speak(`Uploading: ${Math.floor(share * 4) * 25}%`);
}

/** @param {Progress} now */
function progressed(now) {
  showWork(now.stage, now.share, words.working(now));
  durationS = now.duration_s ?? 0;
  const quarter = Math.floor(now.share * 4) * 25;
  speak(now.stage === "queued" ? words.working(now) : `Analysing: ${quarter}%`);
}

/** @param {Window[]} windows */
function scored(windows) {
  earlyWindows = [...earlyWindows, ...windows].sort((a, b) => a.start_s - b.start_s);
  early?.close();
  $("early").hidden = false;
  early = new Timeline(Math.max(durationS, earlyWindows.at(-1).end_s), { seek: () => {}, point: () => {} });
  addEarly(early, $("early-chart"), earlyWindows);
}

/** @param {boolean} lost */
function troubled(lost) {
  $("work-trouble").hidden = !lost;
  $("work-trouble").textContent = lost ? "The connection was lost; trying to get it back …" : "";
}

function announceResult() {
  const sentence = $("verdict-sentence").textContent;
  document.title = `${sentence} · ${TITLE}`;
  speak(`Done. ${sentence}`);
  $("verdict-sentence").focus({ preventScroll: true });
}

/** @param {Problem} problem */
function showProblem(problem) {
  const { advice, trace, passing } = words.remedy(problem);
  $("problem-title").textContent = problem.title;
  $("problem-detail").textContent = problem.detail;
  $("problem-advice").textContent = advice;
  $("problem-trace").textContent = trace;
  $("retry").hidden = !passing;
  $("problem").hidden = false;
  speak(`${problem.title}. ${problem.detail}`);
  $("problem").focus();
}

// ---- What people do --------------------------------------------------------------------------------------------

/** @param {FileList} files */
function take(files) {
  if (files.length > 1) {
    showProblem({ code: "several_files", title: "One video at a time", detail: `You dropped ${files.length} files. Drop one of them.` });
  } else if (files.length === 1) {
    analyse(files[0]);
  }
}

$("file").addEventListener("change", () => take($("file").files));
$("retry").addEventListener("click", () => (chosen || jobId) && analyse(chosen, jobId));
$("again").addEventListener("click", () => {
  backToStart();
  $("file").focus();
});
$("cancel").addEventListener("click", () => {
  stopWork();
  backToStart();
  speak("Cancelled.");
  $("file").focus();
});

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});

allowed = await limits();
if (allowed) {
  $("limits").textContent = words.limits(allowed);
  $("kept").textContent = words.kept(allowed.keep_results_s);
}
if (location.hash.length > 1) analyse(null, location.hash.slice(1));
