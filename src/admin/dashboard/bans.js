// The table of bans: its first page, more on demand, filters, and the changes that events bring.

const PAGE = 50;
/** More rows than this are too many to keep while they pass by. */
const ROWS = 2000;
/** So many changes at once are read as a fresh page. */
const BURST = 200;

const bans = { rows: new Map(), next: null, total: 0, waiting: [], filter: {}, beside: null };

const banKey = (ban) => `${ban.client} ${ban.jail ?? "*"} ${ban.origin}`;

function banRow(ban) {
  const row = $("#ban-row").content.firstElementChild.cloneNode(true);
  row.dataset.client = ban.client;
  const cell = (name) => $(`[data-cell="${name}"]`, row);
  cell("client").append(address(ban.client));
  cell("jail").textContent = jailName(ban.jail);
  cell("origin").textContent = ban.origin;
  cell("reason").textContent = ban.reason;
  cell("proof").textContent = proof(ban);
  cell("since").append(moment(ban.since));
  const ends = cell("left");
  ends.dataset.until = ban.until ?? "";
  ends.textContent = left(ban.until);
  if (ban.until) ends.title = new Date(ban.until).toString();
  for (const button of $$("button", row)) {
    const name = button.dataset.act === "unban" ? "Unban" : "Allow";
    button.setAttribute("aria-label", `${name} ${ban.client}`);
  }
  row.ban = ban;
  return row;
}

function banAsked(extra) {
  return call("GET", "/bans" + query({ limit: PAGE, ...bans.filter, ...extra }));
}

/** Reads the first page again; keeps the keyboard where it was. */
async function readBans() {
  const asked = bans.filter;
  let answer;
  try {
    answer = await banAsked();
  } catch (fault) {
    $("#bans-empty").textContent = `The bans could not be read: ${fault.message}.`;
    $("#bans-empty").hidden = bans.rows.size > 0;
    return;
  }
  if (asked !== bans.filter) return;
  const held = document.activeElement?.closest?.("#bans tbody tr");
  const focus = held && [banKey(held.ban), document.activeElement.dataset.act];
  bans.rows = new Map(answer.bans.map((ban) => [banKey(ban), banRow(ban)]));
  $("#bans tbody").replaceChildren(...bans.rows.values());
  bans.next = answer.next;
  bans.total = answer.total;
  if (focus) focusBan(bans.rows.get(focus[0]), focus[1]);
  countBans();
}

async function moreBans() {
  const button = $("#more");
  button.disabled = true;
  try {
    const answer = await banAsked({ cursor: bans.next });
    for (const ban of answer.bans) {
      const key = banKey(ban);
      if (bans.rows.has(key)) continue;
      const row = banRow(ban);
      bans.rows.set(key, row);
      $("#bans tbody").append(row);
    }
    bans.next = answer.next;
  } catch (fault) {
    toast(`No more bans: ${fault.message}`);
  }
  button.disabled = false;
  countBans();
}

function countBans() {
  const filtered = Object.values(bans.filter).some(Boolean);
  const shown = bans.rows.size;
  $("#bans-count").textContent = shown === bans.total && !bans.next ? number(shown) : `${number(shown)} shown of ${number(bans.total)}`;
  const empty = $("#bans-empty");
  empty.hidden = shown > 0;
  empty.textContent = filtered ? "No active ban matches these filters." : "Nobody is banned.";
  $("#bans").hidden = shown === 0;
  $("#more").hidden = !bans.next;
  $("#figure-bans").textContent = number(bans.total);
}

function focusBan(row, act) {
  const target = row && ($(`[data-act="${act}"]`, row) ?? $("a", row));
  (target ?? $("#search")).focus({ preventScroll: true });
}

/** An event: `lift` is set when the ban ended. */
function banChanged(kind, ban) {
  bans.waiting.push([kind, ban]);
  applyBans();
}

const applyBans = seldom(120, () => {
  const changes = bans.waiting.splice(0);
  for (const [kind] of changes) bans.total += { ban: 1, unban: -1 }[kind] ?? 0;
  bans.total = Math.max(0, bans.total);
  if (changes.length > BURST || bans.rows.size > ROWS || bans.filter.text || bans.filter.since) return readBansSoon();
  for (const [kind, ban] of changes) applyBan(kind, ban);
  countBans();
});

function applyBan(kind, ban) {
  const key = banKey(ban);
  const old = bans.rows.get(key);
  if (kind === "unban") {
    if (old) removeBan(key, old);
    speak(`Ban of ${ban.client} ended`);
    return;
  }
  const { jail, origin } = bans.filter;
  if ((jail && jail !== (ban.jail ?? "*")) || (origin && origin !== ban.origin)) return;
  const row = banRow(ban);
  const act = old?.contains(document.activeElement) && document.activeElement.dataset.act;
  old?.remove();
  bans.rows.set(key, row);
  row.classList.add("fresh");
  $("#bans tbody").prepend(row);
  if (act) focusBan(row, act);
  if (kind === "ban") speak(`Banned ${ban.client} in ${jailName(ban.jail)}`);
}

/** Takes a row away; a keyboard that stood on it goes to the next. */
function removeBan(key, row) {
  const stood = row.contains(document.activeElement);
  bans.beside = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  bans.rows.delete(key);
  if (stood) focusBan(bans.beside, "unban");
}

const readBansSoon = seldom(400, readBans);

/** What the filters say now. */
function filterBans() {
  const form = $("#filters");
  const chosen = { text: form.text.value.trim(), jail: form.jail.value, origin: form.origin.value };
  bans.filter = chosen;
  history.replaceState(null, "", location.pathname + query(chosen));
  readBans();
}

/** Every second, because time passes. */
function tickBans() {
  for (const cell of $$("#bans [data-until]")) {
    const text = left(cell.dataset.until);
    if (cell.textContent !== text) cell.textContent = text;
  }
}

/** An origin that appeared later is offered too. */
function offerOrigins(names) {
  const select = $("#filters").origin;
  const known = $$("option", select).map((option) => option.value);
  for (const name of names) if (!known.includes(name)) select.append(make("option", { value: name }, name));
}
