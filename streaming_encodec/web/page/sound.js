// Microphone, loudspeaker and the AudioContext between them. The samples go straight to the Worker.

/** @typedef {import("./engine.js").Engine} Engine */

/** @typedef {{deviceId: string, label: string}} Device */

const BLOCK_S = 0.005;

export class Sound {
  /** @type {AudioContext | null} */
  context = null;
  /** @type {MediaStream | null} */
  stream = null;
  /** What the browser does to the microphone's sound. */
  processing = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  /** Called when the context was stopped or runs again. */
  onState = () => {};
  /** Called when the microphone is gone. */
  onEnded = () => {};
  #engine;
  #modelRate;
  #frameSamples;
  /** @type {MediaStreamAudioSourceNode | null} */
  #source = null;
  /** @type {AudioWorkletNode | null} */
  #capture = null;
  /** @type {string} */
  #output = "";

  /**
   * @param {Engine} engine
   * @param {number} modelRate
   * @param {number} frameSamples of the model
   */
  constructor(engine, modelRate, frameSamples) {
    this.#engine = engine;
    this.#modelRate = modelRate;
    this.#frameSamples = frameSamples;
  }

  /** Whether this browser lets a page choose the loudspeaker. */
  static get choosesOutput() {
    return typeof AudioContext === "function" && "setSinkId" in AudioContext.prototype;
  }

  /** Whether a click is needed before anything is heard. */
  get isWaiting() {
    return this.context !== null && this.context.state !== "running";
  }

  /** Start the loudspeaker alone. */
  async open() {
    if (this.context === null) await this.#build(new AudioContext({ latencyHint: "interactive", sampleRate: this.#modelRate }));
    void this.resume();
  }

  async resume() {
    await this.context?.resume().catch(() => {});
  }

  /**
   * Start the microphone, or change to another one. Throws what the browser throws.
   * @param {string} deviceId "" takes the browser's own choice
   */
  async openMicrophone(deviceId) {
    const wanted = { ...this.processing, channelCount: 1, ...(deviceId ? { deviceId: { exact: deviceId } } : {}) };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    } catch (error) {
      if (!deviceId || !(error instanceof DOMException) || error.name !== "OverconstrainedError") throw error;
      stream = await navigator.mediaDevices.getUserMedia({ audio: { ...wanted, deviceId: undefined } }); // it was unplugged
    }
    this.closeMicrophone();
    this.stream = stream;
    stream.getAudioTracks()[0].onended = () => {
      if (this.stream === stream) this.onEnded();
    };
    await this.open();
    const context = /** @type {AudioContext} */ (this.context);
    try {
      this.#source = context.createMediaStreamSource(stream);
    } catch {
      // Firefox takes a microphone only in a context of the microphone's own rate.
      await context.close();
      this.context = null;
      await this.#build(new AudioContext({ latencyHint: "interactive" }));
      void this.resume();
      this.#source = /** @type {AudioContext} */ (/** @type {unknown} */ (this.context)).createMediaStreamSource(stream);
    }
    this.#source.connect(/** @type {AudioWorkletNode} */ (this.#capture));
  }

  closeMicrophone() {
    this.#source?.disconnect();
    this.#source = null;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
  }

  /** The device that the microphone is. */
  get microphoneId() {
    return this.stream?.getAudioTracks()[0]?.getSettings().deviceId ?? "";
  }

  /** @param {string} deviceId "" is the browser's own choice */
  async setOutput(deviceId) {
    this.#output = deviceId;
    const context = /** @type {any} */ (this.context);
    if (context !== null && Sound.choosesOutput) await context.setSinkId(deviceId).catch(() => {}); // unplugged: the usual one
  }

  /** Microphones and loudspeakers. Without the permission they have no names. */
  async devices() {
    const found = await (navigator.mediaDevices?.enumerateDevices() ?? Promise.resolve([]));
    const named = (/** @type {MediaDeviceKind} */ kind) => found.filter((device) => device.kind === kind && device.deviceId);
    return { microphones: named("audioinput"), outputs: named("audiooutput") };
  }

  /** Three notes, to hear which loudspeaker it is. */
  chime() {
    const { context } = this;
    if (context === null) return;
    [523.25, 659.25, 783.99].forEach((frequency, i) => {
      const tone = new OscillatorNode(context, { frequency }), gain = new GainNode(context, { gain: 0 });
      const at = context.currentTime + 0.05 + 0.18 * i;
      gain.gain.setValueAtTime(0, at);
      gain.gain.linearRampToValueAtTime(0.2, at + 0.02);
      gain.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
      tone.connect(gain).connect(context.destination);
      tone.start(at);
      tone.stop(at + 0.6);
    });
  }

  /** @param {AudioContext} context */
  async #build(context) {
    this.context = context;
    await Promise.all(["capture", "playback"].map((name) => context.audioWorklet.addModule(new URL(`../worklets/${name}.js`, import.meta.url).href)));
    // The codec takes whole frames. After a resampler none ends with a block, so that blocks are small.
    const block = context.sampleRate === this.#modelRate ? this.#frameSamples : Math.max(128, Math.round((BLOCK_S * context.sampleRate) / 128) * 128);
    const capture = new AudioWorkletNode(context, "capture", {
      numberOfInputs: 1, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit", processorOptions: { block },
    });
    const playback = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, numberOfOutputs: 1, outputChannelCount: [1] });
    playback.connect(context.destination);
    this.#capture = capture;
    const captured = new MessageChannel(), played = new MessageChannel();
    capture.port.postMessage(captured.port1, [captured.port1]);
    playback.port.postMessage(played.port1, [played.port1]);
    this.#engine.tell(
      { type: "audio", capture: captured.port2, playback: played.port2, contextRate: context.sampleRate },
      [captured.port2, played.port2],
    );
    context.onstatechange = () => this.onState();
    if (this.#output) await this.setOutput(this.#output);
  }
}
