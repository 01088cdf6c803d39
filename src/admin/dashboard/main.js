// Brings the page to life: who handles which click, what is read when.

const root = document.documentElement;
root.classList.add("js");

/** The browser's preference unless the reader chose. */
function theme(chosen) {
  if (chosen) root.dataset.theme = chosen;
  const dark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  return dark;
}
function kept(name, value) {
  // Storage may be forbidden; then nothing is remembered.
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch { /* not remembered */ }
  return null;
}
if (["light", "dark"].includes(kept("theme"))) theme(kept("theme"));

function readEverything() {
  readBans();
  readStatus();
  readStats();
  readAllowed();
}

function reloaded(outcome) {
  showReload(outcome);
  toast(outcome.ok ? "The configuration was reloaded." : "A reload failed; the old configuration stays.");
  if (outcome.ok) readConfig();
}

async function readConfig() {
  try {
    $("#config-text").textContent = (await call("GET", "/config")).text;
  } catch { /* the text shown stays until the next reload */ }
}

function clicked(event) {
  const target = event.target.closest("button, a");
  if (!target) return;
  const row = target.closest("tr");
  const act = target.dataset.act;
  if (target.dataset.explain && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    explain(target.dataset.explain);
  } else if (act === "unban") askUnban(row.ban);
  else if (act === "allow") askAllow(row ? row.ban.client : "");
  else if (act === "ban") askBan();
  else if (act === "reload") askReload();
  else if (act === "cancel") target.closest("dialog").close();
  else if (act === "more") moreBans();
  else if (act === "me") $("#allow form").subjects.value = "me";
  else if (act === "explain-allow") askAllow(explained.client);
  else if (act === "explain-ban") askBan(explained.client);
  else if (act === "theme") {
    const next = theme() ? "light" : "dark";
    theme(next);
    kept("theme", next);
  }
}

function submitted(event) {
  const form = event.target;
  if (form.id === "filters") filterBans();
  else if (form.id === "ask") explain(form.explain.value.trim(), form.url.value.trim());
  else if (form.closest("#ban")) settle(form.closest("dialog"), ban);
  else if (form.closest("#allow")) settle(form.closest("dialog"), allow);
  else return;
  event.preventDefault();
}

function start() {
  document.addEventListener("click", clicked);
  document.addEventListener("submit", submitted);
  const typed = seldom(250, filterBans);
  $("#filters").addEventListener("input", typed);
  $("#span").addEventListener("change", (event) => {
    overview.minutes = Number(event.target.value);
    readStats();
  });
  for (const dialog of $$("#ban, #allow, #confirm")) dialog.addEventListener("close", explainAgain);
  const form = $("#filters");
  bans.filter = { text: form.text.value, jail: form.jail.value, origin: form.origin.value };
  const statsSoon = seldom(1000, readStats);
  listen({
    hello: readEverything,
    reset: readBansSoon,
    ban: (ban) => { banChanged("ban", ban); statsSoon(); },
    change: (ban) => banChanged("change", ban),
    unban: (ban) => banChanged("unban", ban),
    job: readStatusSoon,
    reload: reloaded,
  });
  setInterval(tickBans, 1000);
  setInterval(() => { if (!document.hidden) readStatus(); }, 5000);
  setInterval(() => { if (!document.hidden) readStats(); }, 15000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { readStatus(); readStats(); } });
  new ResizeObserver(seldom(100, drawChart)).observe($("#chart"));
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
