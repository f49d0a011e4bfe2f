// The page: lobby, call, and what comes after it.

import { MAX_NAME, MAX_ROOM, cleanText } from "../client/messages.js";
import { ROOT, claimsOf, relayUrl, roomLink, roomOfAddress, takeToken } from "./address.js";
import { Engine } from "./engine.js";
import { People } from "./people.js";
import { PROBLEMS, closed, isSupported, microphone } from "./problems.js";
import { loadSettings, loadTicket, saveSettings, saveTicket } from "./settings.js";
import { Sound } from "./sound.js";
import { Status } from "./status.js";
import { announce, button, fill, input, loudness, part, select } from "./view.js";

/** @typedef {import("./problems.js").Problem} Problem */
/** @typedef {{format: {sample_rate: number}, kernel: string, model: {name: string, folder: string, bytes: number}, tokens: boolean}} CallFacts */

/** @type {[string, string][]} */
const RATE_WORDS = [["1.5", "Lowest, 1.5 kbps"], ["3", "Low, 3 kbps"], ["6", "Good, 6 kbps"], ["12", "Best, 12 kbps"]];

class Page {
  #settings = loadSettings();
  #token = takeToken();
  #claims = claimsOf(this.#token);
  #room = this.#claims.room ?? roomOfAddress();
  #engine = new Engine();
  #people = new People();
  #status = new Status();
  /** @type {Sound} */
  #sound;
  #facts;
  /** @type {"lobby" | "joining" | "call" | "over"} */
  #state = "lobby";
  #ready = false;
  /** Join as soon as everything is loaded. @type {"both" | "subscribe" | null} */
  #wanted = null;
  #muted = false;
  #held = false;
  /** @type {Map<number, number>} */
  #codebooks = new Map();
  /** @type {(() => void) | null} */
  #problemAction = null;

