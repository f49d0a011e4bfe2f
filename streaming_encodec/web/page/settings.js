// What the page remembers: choices for ever, the way back into a call for this tab.

const PREFIX = "streaming-encodec.";

/** @typedef {import("../client/session.js").Ticket} Ticket */

/**
 * @typedef {{name: string, microphone: string, output: string, kbps: number, receiveKbps: number, pushToTalk: boolean,
 *   processing: boolean}} Settings
 */

/** @type {Settings} */
const DEFAULTS = { name: "", microphone: "", output: "", kbps: 6, receiveKbps: 0, pushToTalk: false, processing: true };

/** @returns {Settings} */
export function loadSettings() {
  const found = read(localStorageOrNull(), "settings");
  const settings = { ...DEFAULTS };
  for (const key of /** @type {(keyof Settings)[]} */ (Object.keys(DEFAULTS))) {
    if (typeof found?.[key] === typeof DEFAULTS[key]) /** @type {any} */ (settings)[key] = found[key];
  }
  return settings;
}

/** @param {Settings} settings */
export function saveSettings(settings) {
  write(localStorageOrNull(), "settings", settings);
}

/**
 * A seat to come back to: tokens are good once, so a page that is loaded again needs the relay's ticket.
 * @param {string} room
 * @returns {Ticket | null}
 */
export function loadTicket(room) {
  const found = read(sessionStorageOrNull(), "ticket");
  return found?.room === room && typeof found.ticket === "string" && Date.now() - found.atMs < 30_000 ? found : null;
}

/**
 * @param {string} room
 * @param {Ticket | null} ticket
 */
export function saveTicket(room, ticket) {
  write(sessionStorageOrNull(), "ticket", ticket && { ...ticket, room });
}

/** The token of the link this tab was opened with; kept out of the address bar. @returns {string | null} */
export function loadToken() {
  const found = read(sessionStorageOrNull(), "token");
  return typeof found?.token === "string" ? found.token : null;
}

/** @param {string} token */
export function saveToken(token) {
  write(sessionStorageOrNull(), "token", { token });
}

function localStorageOrNull() {
  try {
    return window.localStorage;
  } catch {
    return null; // forbidden by the browser's settings
  }
}

function sessionStorageOrNull() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

/**
 * @param {Storage | null} storage
 * @param {string} key
 * @returns {any}
 */
function read(storage, key) {
  try {
    return JSON.parse(storage?.getItem(PREFIX + key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * @param {Storage | null} storage
 * @param {string} key
 * @param {unknown} value
 */
function write(storage, key, value) {
  try {
    if (value === null) storage?.removeItem(PREFIX + key);
    else storage?.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // full or forbidden: then it is not remembered
  }
}
