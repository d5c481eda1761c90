/** The service's jobs: sending a video, following its analysis, calling it off. */

/** @typedef {import("./types.js").Analysis} Analysis */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {import("./types.js").Progress} Progress */
/** @typedef {import("./types.js").Window} Window */

/** How long a lost connection may take to come back. */
const PATIENCE_MS = 20_000;

const STOPPED = {
  code: "connection_lost", title: "The service does not answer",
  detail: "The connection to the service was lost before the analysis was finished.",
};
const UPLOAD_BROKE = {
  code: "connection_lost", title: "The upload broke off",
  detail: "The connection to the service was lost before the whole video was sent.",
};

/** Ends what was going on, with a problem for people. */
export class Failed extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.title);
    this.problem = problem;
  }
}

/** @param {string} id */
const address = (id) => `/v1/jobs/${encodeURIComponent(id)}`;

/** @param {string} text @param {number} status @returns {Problem} */
function problemIn(text, status) {
  try {
    const problem = JSON.parse(text);
    if (problem.code && problem.detail) return problem;
  } catch { /* something between here and the service answered in its own way */ }
  return { code: "unexpected_answer", title: "Unexpected answer", detail: `The service answered with status ${status}.` };
}

/**
 * Send a video.
 * @param {File} file
 * @param {(share: number) => void} sent told how much of it was sent
 * @param {AbortSignal} signal ends it, quietly: the promise is then never settled, and a job that was begun is called off
 * @returns {Promise<string>} the job's id
 */
export function send(file, sent, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("playback", "true");
    form.append("file", file);
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", (event) => sent(event.total ? event.loaded / event.total : 0));
    let whole = false;
    request.upload.addEventListener("load", () => { whole = true; });
    const fail = (problem) => signal.aborted || reject(new Failed(problem));
    request.addEventListener("error", () => fail(UPLOAD_BROKE));
    request.addEventListener("load", () => {
      if (request.status !== 202) return fail(problemIn(request.responseText, request.status));
      const id = JSON.parse(request.responseText).job_id;
      if (signal.aborted) callOff(id);
      else resolve(id);
    });
    signal.addEventListener("abort", () => whole || request.abort());
    request.open("POST", "/v1/jobs");
    request.send(form);
  });
}

/**
 * Follow a job to its end. Connections that break are made anew for a while.
 * @param {string} id
 * @param {{progress: (now: Progress) => void, windows: (scored: Window[]) => void, trouble: (lost: boolean) => void}} heard
 * @param {AbortSignal} signal ends it, quietly: the promise is then never settled
 * @returns {Promise<Analysis>}
 */
export function follow(id, heard, signal) {
  return new Promise((resolve, reject) => {
    const events = new EventSource(`${address(id)}/events`);
    let lost = 0;

    const end = () => {
      clearTimeout(lost);
      events.close();
    };
    const fail = (problem) => {
      end();
      reject(new Failed(problem));
    };
    const on = (name, act) => events.addEventListener(name, (event) => {
      back();
      act(JSON.parse(event.data));
    });
    const back = () => {
      clearTimeout(lost);
      lost = 0;
      heard.trouble(false);
    };

    events.addEventListener("open", back);
    on("progress", heard.progress);
    on("windows", ({ windows }) => heard.windows(windows));
    on("result", (analysis) => { end(); resolve(analysis); });
    on("problem", fail);
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) {
        end();
        look(id).then(resolve, reject);
      } else if (!lost) {
        heard.trouble(true);
        lost = setTimeout(() => fail(STOPPED), PATIENCE_MS);
      }
    });
    signal.addEventListener("abort", end);
  });
}

/** @param {string} id @returns {Promise<Analysis>} of a job that is over; rejected with what went wrong otherwise */
async function look(id) {
  const answer = await fetch(address(id)).catch(() => { throw new Failed(STOPPED); });
  const text = await answer.text();
  if (!answer.ok) throw new Failed(problemIn(text, answer.status));
  const job = JSON.parse(text);
  if (job.result) return job.result;
  throw new Failed(job.problem ?? STOPPED);
}

/** Stop a job and have it forgotten. @param {string} id */
export function callOff(id) {
  fetch(address(id), { method: "DELETE" }).catch(() => { /* a service that is gone has forgotten it, too */ });
}

/** @param {string} id @returns {Promise<Blob>} the report as HTML */
export async function report(id) {
  const answer = await fetch(`${address(id)}/report`).catch(() => { throw new Failed(STOPPED); });
  if (!answer.ok) throw new Failed(problemIn(await answer.text(), answer.status));
  return answer.blob();
}

/** @returns {Promise<{max_upload_mb: number, max_duration_s: number, keep_results_s: number}|null>} what the service takes, if it says so */
export async function limits() {
  const answer = await fetch("/page/limits").catch(() => null);
  return answer?.ok ? answer.json() : null;
}
