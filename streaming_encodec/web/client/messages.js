// Control messages of docs/protocol.md: what a client says, and what it understands of a relay.

/** @typedef {import("../voice/statistics.js").Report} Report */

/** How to open a datagram session. @typedef {{port: number, key: string, certificateSha256: Uint8Array<ArrayBuffer>}} DatagramOffer */

/**
 * @typedef {{type: "welcome", sender: number, resume: string | null, resumed: boolean, heartbeatS: number,
 *   speakers: {sender: number, name: string | null}[], datagrams: DatagramOffer | null}} Welcome
 * @typedef {Welcome | {type: "joined", sender: number, name: string | null} | {type: "left", sender: number}
 *   | {type: "report", report: Report} | {type: "offer", datagrams: DatagramOffer} | {type: "bye", reason: string, retryS: number | null}} RelayMessage
 */

export const SUBPROTOCOL = "streaming-encodec.v1";
export const MAX_NAME = 32;
export const MAX_ROOM = 64;

const INVISIBLE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]|[\ud800-\udfff]/gu;

/**
 * What may be sent of a text that a person typed: visible characters, single spaces, at most `longest`.
 * @param {string} text
 * @param {number} longest
 */
export function cleanText(text, longest) {
  const clean = text.replace(INVISIBLE, " ").replace(/\s+/gu, " ").trim();
  return [...clean].slice(0, longest).join("").trim();
}

/**
 * A message of the relay; null for one that this client does not understand and ignores.
 * @param {string} text
 * @returns {RelayMessage | null}
 */
export function readMessage(text) {
  /** @type {any} */
  let said;
  try {
    said = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof said !== "object" || said === null) return null;
  const { type } = said;
  if (type === "welcome" && said.protocol === 1 && isNumber(said.sender, 0)) {
    const speakers = Array.isArray(said.speakers) ? said.speakers : [];
    return {
      type, sender: said.sender, resume: typeof said.resume === "string" ? said.resume : null,
      resumed: said.resumed === true, heartbeatS: said.heartbeat_s > 0 ? Math.min(said.heartbeat_s, 3600) : 5,
      speakers: speakers.filter((/** @type {any} */ other) => isNumber(other?.sender, 1))
        .map((/** @type {any} */ other) => ({ sender: other.sender, name: nameOf(other) })),
      datagrams: readOffer(said.datagrams),
    };
  }
  if (type === "joined" && isNumber(said.sender, 1)) return { type, sender: said.sender, name: nameOf(said) };
  if (type === "left" && isNumber(said.sender, 1)) return { type, sender: said.sender };
  if (type === "report" && isNumber(said.sender, 1)) return { type, report: said };
  if (type === "offer") {
    const datagrams = readOffer(said);
    return datagrams && { type, datagrams };
  }
  if (type === "bye") return { type, reason: String(said.reason ?? ""), retryS: typeof said.retry_s === "number" ? said.retry_s : null };
  return null;
}

/**
 * @param {unknown} value
 * @param {number} least
 */
function isNumber(value, least) {
  return typeof value === "number" && Number.isInteger(value) && value >= least && value <= 0xffff;
}

/** @param {any} said @returns {DatagramOffer | null} */
function readOffer(said) {
  const { port, key, certificate_sha256: hash } = said ?? {};
  if (!isNumber(port, 1) || typeof key !== "string" || !/^[\w-]{1,64}$/u.test(key)) return null;
  if (typeof hash !== "string" || !/^[0-9a-f]{64}$/u.test(hash)) return null;
  return { port, key, certificateSha256: Uint8Array.from(hash.match(/../gu) ?? [], (digits) => parseInt(digits, 16)) };
}

/** @param {any} said */
function nameOf(said) {
  return typeof said.name === "string" ? cleanText(said.name, MAX_NAME) || null : null;
}
