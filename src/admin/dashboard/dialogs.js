// What changes something, each asked for once more in a dialog: unban, ban, allow, disallow,
// reload. Fields and words are here; what the table shows afterwards comes by events.

/** Opens a dialog; the keyboard returns by itself to where it was. */
function ask(dialog, focus) {
  $(".fault", dialog).textContent = "";
  dialog.showModal();
  focus?.focus();
}

/** Runs what a dialog is for; it stays open with the reason when that fails. */
async function settle(dialog, run) {
  const button = $("button.go", dialog);
  const fault = $(".fault", dialog);
  fault.textContent = "";
  button.disabled = true;
  try {
    await run();
    dialog.close();
    // What the keyboard stood on may be gone.
    if (document.activeElement === document.body) focusBan(bans.beside?.isConnected ? bans.beside : $("#bans tbody tr"), "unban");
  } catch (error) {
    fault.textContent = faultText(error);
    if (dialog.id === "ban") $("#ban-force").hidden = error.status !== 409;
  }
  button.disabled = false;
}

function faultText(error) {
  const problem = error.problem ?? {};
  const refused = (problem.refused ?? []).map((one) => `${one.client}: ${one.detail ?? one.why}`);
  return [error.message, ...refused, ...(problem.problems ?? [])].join("\n");
}

const subjects = (text) => text.split(/[\s,;]+/).filter(Boolean);

/** One question with one button. */
function confirmThen({ title, text, go, run }) {
  const dialog = $("#confirm");
  $("h2", dialog).textContent = title;
  $("p", dialog).textContent = text;
  const button = $("button.go", dialog);
  button.textContent = go;
  dialog.onsubmit = (event) => { event.preventDefault(); settle(dialog, run); };
  ask(dialog, button);
}

function askUnban(ban) {
  const ends = ban.until ? `It would end in ${left(ban.until)}.` : "It has no end.";
  confirmThen({
    title: `Unban ${ban.client}?`,
    text: `Banned in ${jailName(ban.jail)} by ${ban.origin}, reason: ${ban.reason}. ${ends} The client passes at once and is counted from zero.`,
    go: "Unban",
    run: async () => {
      const answer = await call("DELETE", "/bans" + query({ client: ban.client, jail: ban.jail }));
      const gone = bans.rows.get(banKey(ban));
      if (gone) applyBan("unban", ban);
      toast(answer.lifted.length ? `Unbanned ${ban.client}.` : `${ban.client} was not banned any more.`);
      readStatusSoon();
    },
  });
}

function askBan(client = "") {
  const dialog = $("#ban");
  const form = $("form", dialog);
  form.reset();
  $("#ban-force").hidden = true;
  form.clients.value = client;
  ask(dialog, form.clients);
}

async function ban() {
  const form = $("#ban form");
  const clients = subjects(form.clients.value);
  if (!clients.length) throw new Fault(422, { detail: "Write at least one address or network." });
  const body = { clients };
  if (form.for.value) body.for = form.for.value;
  if (form.jail.value) body.jail = form.jail.value;
  if (form.reason.value.trim()) body.reason = form.reason.value.trim();
  if (form.force.checked) body.force = true;
  const answer = await call("POST", "/bans", body);
  toast(`Banned ${answer.bans.map((ban) => ban.client).join(", ")}.`);
}

function askAllow(subject = "") {
  const dialog = $("#allow");
  const form = $("form", dialog);
  form.reset();
  form.subjects.value = subject;
  ask(dialog, form.subjects);
}

async function allow() {
  const form = $("#allow form");
  const wanted = subjects(form.subjects.value);
  if (!wanted.length) throw new Fault(422, { detail: "Write at least one address, network or name." });
  const body = { subjects: wanted, note: form.note.value.trim() };
  if (form.for.value) body.for = form.for.value;
  const answer = await call("POST", "/allow", body);
  toast(`Allowed ${answer.allowed.map((entry) => entry.subject).join(", ")}.`);
  readAllowed();
}

function askDisallow(entry) {
  confirmThen({
    title: `Remove ${entry.subject} from the allow list?`,
    text: "It is judged like everybody else again. Bans it has are in force again.",
    go: "Remove",
    run: async () => {
      await call("DELETE", "/allow" + query({ subject: entry.subject }));
      toast(`Removed ${entry.subject} from the allow list.`);
      readAllowed();
    },
  });
}

async function readAllowed() {
  let answer;
  try {
    answer = await call("GET", "/allow");
  } catch {
    return;
  }
  $("#allowed-empty").hidden = answer.allowed.length > 0;
  $("#allowed").hidden = answer.allowed.length === 0;
  $("#allowed tbody").replaceChildren(...answer.allowed.map((entry) => {
    const resolved = entry.addresses.filter((one) => one !== entry.subject).join(", ");
    const remove = make("button", { type: "button", class: "small acting", "aria-label": `Remove ${entry.subject}`, onclick: () => askDisallow(entry) }, "Remove");
    return make("tr", {},
      make("td", {}, make("span", { class: "address" }, entry.subject), make("span", { class: "proof" }, entry.error || resolved)),
      make("td", { class: "why" }, entry.note),
      make("td", { class: "when" }, left(entry.until)),
      make("td", { class: "acts" }, remove));
  }));
}

function askReload() {
  confirmThen({
    title: "Reload the configuration?",
    text: "The file is read again. If anything in it is wrong, the one in force stays.",
    go: "Reload",
    run: async () => {
      await call("POST", "/reload");
      toast("The configuration was reloaded.");
    },
  });
}
