// What the page's address says: the relay, the room, and the token of an invitation.

import { MAX_ROOM, cleanText } from "../client/messages.js";
import { loadToken, saveToken } from "./settings.js";

/** The folder of the relay on its server; the page's parts lie two folders below. */
export const ROOT = new URL("../../", document.baseURI);

/** The room of the address, "" if it names none. */
export function roomOfAddress() {
  const match = /\/r\/([^/]+)$/.exec(location.pathname);
  try {
    return match ? cleanText(decodeURIComponent(match[1]), MAX_ROOM) : "";
  } catch {
    return ""; // % and no digits
  }
}

/**
 * The token of the address's fragment, which then leaves the address bar: who copies the address should not give the
 * token away.
 * @returns {string | null}
 */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return loadToken();
  saveToken(token);
  history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/**
 * What a token allows; nothing is checked, the relay does that.
 * @param {string | null} token
 * @returns {{room?: string, publish: boolean, subscribe: boolean}}
 */
export function claimsOf(token) {
  try {
    const text = atob((token ?? "").split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
    return { room: typeof claims.room === "string" ? claims.room : undefined, publish: claims.publish === true, subscribe: claims.subscribe === true };
  } catch {
    return { publish: true, subscribe: true };
  }
}

/** @param {string} room */
export function roomLink(room) {
  return new URL(`r/${encodeURIComponent(room)}`, ROOT).href;
}

/** @param {string} room */
export function relayUrl(room) {
  const url = new URL(`r/${encodeURIComponent(room)}`, ROOT);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}
