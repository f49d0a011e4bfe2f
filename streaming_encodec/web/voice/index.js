// Sender and receiver of a voice.

export { DelayEstimator, QueueMeter, delaySettings } from "./delay.js";
export { PcmPlayout } from "./playout.js";
export { RateControl, rateSettings } from "./rate.js";
export { LIVE_PLAYOUT, Receiver, receiverSettings } from "./receiver.js";
export { LATE_S, StallMeter, VoiceSender, senderSettings } from "./sender.js";
export { ReceiverStatistics } from "./statistics.js";
export { VoiceActivityDetector } from "./vad.js";
/** @typedef {import("./statistics.js").Report} Report */
/** @typedef {import("./sender.js").SenderSettings} SenderSettings */
/** @typedef {import("./receiver.js").ReceiverSettings} ReceiverSettings */
/** @typedef {import("./ladder.js").PlayoutInstruction} PlayoutInstruction */
