/**
 * What the service answers; /docs says what the fields mean.
 *
 * @typedef {{stage: "queued"|"listening"|"watching"|"judging", done_s: number, duration_s: number|null, share: number}} Progress
 * @typedef {{title: string, detail: string, code: string, request_id?: string}} Problem
 * @typedef {{track_id: number, start_s: number, end_s: number, sync_score: number|null, content_score: number|null,
 *   offset_ms: number|null, fake_probability: number|null, speech: boolean, note: string|null}} Window
 * @typedef {{track_id: number, start_s: number, end_s: number, speaking_share: number,
 *   fake_probability: number|null, offset_ms: number|null, windows: number}} Track
 * @typedef {[number, number, number, number]} Four
 * @typedef {{track_id: number, start_s: number, boxes: (Four|null)[], mouths: (Four|null)[]}} Places
 * @typedef {{track_id: number, time_s: number, fake_probability: number, picture: string, mouth: string}} KeyFrame
 * @typedef {{waveform: number[], speech: [number, number][], step_s: number, places: Places[],
 *   key_frames: KeyFrame[]}} Playback
 * @typedef {{verdict: "real"|"fake"|"inconclusive", fake_probability: number|null,
 *   reasons: {code: string, detail: string}[], sync: {offset_ms: number|null, confidence: number|null},
 *   windows: Window[], tracks: Track[], media: Object, model: Object, warnings: string[],
 *   playback: Playback}} Analysis
 */
export {};
