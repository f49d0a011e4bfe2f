// Who is there and who speaks.

import { announce, loudness, part } from "./view.js";

const SPEAKING = 0.012;
const HOLD_MS = 350;
/** So many who come or go at once are read out by name. */
const READ_OUT = 3;

/** @typedef {{sender: number, name: string | null}} Other */

export class People {
  /** @type {Map<number, {item: HTMLLIElement, name: string, spokeMs: number}>} */
  #shown = new Map();
  #list = part("people");

  /** Forget everybody. */
  clear() {
    this.#shown.clear();
    this.#list.replaceChildren();
  }

  /**
   * Oneself, as number 0.
   * @param {string | null} name
   * @param {boolean} speaks
   */
  showSelf(name, speaks) {
    this.#add(0, name ? `${name} (you)` : "You");
    this.#say(0, speaks ? "" : "only listening");
  }

  /** @param {Other[]} others */
  show(others) {
    const came = [], went = [];
    const called = this.#names(others);
    for (const [sender, { item, name }] of this.#shown) {
      if (sender === 0 || called.has(sender)) continue;
      item.remove();
      this.#shown.delete(sender);
      went.push(name);
    }
    for (const [sender, name] of called) {
      const known = this.#shown.get(sender);
      if (known === undefined) came.push(name);
      if (known?.name !== name) this.#add(sender, name);
    }
    part("alone").hidden = others.length > 0;
    this.#tell(came, "joined");
    this.#tell(went, "left");
  }

  /**
   * @param {number} sender
   * @param {number} amplitude
   * @param {boolean} [isSpeech] where that is known better than from the amplitude
   */
  level(sender, amplitude, isSpeech = amplitude > SPEAKING) {
    const person = this.#shown.get(sender);
    if (person === undefined) return;
    const nowMs = performance.now();
    if (isSpeech) person.spokeMs = nowMs;
    person.item.dataset.speaking = String(nowMs - person.spokeMs < HOLD_MS);
    person.item.style.setProperty("--level", loudness(amplitude).toFixed(2));
  }

  /**
   * @param {number} sender
   * @param {string} text
   */
  #say(sender, text) {
    const doing = this.#shown.get(sender)?.item.querySelector(".doing");
    if (doing) doing.textContent = text;
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#say(0, muted ? "muted" : "");
  }

  /**
   * @param {number} sender
   * @param {string} name
   */
  #add(sender, name) {
    const before = this.#shown.get(sender)?.item;
    const item = document.createElement("li"), face = document.createElement("span"), who = document.createElement("span");
    const label = document.createElement("bdi"), doing = document.createElement("span");
    item.className = "person";
    face.className = "face";
    face.setAttribute("aria-hidden", "true");
    face.textContent = [...name][0]?.toLocaleUpperCase() ?? "?";
    who.className = "who";
    label.textContent = label.title = name;
    doing.className = "doing";
    who.append(label, doing);
    item.append(face, who);
    if (before) before.replaceWith(item);
    else this.#list.append(item);
    this.#shown.set(sender, { item, name, spokeMs: -HOLD_MS });
  }

  /**
   * Guests without a name, and names that are there twice, get a number.
   * @param {Other[]} others
   */
  #names(others) {
    const names = new Map(), count = new Map();
    for (const { name } of others) count.set(name, (count.get(name) ?? 0) + 1);
    for (const { sender, name } of others) {
      names.set(sender, name === null ? `Guest ${sender}` : /** @type {number} */ (count.get(name)) > 1 ? `${name} (${sender})` : name);
    }
    return names;
  }

  /**
   * @param {string[]} names
   * @param {string} what
   */
  #tell(names, what) {
    if (!names.length) return;
    announce(names.length > READ_OUT ? `${names.length} people ${what}` : `${names.join(", ")} ${what}`);
  }
}
