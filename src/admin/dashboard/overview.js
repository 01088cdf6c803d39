// Figures, the timeline, the most frequent, the jobs: what is read again every few seconds.

const PANELS = [
  ["denied", "Requests denied"],
  ["failures", "Failures counted"],
  ["bans", "Bans begun"],
];
const overview = { minutes: 60, stats: null, access: "full" };

async function readStatus() {
  let status;
  try {
    status = await call("GET", "/status");
  } catch {
    return;
  }
  skew = Date.parse(status.now) - Date.now();
  overview.access = status.access;
  document.documentElement.classList.toggle("read-only", status.access === "read");
  bans.total = status.bans;
  countBans();
  $("#figure-clients").textContent = number(status.trackedClients);
  $("#figure-evicted").textContent = `${plural(status.evictedClients + status.evictedBans, "eviction")}`;
  $("#uptime").textContent = `up ${length(status.uptimeSeconds)}`;
  showReload(status.reload);
  showJobs(status.jobs);
}

function showReload(reload) {
  const notice = $("#reload");
  notice.hidden = !reload || reload.ok;
  $("span", notice).textContent = reload?.message ?? "";
}

function showJobs(jobs) {
  $("#jobs-empty").hidden = jobs.length > 0;
  $("#jobs").replaceChildren(...jobs.map((job) => {
    const failing = job.state === "failing";
    const lag = job.lagSeconds >= 0.05 ? `lag ${job.lagSeconds < 10 ? job.lagSeconds.toFixed(1) + " s" : length(job.lagSeconds)}` : "no lag";
    const since = job.since ? `since ${ago(job.since).replace(" ago", "")}` : "";
    const said = [job.detail, lag, since && `${job.state} ${since}`, failing && job.lastOk && `last success ${ago(job.lastOk)}`];
    const error = job.lastError && `${failing ? "" : "last error "}${ago(job.lastError.at)}: ${job.lastError.message}`;
    return make("li", {},
      make("span", { class: "name" }, job.name),
      make("span", { class: "state", "data-state": job.state }, job.state),
      make("span", { class: "said" }, said.filter(Boolean).join(" · ")),
      error ? make("span", { class: failing ? "fault" : "said" }, error) : null);
  }));
}

/** One job changed: the others stand as they were. */
const readStatusSoon = seldom(300, readStatus);

async function readStats() {
  try {
    overview.stats = await call("GET", "/stats" + query({ minutes: overview.minutes, top: 8 }));
  } catch (fault) {
    $("#chart-at").textContent = `The statistics could not be read: ${fault.message}.`;
    return;
  }
  const { buckets, bucketSeconds } = overview.stats;
  const sum = (name) => buckets.reduce((total, bucket) => total + bucket[name], 0);
  const span = overview.minutes === 60 ? "in the last hour" : `in ${overview.minutes / 60} hours`;
  for (const name of ["requests", "denied", "failures"]) $(`#figure-${name}`).textContent = number(sum(name));
  for (const note of $$(".span")) note.textContent = span;
  $("#figure-begun").textContent = `${number(sum("bans"))} begun ${span}`;
  drawChart();
  listBuckets(buckets, bucketSeconds);
  for (const name of ["clients", "networks", "paths", "reasons"]) listTop(name, overview.stats[name]);
  offerOrigins(overview.stats.origins.map((origin) => origin.name));
}

/** At most so many bars as can be told apart, each the sum of its buckets. */
function folded(buckets, most) {
  const by = Math.ceil(buckets.length / most) || 1;
  const bars = [];
  for (let i = 0; i < buckets.length; i += by) {
    const part = buckets.slice(i, i + by);
    const bar = { at: part[0].at, last: part[part.length - 1].at };
    for (const [name] of PANELS) bar[name] = part.reduce((total, bucket) => total + bucket[name], 0);
    bars.push(bar);
  }
  return bars;
}

const clockOf = (at) => new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

