// A call's voice ends: everything but the connection and the sound card.

export { IncomingVoices } from "./incoming.js";
export { Limiter, Mixer } from "./mixer.js";
export { OutgoingVoice } from "./outgoing.js";
