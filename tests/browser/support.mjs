// What the browser scripts share: a Chromium that notes everything a page must not do, clients of
// the gate, and the API. `tests/it/dashboard.rs` starts jailgate and says where things are.

import http from "node:http";
import { createRequire } from "node:module";

// Installed by tests/tools.sh, outside the sources.
const require = createRequire(process.env.BROWSER_TOOLS + "/");
const { chromium } = require("playwright-core");
const { source: axe } = require("axe-core");

export const { ADMIN, GATE, TOKEN, READ_TOKEN, LOG } = process.env;

export function assert(truth, words) {
  if (!truth) throw new Error(words);
}

export function equal(found, expected, words) {
  const [one, other] = [found, expected].map((value) => JSON.stringify(value));
  assert(one === other, `${words}: ${one}, expected ${other}`);
}

/** Asks until it is true, every 20 ms. */
export async function until(words, most, question) {
  const end = Date.now() + most;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${most} ms: ${words}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** One request through the gate by a client of this address; answers the status. */
export function visit(client, path, agent = "Mozilla/5.0") {
  const { hostname, port } = new URL(GATE);
  return new Promise((done, failed) => {
    const headers = { "X-Forwarded-For": client, "User-Agent": agent, Host: "app.example.com" };
    const request = http.get({ hostname, port, path, headers, agent: false }, (answer) => {
      answer.resume();
      answer.on("end", () => done(answer.statusCode));
    });
    request.on("error", failed);
  });
}

export async function attack(client, path = "/status/404", agent) {
  for (let i = 0; i < 4; i++) await visit(client, path, agent);
}

export async function api(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if (TOKEN) headers.Authorization = `Bearer ${TOKEN}`;
  const answer = await fetch(`${ADMIN}/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

let browser;

/** A page in a context of its own. What it must not do is kept in `faults`. */
export async function open(path = "/", options = {}, prepare = async () => {}) {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: process.getuid() === 0 ? ["--no-sandbox"] : [],
  });
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(15000);
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { page.faults.push(`dialog: ${dialog.message()}`); dialog.dismiss().catch(() => {}); });
  page.on("popup", () => page.faults.push("a window was opened"));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.origin !== ADMIN && url.protocol !== "data:") page.faults.push(`asked elsewhere: ${url.href}`);
  });
  page.on("console", (message) => {
    const text = message.text();
    if (/content security policy|trusted/i.test(text)) page.faults.push(`policy: ${text}`);
  });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  await prepare(page);
  page.answer = await page.goto(ADMIN + path);
  return page;
}

/** Opened, and news arrive. */
export async function live(path, options) {
  const page = await open(path, options);
  await page.waitForSelector("#link[data-link=live]");
  return page;
}

export async function clean(page, where) {
  const violations = await page.evaluate(() => window.violations ?? []);
  equal([...page.faults, ...violations], [], where);
}

/** Serious and critical findings of axe. */
export async function audit(page, where) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const told = found.violations.map((one) => `${one.impact}: ${one.id} at ${one.nodes.map((node) => node.target.join(" ")).slice(0, 4).join(", ")}`);
  const grave = told.filter((one) => /^(serious|critical)/.test(one));
  console.log(`axe, ${where}: ${found.passes.length} rules hold, ${told.length} do not${told.length ? `\n  ${told.join("\n  ")}` : ""}`);
  equal(grave, [], `axe, ${where}`);
}

export const row = (page, client) => page.locator(`#bans tbody tr[data-client="${client}"]`);

export const close = () => browser?.close();
