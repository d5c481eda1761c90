/** What the page says. Nothing here touches the document. */

/** @typedef {import("./types.js").Analysis} Analysis */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {import("./types.js").Progress} Progress */
/** @typedef {import("./types.js").Track} Track */
/** @typedef {import("./types.js").Window} Window */

/** What to look at, or to look for, by the code of a reason. */
const ADVICE = {
  rendered_face: "At the moments below, look at the teeth, the edge of the lips and the skin around the mouth: do they "
    + "blur, shimmer or change from picture to picture, while the rest of the face does not?",
  changed_look: "Play the seconds named above, and those before and after them: does the mouth turn softer, or another mouth, "
    + "while the rest of the picture stays as it is?",
  changed_sync: "Play the seconds named above, and those before and after them, at ½ speed: do the lips say the words that are "
    + "heard? Somebody off screen, or a noise, looks the same here.",
  in_sync_at_times: "Listen for other voices, music or noise, and look for pictures that stop or lag: those put real video "
    + "out of sync for a while, but another's voice fits at no time.",
  agreed_offset: "Listen for noise, music or other voices: in those real video fits its voice poorly, but at the offset that "
    + "files have. One in four of other voices is there by chance: take a longer part.",
  smooth_motion: "Play the moments below at ¼ speed: does the mouth glide more evenly, or look softer, than eyes and cheeks?",
  restless_colours: "Look at the colours of lips and chin at the moments below, picture by picture: do they shimmer, while "
    + "nose and cheeks keep theirs?",
  low_sync: "Play the moments below at ½ speed: do the lips close when a p, b or m is heard? Dubbing and cut-in sound "
    + "look the same as a fake here.",
  loose_sync: "Play the moments below at ½ speed: does the mouth open and close with each syllable, or only roughly with "
    + "the speech?",
  short_evidence: "Nothing is called fake on so little. Take a longer part in which the speaker faces the camera.",
  wandering_offset: "Look at the sound's offset over time: in a recording it stays level, in a recorded call "
    + "nearly so. Cuts and dubbing make it jump, too.",
  in_sync: "Nothing stands out. If doubts remain, look at the moments below: there it was least sure.",
  single_moments: "Single moments below stand out, though they weigh too little on the whole: look at those.",
  constant_offset: "When you judge by eye, allow for the sound's offset: everything here does.",
  between_thresholds: "Treat the video as not checked. A longer or less compressed copy may settle it.",
  no_audio: "The sound: find a copy that has its sound track.",
  no_speech: "Speech: take a part in which somebody talks.",
  too_little_speech: "Speech with the mouth in view: take a longer part, or one with fewer cuts.",
  coarse_picture: "An earlier copy, not one from a messenger or social network, would tell more.",
  too_compressed: "Fine detail of the picture: find the earliest copy, not one from a messenger or social network.",
  no_face: "A face: take a part in which the speaker is seen.",
  face_not_frontal: "A mouth that can be seen: take a part in which the speaker faces the camera, larger in the picture.",
  mouth_still: "The one who speaks: this sounds like a voice over pictures of somebody else.",
};

/** Why a window has no scores, by its note. */
const NOTES = {
  no_speech: "no speech", mouth_not_visible: "mouth not in view", mouth_still: "mouth does not move",
};

const STAGES = {
  queued: "Waiting for a turn", listening: "Listening to the voice", watching: "Watching the faces", judging: "Judging",
};

/** What to do about a problem, by its code, where its detail does not say so. */
const REMEDIES = {
  empty_file: "Choose another file: this one is empty. It may not have been copied completely.",
  not_media: "Choose a video file. If this is one, it may be damaged: try to play or re-export it first.",
  no_video_stream: "Choose a file with a picture: this looks like sound only.",
  corrupt_media: "Get the file again, or re-export it with a video editor, and try that.",
  decoder_crashed: "Get the file again, or re-export it with a video editor, and try that.",
  resolution_too_high: "Export the video smaller, for example at 1080 lines; faces stay large enough.",
  busy: "Your video was not analysed. Wait a little and try again.",
  starting: "The service has only just started. Try again in a moment.",
  draining: "The service is being stopped. Try again in a minute; if that fails, ask whoever runs it.",
  load_failed: "Ask whoever runs the service to look at its log.",
  internal_error: "Try again. If it happens again, tell whoever runs the service the number below.",
  job_not_found: "The service no longer has this analysis: it was restarted, or too much time went by. Give the video again.",
  connection_lost: "Check your network and that the service is running; then try again. Nothing is lost on your side.",
};

/** Problems that may be over when the same file is sent again. */
const PASSING = new Set(["busy", "starting", "draining", "storage_full", "internal_error", "job_not_found",
  "connection_lost", "upload_stalled", "deadline_exceeded"]);

/** @param {number} share @returns {string} such as "0.97": never rounded up to a certainty */
export function probability(share) {
  return Math.min(0.99, Math.max(0.01, share)).toFixed(2);
}

