// Mirrors client/datagrams.py: the datagram session beside a WebSocket, opened as soon as the relay offers it, and again
// when it ends. A page can't ping, so it watches what comes.

/** @typedef {import("./messages.js").DatagramOffer} DatagramOffer */

const OPEN_MS = 5000;
const FIRST_DELAY_MS = 500, LONGEST_DELAY_MS = 30_000;
/** A session that lasted so long is no failed attempt. */
const WORKED_MS = 5000;
/** An offer that is older is not used: its key may be too old when the relay sees it (30 s). */
const FRESH_MS = 15_000;
const ANSWER_MS = 5000;
/** The relay's last datagram may be so old: somebody who is silent sends one every 0.4 s. */
const HEARD_MS = 500;
/** After a packet over the WebSocket: while the relay doubts that datagrams arrive, it sends each packet both ways. */
const DOUBT_MS = 500;
/** As at the relay: nothing came for so long but over the WebSocket. */
const GIVE_UP_MS = 10_000;
/** What may wait in the browser. Older voice is of no use. */
const MAX_AGE_MS = 400, MAX_WAITING = 8;

/** @typedef {{ask: () => void, onPacket: (bytes: Uint8Array, nowMs: number) => void}} Events */

export class Datagrams {
  received = 0;
  sent = 0;
  #host;
  #on;
  /** @type {{offer: DatagramOffer, atMs: number} | null} */
  #offered = null;
  /** Ends what `#wait` waits for. @type {(() => void) | null} */
  #came = null;
  /** @type {WebTransport | null} */
  #session = null;
  /** @type {WritableStreamDefaultWriter<Uint8Array> | null} */
  #writer = null;
  #waiting = 0;
  #heardMs = -Infinity;
  #doubtedMs = -Infinity;
  #aloneSinceMs = 0;
  #begun = false;
  #over = false;

  /**
   * ask: asks the relay for an offer, where there is a connection. onPacket: bytes, and when they came.
   * @param {string} host of the relay
   * @param {Events} on
   */
  constructor(host, on) {
    this.#host = host;
    this.#on = on;
  }

  /** Whether this browser, and the way to this relay, have datagram sessions at all. */
  static get isPossible() {
    return typeof WebTransport === "function";
  }

  get isOpen() {
    return this.#writer !== null;
  }

  /** Whether what is sent now arrives, as far as can be known: the relay's datagrams come, and nothing but they. */
  get isCertain() {
    return this.isUsed && performance.now() - this.#heardMs <= HEARD_MS;
  }

  /** Whether the relay sends datagrams, and trusts that they arrive. */
  get isUsed() {
    return this.isOpen && performance.now() - this.#doubtedMs > DOUBT_MS;
  }

  /**
   * The relay offers a session, or does not.
   * @param {DatagramOffer | null} offer
   * @param {boolean} [fresh] the seat is another one than before
   */
  offered(offer, fresh = false) {
    if (fresh) this.#close();
    this.#offered = offer && { offer, atMs: performance.now() };
    if (offer === null || this.#over) return;
    this.#came?.();
    if (this.#begun) return;
    this.#begun = true;
    void this.#keep();
  }

  /**
   * Send a packet; false where it should go by the WebSocket too.
   * @param {Uint8Array} bytes
   */
  send(bytes) {
    const writer = this.#writer, certain = this.isCertain;
    if (writer === null || this.#session === null || bytes.length > this.#session.datagrams.maxDatagramSize) return false;
    if (this.#waiting >= MAX_WAITING) return false;
    this.#waiting++;
    writer.write(bytes).catch(() => undefined).finally(() => this.#waiting--);
    this.sent++;
    return certain;
  }

  /** A packet came over the WebSocket: the relay doubts that datagrams arrive. @param {number} nowMs */
  heardElsewhere(nowMs) {
    if (!this.isOpen) return;
    if (nowMs - this.#doubtedMs > DOUBT_MS) this.#aloneSinceMs = nowMs;
    this.#doubtedMs = nowMs;
    if (this.#heardMs < this.#aloneSinceMs && nowMs - this.#aloneSinceMs > GIVE_UP_MS) this.#close();
  }

  /** End the session for good. */
  close() {
    this.#over = true;
    this.#came?.();
    this.#close();
  }

  async #keep() {
    for (let attempt = 0; !this.#over; attempt++) {
      const offer = await this.#nextOffer();
      if (offer === null) return;
      const beganMs = performance.now();
      await this.#use(offer);
      if (performance.now() - beganMs > OPEN_MS + WORKED_MS) attempt = 0;
      const longestMs = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(attempt, 10));
      await this.#wait(longestMs * (0.5 + 0.5 * Math.random())); // a welcome means another network, perhaps
    }
  }

  /** Open a session and read it until it ends. @param {DatagramOffer} offer */
  async #use({ port, key, certificateSha256 }) {
    // Over UDP browsers try the first address of a name alone: of localhost ::1, where a relay seldom listens.
    const host = this.#host === "localhost" ? "127.0.0.1" : this.#host;
    /** @type {WebTransport} */
    let session;
    try {
      session = new WebTransport(`https://${host}:${port}/datagrams?key=${encodeURIComponent(key)}`, {
        serverCertificateHashes: [{ algorithm: "sha-256", value: certificateSha256 }],
        congestionControl: "low-latency",
      });
    } catch {
      return;
    }
    this.#session = session;
    session.closed.catch(() => undefined); // what fails is seen at `ready`, and where datagrams are read
    const tooLong = setTimeout(() => session.close(), OPEN_MS);
    try {
      await session.ready;
      clearTimeout(tooLong);
      if (this.#session !== session) return;
      session.datagrams.outgoingMaxAge = MAX_AGE_MS;
      session.datagrams.incomingMaxAge = MAX_AGE_MS;
      this.#waiting = 0;
      this.#doubtedMs = this.#heardMs = -Infinity;
      this.#writer = session.datagrams.writable.getWriter();
      this.#writer.closed.catch(() => undefined);
      const reader = session.datagrams.readable.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        this.#heardMs = performance.now();
        this.received++;
        this.#on.onPacket(value, this.#heardMs);
      }
    } catch {
      // refused, blocked, or broken: voice goes over the WebSocket
    } finally {
      clearTimeout(tooLong);
      if (this.#session === session) this.#close();
    }
  }

  #close() {
    const session = this.#session;
    this.#session = this.#writer = null;
    try {
      session?.close();
    } catch {
      // it has ended, or never began
    }
  }

  /** An offer that was not used yet, and is not old: its key is good once. @returns {Promise<DatagramOffer | null>} */
  async #nextOffer() {
    while (!this.#over) {
      const offered = this.#offered;
      this.#offered = null;
      if (offered !== null && performance.now() - offered.atMs < FRESH_MS) return offered.offer;
      this.#on.ask();
      await this.#wait(ANSWER_MS);
    }
    return null;
  }

  /** Wait for an offer, so long at most. @param {number} ms */
  async #wait(ms) {
    if (this.#over || this.#offered !== null) return;
    await /** @type {Promise<void>} */ (new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.#came = () => {
        clearTimeout(timer);
        done();
      };
    }));
    this.#came = null;
  }
}
