// Why an address passes or is denied, step by step, in a panel at the side.

const explained = { client: "", url: "" };

async function explain(client, url = "") {
  client = client.replace(/\/\d+$/, ""); // a network is explained by its first address
  explained.client = client;
  explained.url = url;
  const dialog = $("#explanation");
  const told = $(".told", dialog);
  $("h2", dialog).textContent = client;
  told.replaceChildren(make("p", { class: "soft" }, "Asking…"));
  if (!dialog.open) dialog.showModal();
  let answer;
  try {
    answer = await call("GET", `/clients/${encodeURIComponent(client)}` + query({ url }));
  } catch (fault) {
    told.replaceChildren(make("p", { class: "summary", role: "alert" }, fault.message));
    return;
  }
  if (explained.client !== client) return;
  const past = await call("GET", "/history" + query({ client, limit: 10 })).catch(() => null);
  $("h2", dialog).textContent = answer.client;
  told.replaceChildren(...explanation(answer, past));
}

/** Reads the panel again, after what changed by it. */
function explainAgain() {
  if ($("#explanation").open) explain(explained.client, explained.url);
}

function explanation(answer, past) {
  return [
    make("p", { class: "summary state", "data-state": answer.verdict }, localized(answer.summary)),
    ...answer.jails.map(inJail),
    answer.allowed.length ? part("On the allow list", make("p", { class: "why" }, answer.allowed.map((entry) => `${entry.subject}, ${left(entry.until)}`).join("; "))) : null,
    answer.bans.length ? part("Bans", banTable(answer.bans)) : null,
    part("Recent counted requests", evidence(answer.evidence)),
    past?.bans?.length ? part("Earlier bans", pastTable(past.bans)) : null,
  ].filter(Boolean);
}

function part(title, ...content) {
  return make("section", { class: "part" }, make("h3", {}, title), ...content);
}

function inJail(jail) {
  const counts = jail.maxretry > 0;
  const bar = make("span");
  bar.style.width = `${Math.min(100, (100 * jail.count) / Math.max(1, jail.maxretry))}%`;
  return part(`Jail ${jail.jail}`,
    make("p", {},
      make("span", { class: "state", "data-state": jail.verdict }, jail.verdict === "deny" ? "denied" : "passes"),
      jail.reason ? ` (${jail.reason})` : "", jail.simulated ? ", only simulated" : "",
      jail.until ? `, ends in ${left(jail.until)}` : ""),
    make("p", { class: "soft" }, `Counted as ${jail.countedAs}, found by ${jail.addressFrom}` + (counts ? `: ${jail.count} of ${jail.maxretry}` : "")),
    counts ? make("div", { class: "bar-line", "aria-hidden": "true" }, bar) : null,
    make("ol", { class: "steps" }, ...jail.steps.map((step) => make("li", step.decides ? { class: "decides" } : {}, localized(step.text)))),
    make("p", {}, "Next request: ", localized(jail.next)));
}

/** Columns in `wide` may break their lines. */
function table(caption, heads, wide, rows) {
  const scroll = { class: "scroll", tabindex: 0, role: "region", "aria-label": caption };
  const tableCell = (cell, at) => make("td", wide.includes(at) ? { class: "why" } : {}, cell);
  return make("div", scroll, make("table", {}, make("caption", { class: "unseen" }, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map(tableCell))))));
}

function banTable(list) {
  return table("Active bans of this address", ["Client", "Jail", "Origin", "Reason", "Ends in"], [3],
    list.map((ban) => [ban.client, jailName(ban.jail), ban.origin, [ban.reason, proof(ban)].filter(Boolean).join("; "), left(ban.until)]));
}

function pastTable(list) {
  return table("Bans that ended", ["Began", "Jail", "Reason", "Ended"], [2],
    list.map((ban) => [moment(ban.since), jailName(ban.jail), ban.reason, make("span", {}, moment(ban.ended), ` ${ban.lift}`)]));
}

function evidence(list) {
  if (!list.length) return make("p", { class: "soft" }, "None is known.");
  const rows = [...list].reverse().slice(0, 50).map((one) => [
    moment(one.at), one.jail, one.status ? String(one.status) : "counted", `${one.method} ${one.host}${one.path}`, one.agent,
  ]);
  return table("Counted requests, newest first", ["When", "Jail", "Status", "Request", "Agent"], [3, 4], rows);
}
