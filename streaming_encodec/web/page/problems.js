// What can go wrong, as a sentence for people and what to do about it.

/** @typedef {{what: string, cure: string, final?: boolean}} Problem */

/** @type {Record<number, Problem>} */
const BY_CODE = {
  1002: { what: "This page and the relay do not understand each other.", cure: "Load the page again." },
  1006: { what: "The relay can’t be reached.", cure: "Check your network, then try again." },
  1012: { what: "The relay is restarting.", cure: "Try again in a few seconds." },
  1013: { what: "The room is full.", cure: "Try again later, or ask somebody to leave." },
  4001: { what: "You joined this call in another tab or window.", cure: "Go on there, or join again here." },
  4400: { what: "This page and the relay do not understand each other.", cure: "Load the page again." },
  4403: { what: "You are not allowed in this room.", cure: "Links are good for one person, once: ask for a new one." },
  4408: { what: "The connection was too slow to join.", cure: "Check your network, then try again." },
  4409: { what: "The others in this room use another voice model.", cure: "They must call with the model voice-24khz, or you choose another room." },
  4426: { what: "This page is older or newer than the relay.", cure: "Load the page again." },
  4429: { what: "Too much was sent to the relay.", cure: "Try again in a few seconds." },
};

/**
 * @param {number} code of the WebSocket
 * @returns {Problem}
 */
export function closed(code) {
  return BY_CODE[code] ?? { what: "The call has ended unexpectedly.", cure: `Try again. (Code ${code}.)` };
}

/**
 * @param {unknown} error of `getUserMedia`
 * @returns {Problem}
 */
export function microphone(error) {
  switch (error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
    case "SecurityError":
      return {
        what: "The browser does not let this page use the microphone.",
        cure: "Allow it: click the symbol beside the address, or look into the browser’s settings. You can also join to listen.",
      };
    case "NotFoundError":
    case "OverconstrainedError":
      return { what: "No microphone was found.", cure: "Connect one, then try again. You can also join to listen." };
    case "NotReadableError":
    case "AbortError":
      return { what: "The microphone can’t be used at the moment.", cure: "Close other programs that use it, then try again." };
    default:
      return { what: "The microphone could not be started.", cure: "Connect another one or try another browser. You can also join to listen." };
  }
}

/** @type {Record<"click" | "insecure" | "old" | "files" | "sound", Problem>} */
export const PROBLEMS = {
  insecure: {
    what: "This page was not loaded over HTTPS, so the browser gives it no microphone.",
    cure: "Open it with https:// in front, or on the machine of the relay itself. You can only listen here.",
  },
  old: {
    what: "This browser lacks what the call needs.",
    cure: "Use a current version of Chrome, Edge, Firefox or Safari.",
    final: true,
  },
  files: { what: "A part of this page could not be loaded.", cure: "Check your network, then load the page again.", final: true },
  click: { what: "The browser waits for a click before it plays sound.", cure: "" },
  sound: { what: "The sound could not be started.", cure: "Check that a loudspeaker is connected, then load the page again." },
};

/** What a browser must have. */
export function isSupported() {
  return typeof WebAssembly === "object" && typeof AudioWorkletNode === "function" && typeof Worker === "function"
    && typeof structuredClone === "function";
}