  /** @param {CallFacts} facts */
  constructor(facts) {
    this.#facts = facts;
    this.#sound = new Sound(this.#engine, facts.format.sample_rate);
    this.#sound.onState = () => this.#onSoundState();
    this.#sound.onEnded = () => this.#lostMicrophone();
    this.#prepareLobby();
    this.#prepareCall();
    this.#followEngine();
    this.#followKeys();
    const at = (/** @type {string} */ path) => new URL(path, ROOT).href;
    this.#engine.tell({
      type: "load", files: {
        kernel: at(facts.kernel), weights: at(`${facts.model.folder}model.safetensors`),
        config: at(`${facts.model.folder}config.json`), bytes: facts.model.bytes, format: facts.format,
      },
    });
    addEventListener("online", () => this.#engine.tell({ type: "hurry" }));
    navigator.mediaDevices?.addEventListener("devicechange", () => void this.#listDevices());
    document.addEventListener("pointerdown", () => void this.#sound.resume());
    void this.#begin();
  }

  // -- lobby ------------------------------------------------------------------------------------------------------

  #prepareLobby() {
    input("name").value = this.#settings.name;
    input("room").value = this.#room;
    part("room-field").hidden = this.#room !== "";
    part("invited").textContent = this.#room ? `You are invited to the room “${this.#room}”.` : "";
    part("invited").hidden = !this.#room;
    button("join").hidden = !this.#claims.publish;
    button("listen").hidden = !this.#claims.subscribe;
    select("output").closest("label")?.toggleAttribute("hidden", !Sound.choosesOutput);
    part("join-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const { submitter } = /** @type {SubmitEvent} */ (event);
      void this.#join(submitter?.id === "listen" || button("join").hidden ? "subscribe" : "both");
    });
    button("mic-start").addEventListener("click", () => void this.#startMicrophone());
    button("mic-test").addEventListener("click", () => this.#engine.tell({ type: "test" }));
    button("chime").addEventListener("click", async () => {
      await this.#openSound();
      this.#sound.chime();
    });
    for (const [lobby, call] of [["microphone", "call-microphone"], ["output", "call-output"]]) {
      for (const id of [lobby, call]) select(id).addEventListener("change", () => this.#choose(lobby, select(id).value));
    }
  }

  async #begin() {
    await this.#listDevices();
    if (!window.isSecureContext || !navigator.mediaDevices) {
      this.#showProblem(PROBLEMS.insecure);
      button("join").disabled = button("mic-start").disabled = true;
      return;
    }
    const granted = await navigator.permissions?.query({ name: /** @type {PermissionName} */ ("microphone") }).catch(() => null);
    if (granted?.state === "granted") await this.#startMicrophone();
  }

  /** Needs the codec: its rate is the context's. */
  async #openSound() {
    try {
      await this.#sound.open();
      await this.#sound.setOutput(this.#settings.output);
    } catch {
      this.#showProblem(PROBLEMS.sound);
    }
  }

  /** @returns {Promise<boolean>} */
  async #startMicrophone() {
    const { processing } = this.#settings;
    this.#sound.processing = { echoCancellation: processing, noiseSuppression: processing, autoGainControl: true };
    try {
      await this.#sound.openMicrophone(this.#settings.microphone);
    } catch (error) {
      this.#showProblem(window.isSecureContext ? microphone(error) : PROBLEMS.insecure, ["Try again", () => void this.#startMicrophone()]);
      return false;
    }
    await this.#sound.setOutput(this.#settings.output);
    if (this.#state !== "call") this.#hideProblem();
    button("mic-start").hidden = true;
    button("mic-test").hidden = false;
    part("mic-hint").textContent = "Say something: the bar should move.";
    await this.#listDevices();
    return true;
  }

  async #listDevices() {
    const { microphones, outputs } = await this.#sound.devices();
    const options = (/** @type {MediaDeviceInfo[]} */ found, /** @type {string} */ usual) => /** @type {[string, string][]} */ (
      [["", usual], ...found.filter(({ deviceId }) => deviceId !== "default").map(({ deviceId, label }, i) => [deviceId, label || `Device ${i + 1}`])]
    );
    for (const id of ["microphone", "call-microphone"]) fill(select(id), options(microphones, "The browser’s choice"), this.#settings.microphone);
    for (const id of ["output", "call-output"]) fill(select(id), options(outputs, "The system’s choice"), this.#settings.output);
    part("call-output-field").hidden = !Sound.choosesOutput;
  }

  /**
   * @param {string} kind
   * @param {string} deviceId
   */
  #choose(kind, deviceId) {
    if (kind === "microphone") this.#set({ microphone: deviceId });
    else this.#set({ output: deviceId });
    void this.#listDevices();
    if (kind === "output") void this.#sound.setOutput(deviceId);
    else if (this.#sound.stream) void this.#startMicrophone();
  }

  /** @param {Partial<import("./settings.js").Settings>} some */
  #set(some) {
    this.#settings = { ...this.#settings, ...some };
    saveSettings(this.#settings);
  }

  // -- joining ----------------------------------------------------------------------------------------------------

  /** @param {"both" | "subscribe"} role */
  async #join(role) {
    const name = cleanText(input("name").value, MAX_NAME), room = this.#claims.room ?? cleanText(input("room").value, MAX_ROOM);
    input("room").toggleAttribute("aria-invalid", !room);
    if (!room) {
      this.#showProblem({ what: "The room has no name.", cure: "Write any name: who writes the same one is in the same room." });
      input("room").focus();
      return;
    }
    this.#room = room;
    this.#set({ name });
    if (role === "both" && !this.#sound.stream && !(await this.#startMicrophone())) return;
    await this.#openSound();
    this.#wanted = role;
    this.#joinNow();
  }

  #joinNow() {
    const role = this.#wanted;
    if (role === null) return;
    button("join").disabled = button("listen").disabled = true;
    this.#state = "joining";
    if (!this.#ready) return; // `ready` comes back here
    this.#wanted = null;
    const { kbps, receiveKbps, name } = this.#settings;
    this.#showLoading("Joining…");
    this.#setMuted(this.#settings.pushToTalk, role === "both");
    this.#people.clear();
    this.#people.showSelf(name || null, role === "both");
    this.#people.mute(role === "both" && this.#muted);
    for (const id of ["mute", "talk"]) part(id).dataset.role = role;
    this.#showPushToTalk();
    history.replaceState(null, "", roomLink(this.#room));
    this.#engine.tell({
      type: "join", options: {
        url: relayUrl(this.#room), room: this.#room, role, name: name || null, token: this.#token,
        ticket: loadTicket(this.#room), kbps, codebooks: this.#codebooks.get(receiveKbps) ?? null,
      },
    });
  }

  // -- the call ---------------------------------------------------------------------------------------------------

  #prepareCall() {
    button("mute").addEventListener("click", () => this.#setMuted(!this.#muted));
    button("muted-speech-unmute").addEventListener("click", () => this.#setMuted(false));
    button("leave").addEventListener("click", () => this.#engine.tell({ type: "leave" }));
    button("again").addEventListener("click", () => this.#toLobby());
    button("problem-action").addEventListener("click", () => this.#problemAction?.());
    button("settings").addEventListener("click", () => {
      const open = part("panel").hidden;
      part("panel").hidden = !open;
      button("settings").setAttribute("aria-expanded", String(open));
    });
    const dialog = /** @type {HTMLDialogElement} */ (part("invite-dialog"));
    button("invite").addEventListener("click", () => this.#showInvitation(dialog));
    button("invite-close").addEventListener("click", () => dialog.close());
    button("invite-copy").addEventListener("click", async () => {
      input("invite-link").select();
      const copied = await navigator.clipboard?.writeText(input("invite-link").value).then(() => true, () => false);
      button("invite-copy").textContent = copied ? "Copied" : "Copy";
      announce(copied ? "The link was copied" : "The link is selected: copy it");
    });
    select("kbps").addEventListener("change", () => {
      this.#set({ kbps: Number(select("kbps").value) });
      this.#engine.tell({ type: "kbps", kbps: this.#settings.kbps });
    });
    select("receive-kbps").addEventListener("change", () => {
      this.#set({ receiveKbps: Number(select("receive-kbps").value) });
      this.#engine.tell({ type: "codebooks", codebooks: this.#codebooks.get(this.#settings.receiveKbps) ?? Math.max(...this.#codebooks.values()) });
    });
    input("push-to-talk").checked = this.#settings.pushToTalk;
    input("push-to-talk").addEventListener("change", () => {
      this.#set({ pushToTalk: input("push-to-talk").checked });
      this.#setMuted(this.#settings.pushToTalk);
      this.#showPushToTalk();
    });
    input("processing").checked = this.#settings.processing;
    input("processing").addEventListener("change", () => {
      this.#set({ processing: input("processing").checked });
      if (this.#sound.stream) void this.#startMicrophone();
    });
    const talk = button("talk");
    talk.addEventListener("pointerdown", (event) => {
      talk.setPointerCapture(event.pointerId);
      this.#hold(true);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) talk.addEventListener(end, () => this.#hold(false));
    talk.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  #showPushToTalk() {
    const speaks = button("mute").dataset.role === "both", held = this.#settings.pushToTalk;
    button("mute").hidden = !speaks || held;
    button("talk").hidden = !speaks || !held;
  }

  /** @param {boolean} held */
  #hold(held) {
    if (held === this.#held || !this.#settings.pushToTalk || this.#state !== "call") return;
    this.#held = held;
    button("talk").classList.toggle("active", held);
    this.#setMuted(!held);
  }

  /**
   * @param {boolean} muted
   * @param {boolean} speaks
   */
  #setMuted(muted, speaks = button("mute").dataset.role === "both") {
    if (this.#state === "call" && !this.#settings.pushToTalk && muted !== this.#muted) announce(muted ? "You are muted" : "You are heard");
    this.#muted = muted;
    button("mute").setAttribute("aria-pressed", String(muted));
    part("mute-text").textContent = muted ? "Unmute" : "Mute";
    part("muted-speech").hidden = true;
    if (speaks) this.#people.mute(muted);
    this.#engine.tell({ type: "mute", muted });
  }

  /** @param {HTMLDialogElement} dialog */
  #showInvitation(dialog) {
    part("invite-row").hidden = this.#facts.tokens;
    part("invite-text").textContent = this.#facts.tokens
      ? "Each guest needs a link of their own: it holds a token that is good for one person, once. Whoever runs the relay makes it, with: streaming-encodec token ROOM --key FILE --link ADDRESS"
      : "Whoever opens this link joins the room.";
    input("invite-link").value = roomLink(this.#room);
    button("invite-copy").textContent = "Copy";
    dialog.showModal();
  }

  #followKeys() {
    const isTyping = (/** @type {KeyboardEvent} */ event) => event.target instanceof Element
      && event.target.closest("input, select, textarea, dialog[open]") !== null;
    const isPress = (/** @type {KeyboardEvent} */ event) => event.target instanceof HTMLButtonElement && event.target.id !== "talk";
    addEventListener("keydown", (event) => {
      if (this.#state !== "call" || isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key.toLowerCase() === "m" && !this.#settings.pushToTalk && !event.repeat) this.#setMuted(!this.#muted);
      if (event.code === "Space" && this.#settings.pushToTalk && !isPress(event)) {
        event.preventDefault();
        this.#hold(true);
      }
    });
    addEventListener("keyup", (event) => {
      if (event.code === "Space") this.#hold(false);
    });
    addEventListener("blur", () => this.#hold(false));
  }

  #lostMicrophone() {
    void this.#listDevices();
    this.#sound.closeMicrophone();
    this.#showProblem(
      { what: "The microphone is gone.", cure: "Connect it again, or choose another one in the settings." },
      ["Try again", () => void this.#startMicrophone().then((fine) => fine && this.#hideProblem())],
    );
  }

  #onSoundState() {
    if (this.#state !== "call") return;
    if (this.#sound.isWaiting) {
      this.#showProblem({ what: "The browser holds the sound back.", cure: "" }, ["Start audio", () => void this.#sound.resume()]);
    } else this.#hideProblem();
  }

  // -- what the Worker says -----------------------------------------------------------------------------------------

  #followEngine() {
    const engine = this.#engine;
    engine.on("loading", ({ share }) => {
      if (share < 1) this.#showLoading(`Loading the voice codec… ${Math.round(100 * share)} %`);
    });
    engine.on("ready", ({ bandwidths, codebooks, loadMs, startMs }) => {
      this.#ready = true;
      performance.measure("ready", { start: 0, detail: { loadMs, startMs } });
      this.#codebooks = new Map(bandwidths.map((kbps, i) => [kbps, codebooks[i]]));
      const rates = RATE_WORDS.filter(([kbps]) => this.#codebooks.has(Number(kbps)));
      fill(select("kbps"), rates, String(this.#settings.kbps));
      fill(select("receive-kbps"), [["0", "All that is sent"], ...rates], String(this.#settings.receiveKbps));
      this.#showLoading("");
      document.documentElement.dataset.ready = "true";
      this.#joinNow();
    });
    engine.on("failed", ({ unsupported, detail }) => { console.error(detail); this.#showProblem(unsupported ? PROBLEMS.old : PROBLEMS.files, ["Load again", () => location.reload()]); });
    engine.on("level", ({ peak, speaking, mutedSpeech }) => {
      const level = loudness(peak);
      part("lobby-level").style.setProperty("--level", level.toFixed(2));
      part("lobby-level").setAttribute("aria-valuenow", String(Math.round(100 * level)));
      this.#people.level(0, this.#muted ? 0 : peak, speaking && !this.#muted);
      if (mutedSpeech && !this.#settings.pushToTalk && part("muted-speech").hidden && this.#muted) {
        part("muted-speech").hidden = false;
        announce("You are muted: nobody hears you");
      }
    });
    engine.on("test", ({ state }) => {
      button("mic-test").disabled = state !== "none";
      button("mic-test").textContent = { recording: "Recording…", playing: "Playing…", none: "Record and play" }[state];
    });
    engine.on("state", ({ state }) => this.#onState(state));
    engine.on("people", ({ others }) => this.#people.show(others));
    engine.on("ticket", ({ ticket }) => saveTicket(this.#room, ticket));
    engine.on("speakers", ({ levels }) => {
      for (const [sender, square] of levels) this.#people.level(sender, Math.sqrt(square) * 2);
    });
    engine.on("quality", ({ quality, underruns }) => {
      if (this.#state === "call" && part("banner").hidden) this.#status.figures(quality, underruns);
    });
    engine.on("over", ({ code }) => this.#onOver(code));
  }

  /** @param {"connected" | "reconnecting"} state */
  #onState(state) {
    if (state === "reconnecting") {
      this.#status.show("lost");
      part("banner").textContent = "The connection was lost. Reconnecting…";
      part("banner").hidden = false;
      announce("The connection was lost. Reconnecting.");
      return;
    }
    const again = !part("banner").hidden;
    part("banner").hidden = true;
    this.#status.show("good");
    if (again) announce("Connected again");
    if (this.#state === "call") return;
    this.#state = "call";
    this.#hideProblem();
    this.#showOnly("call");
    part("call-title").textContent = this.#room;
    document.title = `${this.#room} – call`;
    part("call-title").focus();
    announce(`You are in ${this.#room}`);
    this.#onSoundState();
    void this.#stayAwake();
  }

  /** @param {number} code */
  #onOver(code) {
    const joined = this.#state === "call";
    this.#state = "over";
    this.#status.show("none");
    part("banner").hidden = true;
    document.title = "Call";
    button("join").disabled = button("listen").disabled = false;
    this.#showLoading("");
    if (code === 1000) {
      this.#showOnly("over");
      this.#hideProblem();
      this.#sound.closeMicrophone();
      part("over-title").focus();
      return;
    }
    if (joined) this.#sound.closeMicrophone();
    this.#toLobby(false);
    this.#showProblem(closed(code));
  }

  #toLobby(clear = true) {
    this.#state = "lobby";
    this.#showOnly("lobby");
    if (clear) this.#hideProblem();
    button("mic-start").hidden = this.#sound.stream !== null;
    button("mic-test").hidden = this.#sound.stream === null;
    part("lobby-title").focus();
    if (this.#sound.stream === null) void this.#begin();
  }

  /** A telephone's screen goes off otherwise, and the page with it. */
  async #stayAwake() {
    const wake = async () => {
      if (this.#state === "call" && document.visibilityState === "visible") await navigator.wakeLock?.request("screen").catch(() => {});
    };
    document.addEventListener("visibilitychange", () => void wake());
    await wake();
  }

  // -- showing --------------------------------------------------------------------------------------------------------

  /** @param {"lobby" | "call" | "over"} section */
  #showOnly(section) {
    for (const id of ["lobby", "call", "over"]) part(id).hidden = id !== section;
  }

  /** @param {string} text */
  #showLoading(text) {
    part("loading").textContent = text;
  }

  /**
   * @param {Problem} problem
   * @param {[string, () => void]} [action]
   */
  #showProblem({ what, cure, final }, action) {
    part("problem").hidden = false;
    part("problem-what").textContent = what;
    part("problem-cure").textContent = cure;
    button("problem-action").hidden = action === undefined;
    button("problem-action").textContent = action?.[0] ?? "";
    this.#problemAction = action?.[1] ?? null;
    button("join").disabled = button("listen").disabled = final === true;
  }

  #hideProblem() {
    part("problem").hidden = true;
  }
}

async function start() {
  const show = (/** @type {Problem} */ { what, cure }) => {
    part("problem").hidden = false;
    button("problem-action").hidden = true;
    part("problem-what").textContent = what;
    part("problem-cure").textContent = cure;
    button("join").disabled = button("listen").disabled = true;
  };
  if (!isSupported()) {
    show(PROBLEMS.old);
    return;
  }
  try {
    const answer = await fetch(new URL("call.json", ROOT));
    if (!answer.ok) throw new Error(`${answer.status}`);
    new Page(await answer.json());
  } catch {
    show(PROBLEMS.files);
  }
}

void start();
