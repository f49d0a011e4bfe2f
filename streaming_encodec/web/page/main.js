// The call page: what happens when. view.js shows it, sound.js holds the devices, the Worker holds the call.

import { MAX_NAME, MAX_ROOM, cleanText } from "../client/messages.js";
import { Engine } from "./engine.js";
import { PROBLEMS, closed, isSupported, microphone as microphoneProblem } from "./problems.js";
import { loadSettings, loadTicket, loadToken, saveSettings, saveTicket, saveToken } from "./settings.js";
import { Sound } from "./sound.js";
import * as show from "./view.js";

const { view } = show;
/** Where the relay's page stands: this file is at web/HASH/page/main.js. */
const ROOT = new URL("../../../", import.meta.url);
/** The page's own place in the list of people; the relay's numbers begin at 1. */
const OWN = 0;
/** Mean square above which somebody is shown as speaking, and the one that fills the ring: -45 and -15 dB. */
const SPEAKING = 10 ** -4.5, LOUD = 10 ** -1.5;

const SOUND_STARTS_MS = 1000;
/** What the lobby says of a microphone that is off. */
const HINT = view.micHint.textContent;

/** @typedef {import("./engine.js").JoinOptions} JoinOptions */
/** @typedef {{format: unknown, kernel: string, model: {name: string, folder: string, bytes: number}, tokens: boolean}} CallFile */

const settings = loadSettings();
/** @type {Engine} */
let engine;
/** @type {Sound | null} */
let sound = null;
/** @type {{bandwidths: number[], codebooks: number[]}} */
let rates = { bandwidths: [], codebooks: [] };
let room = roomOfAddress();
let needsTokens = false;
/** @type {"none" | "joining" | "in" | "over"} */
let phase = "none";
/** @type {JoinOptions["role"]} */
let role = "both";
let muted = false, held = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let soundTimer;
/** @type {{sender: number, name: string}[]} */
let others = [];
let ownSpeaking = false, ownPeak = 0;

function roomOfAddress() {
  const name = location.pathname.slice(ROOT.pathname.length).match(/^r\/([^/]+)$/u)?.[1];
  try {
    return name === undefined ? "" : decodeURIComponent(name);
  } catch {
    return "";
  }
}

/** Take the token out of the address bar: it must not be seen nor be copied by chance. @returns {string | null} */
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return loadToken();
  saveToken(token);
  history.replaceState(null, "", location.pathname);
  return token;
}

/** @param {string} name */
function addressOf(name) {
  return new URL(name ? `r/${encodeURIComponent(name)}` : "./", ROOT);
}

// Loading ------------------------------------------------------------------------------------------------------------

async function begin() {
  token = takeToken();
  view.name.value = settings.name;
  view.room.value = room;
  view.roomField.hidden = room !== "";
  view.invited.textContent = room === "" ? "Choose a room, check your sound, join." : `You are invited to the room “${room}”.`;
  view.pushToTalk.checked = settings.pushToTalk;
  view.processing.checked = settings.processing;
  view.join.disabled = view.listen.disabled = true;
  if (!isSupported()) return show.showProblem(window.isSecureContext ? PROBLEMS.old : PROBLEMS.insecure);
  engine = new Engine();
  listenToEngine();
  /** @type {CallFile} */
  let files;
  try {
    files = await (await fetch(new URL("call.json", ROOT))).json();
  } catch {
    return show.showProblem(PROBLEMS.files, { label: "Load again", run: () => location.reload() });
  }
  needsTokens = files.tokens;
  view.loading.textContent = "Loading the voice codec …";
  engine.tell({
    type: "load",
    files: {
      kernel: new URL(files.kernel, ROOT).href, weights: new URL(`${files.model.folder}model.safetensors`, ROOT).href,
      config: new URL(`${files.model.folder}config.json`, ROOT).href, bytes: files.model.bytes, format: files.format,
    },
  });
  if (!window.isSecureContext || !navigator.mediaDevices) {
    show.showProblem(PROBLEMS.insecure);
    view.micStart.disabled = true;
  }
}