function drawChart() {
  if (!overview.stats) return;
  const figure = $("#chart");
  const width = Math.max(280, figure.clientWidth || 800);
  const [top, panel, gap] = [20, 44, 30];
  const height = PANELS.length * (panel + gap) + 14;
  const bars = folded(overview.stats.buckets, Math.max(30, Math.floor(width / 9)));
  const step = width / Math.max(1, bars.length);
  const total = (name) => bars.reduce((sum, bar) => sum + bar[name], 0);
  const words = PANELS.map(([name, title]) => `${title}: ${number(total(name))}`).join(", ");
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Timeline. ${words}. The table below has every figure.` });
  PANELS.forEach(([name, title], index) => {
    const base = top + panel + index * (panel + gap);
    const most = Math.max(...bars.map((bar) => bar[name]), 0);
    const scale = most ? (panel - 4) / most : 0;
    const path = bars.map((bar, i) => {
      const tall = bar[name] ? Math.max(1.5, bar[name] * scale) : 0;
      const wide = Math.max(1, step - Math.min(2, step / 4));
      return tall ? `M${(i * step).toFixed(1)} ${base}v${(-tall).toFixed(1)}h${wide.toFixed(1)}v${tall.toFixed(1)}z` : "";
    }).join("");
    svg.append(
      make("text", { class: "title", x: 0, y: base - panel - 4 }, title),
      make("text", { x: width, y: base - panel - 4, "text-anchor": "end" }, most ? `peak ${number(most)}` : "none"),
      make("line", { class: "axis", x1: 0, x2: width, y1: base + .5, y2: base + .5 }),
      make("path", { class: name, d: path }),
    );
  });
  const marks = Math.max(2, Math.min(7, Math.floor(width / 110)));
  for (let i = 0; i < marks && bars.length; i++) {
    const at = Math.round((i * (bars.length - 1)) / (marks - 1));
    const anchor = i === 0 ? "start" : i === marks - 1 ? "end" : "middle";
    const x = i === 0 ? 0 : i === marks - 1 ? width : (at + .5) * step;
    svg.append(make("text", { x, y: height - 6, "text-anchor": anchor }, clockOf(bars[at].at)));
  }
  const cursor = make("line", { class: "cursor", y1: 0, y2: height - 22, visibility: "hidden" });
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const bar = bars[Math.min(bars.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * bars.length)))];
    if (!bar) return;
    const x = (bars.indexOf(bar) + .5) * step;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    $("#chart-at").textContent = `${clockOf(bar.at)}: ` + PANELS.map(([name, title]) => `${title.toLowerCase()} ${number(bar[name])}`).join(", ");
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    $("#chart-at").textContent = "";
  });
  figure.replaceChildren(svg);
}

/** The same in words: newest first, minutes in which nothing happened left out. */
function listBuckets(buckets) {
  const rows = buckets.filter((bucket) => bucket.requests || bucket.denied || bucket.failures || bucket.bans).reverse();
  $("#buckets tbody").replaceChildren(...rows.slice(0, 500).map((bucket) => make("tr", {},
    make("td", {}, moment(bucket.at)),
    ...["requests", "denied", "failures", "bans"].map((name) => make("td", { class: "num" }, number(bucket[name]))))));
  $("#buckets-empty").hidden = rows.length > 0;
  $("#buckets").hidden = rows.length === 0;
}

function listTop(name, entries) {
  const list = $(`#top-${name}`);
  const most = Math.max(...entries.map((entry) => entry.count), 1);
  const link = ["clients", "networks"].includes(name);
  list.replaceChildren(...entries.map((entry) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${(100 * entry.count) / most}%`;
    const text = link && name === "clients" ? address(entry.name) : entry.name;
    return make("li", {}, bar, make("span", { class: "name", title: entry.name }, text), make("span", {}, number(entry.count)));
  }));
  if (!entries.length) list.append(make("li", { class: "soft" }, "nothing yet"));
}