/** @param {number} seconds @param {number} [digits] @returns {string} such as "1:02.4" */
export function clock(seconds, digits = 1) {
  const unit = 10 ** digits;
  const whole = Math.round(Math.max(0, seconds) * unit);
  const minutes = Math.floor(whole / (60 * unit));
  const rest = ((whole - minutes * 60 * unit) / unit).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** @param {number} ms @returns {string} which way and how far the sound is off */
export function offset(ms) {
  return ms === 0 ? "in time" : `${Math.abs(ms)} ms ${ms > 0 ? "late" : "early"}`;
}

/** @param {number} trackId @returns {string} */
export const face = (trackId) => `Face ${trackId + 1}`;

/** @param {number} bytes @returns {string} */
export const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 24 ? 1 : 0)} MiB`;

/** @param {Window} window @returns {string} */
export function evidence(window) {
  if (window.note) return NOTES[window.note] ?? window.note;
  return window.fake_probability === null ? "too compressed to judge" : "speech, mouth in view";
}

/** @param {number} seconds @returns {string} in the largest unit that fits */
function span(seconds) {
  const [unit, long] = [["hour", 3600], ["minute", 60]].find(([, long]) => seconds >= long) ?? ["second", 1];
  const count = Number((seconds / long).toFixed(1));
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** @param {{max_upload_mb: number, max_duration_s: number}} limits @returns {string} */
export function limits({ max_upload_mb, max_duration_s }) {
  const size = max_upload_mb >= 1024 ? `${Number((max_upload_mb / 1024).toFixed(1))} GiB` : `${max_upload_mb} MiB`;
  return `Any common format, up to ${size} and ${span(max_duration_s)}`;
}

/** @param {number} keep_results_s @returns {string} what becomes of a result */
export function kept(keep_results_s) {
  return keep_results_s
    ? `Its result, with a few stills for the report, is kept there for ${span(keep_results_s)}.`
    : "Its result is not kept.";
}

/** @param {Progress} progress @returns {string} */
export function working({ stage, done_s, duration_s }) {
  const far = duration_s && (stage === "listening" || stage === "watching");
  return far ? `${STAGES[stage]}: ${clock(done_s, 0)} of ${clock(duration_s, 0)}` : `${STAGES[stage]} …`;
}

/**
 * The verdict for people: one sentence, and what it does and does not mean.
 * @param {Analysis} analysis
 * @returns {{sentence: string, meaning: string}}
 */
export function verdict({ verdict, fake_probability, model }) {
  const { real_below, fake_above } = model.thresholds;
  if (fake_probability === null) {
    return {
      sentence: "Inconclusive: there is not enough in this video to judge the lips by.",
      meaning: "No probability is given. This is neither a sign of a fake nor of a real video.",
    };
  }
  const found = `Fake probability ${probability(fake_probability)}`;
  if (verdict === "fake") {
    return {
      sentence: "The evidence points to a lip-sync fake.",
      meaning: `${found}, above the limit of ${fake_above.toFixed(2)}. This is a lead, not a proof: look at the `
        + "moments below, and at where the video comes from, before you act on it.",
    };
  }
  if (verdict === "real") {
    return {
      sentence: "No sign of a lip-sync fake was found.",
      meaning: `${found}, below the limit of ${real_below.toFixed(2)}. This is no certificate: only speaking mouths `
        + "were judged, and no other kind of editing.",
    };
  }
  if (fake_probability > fake_above) {
    return {
      sentence: "Inconclusive: suspicious, but seen too briefly.",
      meaning: `${found}, above the limit of ${fake_above.toFixed(2)}, but nothing is called fake on so little. `
        + "A longer part may settle it.",
    };
  }
  return {
    sentence: "Inconclusive: the evidence points neither way.",
    meaning: `${found}, between the limits of ${real_below.toFixed(2)} and ${fake_above.toFixed(2)}. `
      + "Do not read it as a weak accusation.",
  };
}

/** @param {Analysis} analysis @returns {string[]} what to look at, or what is missing */
export function advice({ reasons, playback, model }) {
  const standsOut = playback.key_frames.some((one) => one.fake_probability > model.thresholds.fake_above);
  const codes = reasons.map(({ code }) => (code === "in_sync" && standsOut ? "single_moments" : code));
  return codes.map((code) => ADVICE[code]).filter(Boolean);
}

/** @param {Analysis} analysis @returns {{title: string, note: string}} what the most suspicious moments are */
export function moments({ verdict }) {
  return verdict === "fake"
    ? { title: "Moments to look at", note: "The most suspicious ones. Choose one to go there." }
    : {
        title: "Where it was least sure",
        note: "The most suspicious moments, which every video has; they do not make it a fake. Choose one to go there.",
      };
}

/** @param {Track} track @returns {string} */
export function lane(track) {
  const facts = [`${clock(track.start_s)} to ${clock(track.end_s)}`];
  facts.push(track.speaking_share ? `speaks in ${Math.round(track.speaking_share * 100)}% of the speech` : "not the one who speaks");
  if (track.fake_probability === null) facts.push("not enough evidence for a probability");
  else facts.push(`fake probability ${probability(track.fake_probability)}`);
  if (track.offset_ms !== null) facts.push(`sound ${offset(track.offset_ms)}`);
  return facts.join(" · ");
}

/** @param {Problem} problem @returns {{advice: string, trace: string, passing: boolean}} */
export function remedy(problem) {
  return {
    advice: REMEDIES[problem.code] ?? "",
    trace: problem.request_id ? `Number of this request, for whoever runs the service: ${problem.request_id}` : "",
    passing: PASSING.has(problem.code),
  };
}