/** @type {string | null} */
let token = null;

function listenToEngine() {
  engine.on("loading", ({ share }) => (view.loading.textContent = `Loading the voice codec: ${Math.round(100 * share)} %`));
  engine.on("failed", ({ unsupported }) => {
    if (phase === "in" || phase === "joining") over(closed(1002));
    show.showProblem(unsupported ? PROBLEMS.old : PROBLEMS.files, { label: "Load again", run: () => location.reload() });
  });
  engine.on("ready", ({ bandwidths, codebooks, rate, frameSamples }) => {
    rates = { bandwidths, codebooks };
    sound = new Sound(engine, rate, frameSamples);
    applyProcessing(sound);
    sound.onState = () => startSoundIfNeeded();
    sound.onEnded = () => {
      show.showProblem({ what: "The microphone is gone.", cure: "Choose another one." });
      void refreshDevices();
    };
    showRates();
    view.loading.textContent = "";
    view.join.disabled = !window.isSecureContext;
    view.listen.disabled = false;
    void refreshDevices();
    document.documentElement.dataset.ready = "true";
    if (room !== "" && loadTicket(room) !== null) void join("both"); // the page was loaded again during a call
  });
  engine.on("level", ({ peak, speaking, mutedSpeech }) => {
    ownPeak = peak;
    ownSpeaking = speaking && !muted;
    if (phase !== "in") show.showLevel(Math.min(1, Math.sqrt(peak)));
    view.mutedSpeech.hidden = !(mutedSpeech && phase === "in" && !settings.pushToTalk);
  });
  engine.on("test", ({ state }) => {
    view.micTest.disabled = state !== "none";
    view.micTest.textContent = { recording: "Speak now …", playing: "Playing …", none: "Record and play" }[state];
  });
  engine.on("state", ({ state }) => {
    if (state === "connected") {
      if (phase === "joining") entered();
      show.showBanner(null);
      show.showStatus("good", "Connected");
    } else {
      show.showBanner("The connection was lost. Trying to get it back …");
      show.showStatus("poor", "Reconnecting");
      show.announce("The connection was lost. Trying to get it back.");
    }
  });
  engine.on("over", ({ code }) => over(code === 1000 ? null : closed(code)));
  engine.on("people", ({ others: found }) => {
    const named = found.map(({ sender, name }) => ({ sender, name: name ?? `Guest ${sender}` }));
    for (const { sender, name } of named) if (!others.some((other) => other.sender === sender)) show.announce(`${name} is here`);
    for (const { sender, name } of others) if (!named.some((other) => other.sender === sender)) show.announce(`${name} left`);
    others = named;
    showEverybody();
  });
  engine.on("ticket", ({ ticket }) => saveTicket(room, ticket));
  engine.on("speakers", ({ levels }) => {
    const loud = new Map(levels);
    for (const { sender } of others) showVoice(sender, loud.get(sender) ?? 0, "");
    if (role !== "subscribe") showVoice(OWN, ownSpeaking ? ownPeak ** 2 / 4 : 0, muted ? "Muted" : "");
  });
  engine.on("quality", showQuality);
}

// Sound --------------------------------------------------------------------------------------------------------------

/** @param {Sound} target */
function applyProcessing(target) {
  const on = settings.processing;
  target.processing = { echoCancellation: on, noiseSuppression: on, autoGainControl: on };
}

async function openMicrophone() {
  if (sound === null) return false;
  try {
    await sound.openMicrophone(settings.microphone);
  } catch (error) {
    show.showProblem(microphoneProblem(error), { label: "Try again", run: () => void openMicrophone() });
    return false;
  }
  show.showProblem(null);
  view.micStart.hidden = true;
  view.micTest.hidden = false;
  view.micHint.textContent = "Speak: the bar should move.";
  await refreshDevices();
  return true;
}

