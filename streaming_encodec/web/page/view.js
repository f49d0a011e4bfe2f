// What the page shows. It finds the elements and changes them; main.js decides what is to be seen.

/** @typedef {{what: string, cure: string}} Problem */
/** @typedef {{sender: number, name: string, own: boolean}} Person */

/**
 * The element of index.html with this id.
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
function find(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

/** @param {string} id */
const button = (id) => find(id, HTMLButtonElement);
/** @param {string} id */
const input = (id) => find(id, HTMLInputElement);
/** @param {string} id */
const select = (id) => find(id, HTMLSelectElement);
/** @param {string} id */
const part = (id) => find(id, HTMLElement);

export const view = {
  title: part("title"), status: part("status"), statusText: part("status-text"),
  problem: part("problem"), problemWhat: part("problem-what"), problemCure: part("problem-cure"),
  problemAction: button("problem-action"),
  lobby: part("lobby"), invited: part("invited"), form: find("join-form", HTMLFormElement), name: input("name"),
  roomField: part("room-field"), room: input("room"), microphone: select("microphone"), micStart: button("mic-start"),
  micTest: button("mic-test"), lobbyLevel: part("lobby-level"), micHint: part("mic-hint"), output: select("output"),
  chime: button("chime"), listen: button("listen"), join: button("join"), loading: part("loading"),
  call: part("call"), callTitle: part("call-title"), banner: part("banner"), people: part("people"), alone: part("alone"),
  mutedSpeech: part("muted-speech"), unmute: button("muted-speech-unmute"),
  mute: button("mute"), muteText: part("mute-text"), talk: button("talk"), invite: button("invite"),
  settings: button("settings"), leave: button("leave"), panel: part("panel"), callMicrophone: select("call-microphone"),
  callOutputField: part("call-output-field"), callOutput: select("call-output"), kbps: select("kbps"),
  receiveKbps: select("receive-kbps"), pushToTalk: input("push-to-talk"), processing: input("processing"),
  figures: part("figures"),
  over: part("over"), overTitle: part("over-title"), again: button("again"),
  inviteDialog: find("invite-dialog", HTMLDialogElement), inviteText: part("invite-text"), inviteRow: part("invite-row"),
  inviteLink: input("invite-link"), inviteCopy: button("invite-copy"), inviteClose: button("invite-close"),
  live: part("live"),
};

/**
 * Show one of the page's three parts, and move the focus to its title.
 * @param {"lobby" | "call" | "over"} shown
 */
export function showPart(shown) {
  for (const name of /** @type {const} */ (["lobby", "call", "over"])) view[name].hidden = name !== shown;
  if (shown === "call") view.callTitle.focus();
  if (shown === "over") view.overTitle.focus();
}

/**
 * A sentence about what went wrong and its cure; null takes it away.
 * @param {Problem | null} problem
 * @param {{label: string, run: () => void} | null} [action]
 */
export function showProblem(problem, action = null) {
  view.problem.hidden = problem === null;
  if (problem === null) return;
  view.problemWhat.textContent = problem.what;
  view.problemCure.textContent = problem.cure;
  const { problemAction } = view;
  problemAction.textContent = action?.label ?? "Close";
  problemAction.onclick = () => {
    showProblem(null);
    action?.run();
  };
  view.problem.focus();
}

/** Take this problem away, if it is the one that is shown. @param {Problem} problem */
export function hideProblem({ what }) {
  if (view.problemWhat.textContent === what) showProblem(null);
}

/**
 * How the connection is, in words; null hides it.
 * @param {"good" | "fair" | "poor" | null} level
 * @param {string} text
 */
export function showStatus(level, text) {
  view.status.hidden = level === null;
  view.status.dataset.level = level ?? "none";
  if (view.statusText.textContent !== text) view.statusText.textContent = text;
}

/** Said by screen readers. @param {string} text */
export function announce(text) {
  view.live.textContent = text;
}

/** @param {string | null} text */
export function showBanner(text) {
  view.banner.hidden = text === null;
  view.banner.textContent = text ?? "";
}

/** The microphone's level in the lobby, 0 to 1. @param {number} level */
export function showLevel(level) {
  view.lobbyLevel.style.setProperty("--level", level.toFixed(3));
  view.lobbyLevel.setAttribute("aria-valuenow", String(Math.round(100 * level)));
}

/**
 * Devices or rates to choose from.
 * @param {HTMLSelectElement} element
 * @param {{value: string, label: string}[]} options
 * @param {string} chosen
 */
export function showChoices(element, options, chosen) {
  element.replaceChildren(...options.map(({ value, label }) => new Option(label, value)));
  element.value = options.some(({ value }) => value === chosen) ? chosen : (options[0]?.value ?? "");
}

/** Elements of the people in the call, by number. @type {Map<number, {item: HTMLElement, doing: HTMLElement}>} */
const faces = new Map();

/** Who is in the call, in this order. @param {Person[]} people */
export function showPeople(people) {
  for (const [sender, { item }] of faces) {
    if (people.some((person) => person.sender === sender)) continue;
    item.remove();
    faces.delete(sender);
  }
  for (const { sender, name, own } of people) {
    let face = faces.get(sender);
    if (!face) {
      const item = document.createElement("li"), who = document.createElement("div");
      const circle = document.createElement("span"), doing = document.createElement("span");
      item.className = "person";
      circle.className = "face";
      circle.setAttribute("aria-hidden", "true");
      who.className = "who";
      doing.className = "doing";
      who.append(document.createElement("bdi"), doing);
      item.append(circle, who);
      face = { item, doing };
      faces.set(sender, face);
    }
    const label = face.item.querySelector("bdi"), circle = face.item.querySelector(".face");
    if (label) label.textContent = own ? `${name} (you)` : name;
    if (circle) circle.textContent = [...name][0]?.toUpperCase() ?? "?";
    view.people.append(face.item);
  }
  view.alone.hidden = people.some(({ own }) => !own);
}

/**
 * What somebody does at present.
 * @param {number} sender
 * @param {{speaking: boolean, level: number, doing: string}} now level: 0 to 1
 */
export function showVoice(sender, { speaking, level, doing }) {
  const face = faces.get(sender);
  if (!face) return;
  // Ten times a second and for everybody: only what changes is drawn again, and in steps.
  const step = level.toFixed(1);
  if (face.item.dataset.speaking !== String(speaking)) face.item.dataset.speaking = String(speaking);
  if (face.item.style.getPropertyValue("--level") !== step) face.item.style.setProperty("--level", step);
  if (face.doing.textContent !== doing) face.doing.textContent = doing;
}

/** @param {boolean} muted @param {boolean} pushToTalk */
export function showMuted(muted, pushToTalk) {
  view.mute.hidden = pushToTalk;
  view.talk.hidden = !pushToTalk;
  view.mute.setAttribute("aria-pressed", String(muted));
  view.muteText.textContent = muted ? "Unmute" : "Mute";
  view.talk.classList.toggle("active", pushToTalk && !muted);
}

/** Names and values below "Connection". @param {[string, string][]} figures */
export function showFigures(figures) {
  view.figures.replaceChildren(...figures.flatMap(([name, value]) => {
    const term = document.createElement("dt"), said = document.createElement("dd");
    term.textContent = name;
    said.textContent = value;
    return [term, said];
  }));
}
