// Small words for building and wording: elements, numbers, times, addresses. What came from
// outside becomes text nodes and attribute values only, never markup.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element; children are nodes or texts, `null` ones are left out. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "g", "rect"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const number = (value) => new Intl.NumberFormat("en").format(value);
const plural = (count, one, many = one + "s") => `${number(count)} ${count === 1 ? one : many}`;

/** `2 h 58 min` of a length in seconds. */
function length(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [d, h, m, s] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  if (m) return m < 10 && s ? `${m} min ${s} s` : `${m} min`;
  return `${s} s`;
}

/** How long a ban still lasts. The server's clock counts, not the browser's. */
let skew = 0;
const now = () => Date.now() + skew;
function left(until) {
  if (!until) return "never ends";
  const seconds = (Date.parse(until) - now()) / 1000;
  return seconds > 0 ? length(seconds) : "ending";
}

const ago = (at) => `${length((now() - Date.parse(at)) / 1000)} ago`;

/** A `<time>`: the time of day, with the date when it is another day's. */
function moment(at) {
  const date = new Date(at);
  const today = new Date(now()).toDateString() === date.toDateString();
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  const day = today ? {} : { day: "numeric", month: "short" };
  return make("time", { datetime: at, title: date.toString() }, date.toLocaleString("en-GB", { ...day, ...clock }));
}

/** A sentence of jailgate's with its times as the reader's clock shows them. */
const localized = (text) => text.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, (at) => moment(at).textContent);

const explainLink = (client) => "/?explain=" + encodeURIComponent(client);

/** An address that leads to its explanation. */
function address(client) {
  return make("a", { class: "address", href: explainLink(client), "data-explain": client }, client);
}

/** The counted requests behind a ban, in one line. */
function proof(ban) {
  const statuses = !ban.firstStatus ? "" : ban.firstStatus === ban.lastStatus ? `, status ${ban.firstStatus}` : `, status ${ban.firstStatus} to ${ban.lastStatus}`;
  const counted = ban.count ? plural(ban.count, "counted request") + statuses : "";
  return [counted, ban.path ? `last path ${ban.path}` : ""].filter(Boolean).join(", ");
}

const jailName = (jail) => jail ?? "every jail";

/** Says it to those who see (for a while) and to those who listen. */
function toast(text) {
  const note = make("p", {}, text);
  $("#toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}

/** Says it to those who listen, at most one sentence in three seconds. */
const speech = { waiting: [], timer: 0 };
function speak(text) {
  speech.waiting.push(text);
  speech.timer ||= setTimeout(() => {
    const many = speech.waiting.length > 3;
    $("#spoken").textContent = many ? `${speech.waiting.length} changes of bans` : speech.waiting.join(". ");
    speech.waiting = [];
    speech.timer = 0;
  }, 3000);
}

/** Runs at most once in `pause` milliseconds, and once more when asked meanwhile. */
function seldom(pause, run) {
  let timer = 0;
  return () => { timer ||= setTimeout(() => { timer = 0; run(); }, pause); };
}