async function refreshDevices() {
  if (sound === null) return;
  const { microphones, outputs } = await sound.devices();
  const choices = (/** @type {import("./sound.js").Device[]} */ found, /** @type {string} */ usual) => [
    { value: "", label: usual },
    ...found.filter(({ deviceId }) => deviceId !== "default").map(({ deviceId, label }, i) => ({ value: deviceId, label: label || `Device ${i + 1}` })),
  ];
  for (const element of [view.microphone, view.callMicrophone]) {
    show.showChoices(element, choices(microphones, "The browser’s choice"), settings.microphone);
  }
  for (const element of [view.output, view.callOutput]) show.showChoices(element, choices(outputs, "The system’s choice"), settings.output);
  view.callOutputField.hidden = !Sound.choosesOutput;
  view.output.disabled = !Sound.choosesOutput;
}

/** Browsers start sound only after a click; where there was one, some still take a moment. */
function startSoundIfNeeded() {
  clearTimeout(soundTimer);
  if (phase !== "in" || sound === null || !sound.isWaiting) return show.hideProblem(PROBLEMS.click);
  soundTimer = setTimeout(() => {
    if (phase !== "in" || !sound?.isWaiting) return;
    show.showProblem(PROBLEMS.click, { label: "Start the sound", run: () => void sound?.resume() });
  }, SOUND_STARTS_MS);
}

/** @param {string} deviceId */
async function changeMicrophone(deviceId) {
  settings.microphone = deviceId;
  saveSettings(settings);
  if (sound?.stream) await openMicrophone();
}

/** @param {string} deviceId */
async function changeOutput(deviceId) {
  settings.output = deviceId;
  saveSettings(settings);
  await sound?.setOutput(deviceId);
}

// The call -----------------------------------------------------------------------------------------------------------

/** @param {JoinOptions["role"]} wanted */
async function join(wanted) {
  if (sound === null || phase === "joining" || phase === "in") return;
  room = cleanText(view.room.value || room, MAX_ROOM);
  if (room === "") {
    view.roomField.hidden = false;
    view.room.setAttribute("aria-invalid", "true");
    view.room.focus();
    return show.showProblem({ what: "The room has no name yet.", cure: "Enter one, for example kitchen." });
  }
  view.room.removeAttribute("aria-invalid");
  settings.name = cleanText(view.name.value, MAX_NAME);
  saveSettings(settings);
  phase = "joining";
  role = wanted;
  view.join.disabled = view.listen.disabled = true;
  show.showProblem(null);
  try {
    await sound.open();
    await sound.setOutput(settings.output);
  } catch {
    show.showProblem(PROBLEMS.sound);
    return backToLobby();
  }
  if (role !== "subscribe" && sound.stream === null && !(await openMicrophone())) return backToLobby();
  setMuted(settings.pushToTalk);
  const url = addressOf(room);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  view.loading.textContent = "Joining …";
  engine.tell({
    type: "join",
    options: {
      url: url.href, room, role, name: settings.name || null, token, ticket: loadTicket(room),
      kbps: settings.kbps, codebooks: codebooksOf(settings.receiveKbps),
    },
  });
}

function backToLobby() {
  phase = "none";
  view.join.disabled = !window.isSecureContext;
  view.listen.disabled = false;
  view.loading.textContent = "";
}

function entered() {
  phase = "in";
  view.loading.textContent = "";
  history.replaceState(null, "", addressOf(room).pathname);
  document.title = `${room} – call`;
  view.title.textContent = room;
  view.callTitle.textContent = `Room “${room}”`;
  for (const element of [view.mute, view.talk]) element.disabled = role === "subscribe";
  show.showMuted(muted, settings.pushToTalk);
  show.showPart("call");
  showEverybody();
  startSoundIfNeeded();
  show.announce(role === "subscribe" ? "You listen." : muted ? "You joined, muted." : "You joined. The others hear you.");
}

