// Small helpers over the page's elements: by id, with the right type, or an error at once.

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new (...args: any[]) => T} kind
 * @returns {T}
 */
export function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no ${kind.name} #${id}`);
  return found;
}

/** @param {string} id */
export const button = (id) => element(id, HTMLButtonElement);
/** @param {string} id */
export const input = (id) => element(id, HTMLInputElement);
/** @param {string} id */
export const select = (id) => element(id, HTMLSelectElement);
/** @param {string} id */
export const part = (id) => element(id, HTMLElement);

/**
 * Read out by screen readers, after what they are reading.
 * @param {string} text
 */
export function announce(text) {
  const live = part("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text; // the same once more is news, too
}

/**
 * @param {HTMLSelectElement} list
 * @param {[value: string, label: string][]} options
 * @param {string} chosen
 */
export function fill(list, options, chosen) {
  list.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
  list.value = options.some(([value]) => value === chosen) ? chosen : options[0]?.[0] ?? "";
}

/**
 * 0 to 1 on a scale on which speech moves in the middle.
 * @param {number} amplitude
 */
export function loudness(amplitude) {
  return Math.min(1, Math.max(0, 1 + (20 * Math.log10(Math.max(amplitude, 1e-6))) / 55));
}
