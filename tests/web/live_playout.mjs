// The settings of LIVE_PLAYOUT under Python's names.

import { LIVE_PLAYOUT } from "../../streaming_encodec/web/voice/index.js";

const { delay, ...others } = LIVE_PLAYOUT;
const all = Object.entries({ ...delay, ...others });
const snake = (/** @type {string} */ name) => name.replace(/S$/, "_s").replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
console.log(JSON.stringify(Object.fromEntries(all.map(([name, value]) => [snake(name), value]))));