/** @param {import("./problems.js").Problem | null} problem why the call ended; null: the person left */
function over(problem) {
  const was = phase;
  sound?.closeMicrophone();
  view.micStart.hidden = false;
  view.micTest.hidden = true;
  view.micHint.textContent = HINT;
  show.showLevel(0);
  others = [];
  show.showPeople([]);
  show.showStatus(null, "");
  show.showBanner(null);
  backToLobby();
  if (was === "in") {
    phase = "over";
    view.overTitle.textContent = problem === null ? "You left the call" : "The call has ended";
    show.showPart("over");
  }
  if (problem !== null) show.showProblem(problem);
}

/** @param {boolean} value */
function setMuted(value) {
  muted = value;
  engine.tell({ type: "mute", muted });
  view.mutedSpeech.hidden = true;
  show.showMuted(muted, settings.pushToTalk);
}

/** @param {boolean} value */
function hold(value) {
  if (!settings.pushToTalk || phase !== "in" || role === "subscribe" || held === value) return;
  held = value;
  setMuted(!value);
}

function showEverybody() {
  const own = role === "subscribe" ? [] : [{ sender: OWN, name: settings.name || "You", own: true }];
  show.showPeople([...own, ...others.map((other) => ({ ...other, own: false }))]);
}

/**
 * @param {number} sender
 * @param {number} power mean square
 * @param {string} otherwise what to say of one who doesn't speak
 */
function showVoice(sender, power, otherwise) {
  const speaking = power > SPEAKING;
  const level = speaking ? Math.min(1, Math.log(power / SPEAKING) / Math.log(LOUD / SPEAKING)) : 0;
  show.showVoice(sender, { speaking, level, doing: speaking ? "Speaking" : otherwise });
}

/** @param {Extract<import("./engine.js").FromWorker, {type: "quality"}>} message */
function showQuality({ quality, underruns }) {
  if (phase !== "in" || !view.banner.hidden) return;
  const made = Math.max(quality.concealed, quality.sentConcealed ?? 0);
  const late = Math.max(quality.delayMs, quality.sentQueueMs);
  if (made > 0.08 || late > 600) show.showStatus("poor", "Poor connection");
  else if (made > 0.02 || late > 250) show.showStatus("fair", "Fair connection");
  else show.showStatus("good", "Good connection");
  Object.assign(view.status.dataset, {
    way: quality.way, datagramsSent: quality.datagrams.sent, datagramsReceived: quality.datagrams.received,
    played: quality.played, madeUp: quality.madeUp, underruns,
  });
  const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(1)} %`;
  show.showFigures([
    ["Made up of what you hear", percent(quality.concealed)],
    ["Made up of what others hear of you", quality.sentConcealed === null ? "nobody listens" : percent(quality.sentConcealed)],
    ["Jitter buffer", `${Math.round(quality.delayMs)} ms`],
    ["You send", `${quality.sentKbps.toFixed(1)} kbit/s`],
    ["Way of the voice", quality.way === "datagrams" ? "Datagrams (UDP)" : "WebSocket (TCP)"],
    ["Pauses of the loudspeaker", String(underruns)],
  ]);
}

/** @param {number} kbps 0: as much as is sent @returns {number | null} */
function codebooksOf(kbps) {
  const at = rates.bandwidths.indexOf(kbps);
  return at < 0 ? null : rates.codebooks[at];
}

function showRates() {
  const said = rates.bandwidths.map((kbps) => ({ value: String(kbps), label: `${kbps} kbit/s` }));
  show.showChoices(view.kbps, said, String(settings.kbps));
  show.showChoices(view.receiveKbps, [{ value: "0", label: "As it is sent" }, ...said], String(settings.receiveKbps));
}

function invite() {
  const link = addressOf(room).href;
  view.inviteRow.hidden = needsTokens;
  view.inviteText.textContent = needsTokens
    ? "This relay wants a link of one's own for everybody: ask the person who runs it."
    : "Whoever opens this link joins this room. A browser is enough.";
  view.inviteLink.value = link;
  view.inviteCopy.textContent = "Copy";
  view.inviteDialog.showModal();
}

// What people do -----------------------------------------------------------------------------------------------------

view.form.addEventListener("submit", (event) => {
  event.preventDefault();
  void join(event.submitter === view.listen ? "subscribe" : "both");
});
view.micStart.addEventListener("click", () => void openMicrophone());
view.micTest.addEventListener("click", () => engine.tell({ type: "test" }));
view.chime.addEventListener("click", async () => {
  await sound?.open().catch(() => show.showProblem(PROBLEMS.sound));
  sound?.chime();
});
for (const element of [view.microphone, view.callMicrophone]) {
  element.addEventListener("change", () => void changeMicrophone(element.value));
}
for (const element of [view.output, view.callOutput]) element.addEventListener("change", () => void changeOutput(element.value));
view.kbps.addEventListener("change", () => {
  settings.kbps = Number(view.kbps.value);
  saveSettings(settings);
  engine.tell({ type: "kbps", kbps: settings.kbps });
});
view.receiveKbps.addEventListener("change", () => {
  settings.receiveKbps = Number(view.receiveKbps.value);
  saveSettings(settings);
  engine.tell({ type: "codebooks", codebooks: codebooksOf(settings.receiveKbps) ?? Math.max(...rates.codebooks) });
});
view.processing.addEventListener("change", () => {
  settings.processing = view.processing.checked;
  saveSettings(settings);
  if (sound === null) return;
  applyProcessing(sound);
  if (sound.stream) void openMicrophone();
});
view.pushToTalk.addEventListener("change", () => {
  settings.pushToTalk = view.pushToTalk.checked;
  saveSettings(settings);
  held = false;
  setMuted(settings.pushToTalk);
});
view.mute.addEventListener("click", () => {
  setMuted(!muted);
  show.announce(muted ? "You are muted." : "The others hear you.");
});
view.unmute.addEventListener("click", () => setMuted(false));
view.talk.addEventListener("pointerdown", () => hold(true));
for (const end of ["pointerup", "pointercancel", "lostpointercapture", "pointerleave"]) view.talk.addEventListener(end, () => hold(false));
view.invite.addEventListener("click", invite);
view.inviteClose.addEventListener("click", () => view.inviteDialog.close());
view.inviteCopy.addEventListener("click", async () => {
  view.inviteLink.select();
  try {
    await navigator.clipboard.writeText(view.inviteLink.value);
    view.inviteCopy.textContent = "Copied";
  } catch {
    view.inviteCopy.textContent = "Press Ctrl+C";
  }
});
view.settings.addEventListener("click", () => {
  view.panel.hidden = !view.panel.hidden;
  view.settings.setAttribute("aria-expanded", String(!view.panel.hidden));
});
view.leave.addEventListener("click", () => engine.tell({ type: "leave" }));
view.again.addEventListener("click", () => {
  phase = "none";
  show.showProblem(null);
  show.showPart("lobby");
  view.join.focus();
});

/** @param {KeyboardEvent} event whether a key is meant for an element and not for the call */
function isForElement({ target, ctrlKey, metaKey, altKey }) {
  const isField = target instanceof HTMLInputElement || target instanceof HTMLSelectElement;
  return isField || view.inviteDialog.open || ctrlKey || metaKey || altKey;
}

document.addEventListener("keydown", (event) => {
  if (phase !== "in" || event.repeat || isForElement(event)) return;
  if (event.key.toLowerCase() === "m" && !settings.pushToTalk && role !== "subscribe") view.mute.click();
  if (event.key === " " && settings.pushToTalk) {
    event.preventDefault(); // the space bar also presses the button that has the focus
    hold(true);
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key !== " " || !held) return;
  event.preventDefault();
  hold(false);
});
window.addEventListener("blur", () => hold(false));
window.addEventListener("online", () => engine.tell({ type: "hurry" }));
navigator.mediaDevices?.addEventListener("devicechange", () => void refreshDevices());

void begin();
