// The dashboard in a real Chromium, one scenario a run: what an operator sees and does.

import fs from "node:fs";
import { ADMIN, LOG, READ_TOKEN, TOKEN, api, assert, attack, audit, clean, close, equal, live, open, row, until, visit } from "./support.mjs";
import { CORPUS } from "./corpus.mjs";

/** A ban made by traffic, and everything that can be done about it. */
async function acts() {
  const page = await live("/");
  let client;
  const took = [];
  // The best of three: the machine may be busy.
  for (client of ["203.0.113.7", "203.0.113.8", "203.0.113.9"]) {
    await attack(client);
    const banned = Date.now();
    await row(page, client).waitFor();
    took.push(Date.now() - banned);
  }
  console.log(`a ban is shown after ${took.join(", ")} ms`);
  assert(Math.min(...took) <= 1000, `bans were shown after ${took.join(", ")} ms`);
  const words = await row(page, client).innerText();
  for (const word of ["failures", "4 counted requests, status 404, last path /status/404", "web", "jailgate"]) assert(words.includes(word), `${word} in ${words}`);
  equal(await visit(client, "/"), 403, "it is denied");

  await row(page, client).locator("a").click();
  await page.locator("#explanation .summary", { hasText: "Denied" }).waitFor();
  await page.locator("#explanation .steps .decides").first().waitFor();
  await page.locator("#explanation td", { hasText: "/status/404" }).first().waitFor();
  await page.keyboard.press("Escape");

  await row(page, client).getByRole("button", { name: "Unban" }).click();
  await page.locator("#confirm h2", { hasText: `Unban ${client}?` }).waitFor();
  await page.locator("#confirm").getByRole("button", { name: "Cancel" }).click();
  equal(await visit(client, "/"), 403, "it is still denied after Cancel");
  await row(page, client).getByRole("button", { name: "Unban" }).click();
  await page.locator("#confirm").getByRole("button", { name: "Unban" }).click();
  await row(page, client).waitFor({ state: "detached" });
  equal(await visit(client, "/"), 200, "it passes after Unban");

  const other = "198.51.100.7";
  await page.locator("#filters").getByRole("button", { name: "Ban…" }).click();
  await page.getByLabel("Addresses and networks").fill("127.0.0.1");
  await page.locator("#ban .go").click();
  await page.locator("#ban .fault", { hasText: "127.0.0.1" }).waitFor();
  await page.getByLabel("Addresses and networks").fill(other);
  await page.getByLabel("For how long").first().selectOption("1h");
  await page.getByLabel("Reason (for people)").fill("asked too much");
  await page.locator("#ban .go").click();
  await row(page, other).filter({ hasText: "asked too much" }).waitFor();
  equal(await visit(other, "/"), 403, "banned by form");

  await row(page, other).getByRole("button", { name: "Allow" }).click();
  await page.locator("#allow .go").click();
  const entry = page.locator("#allowed tbody tr", { hasText: other });
  await entry.waitFor();
  equal(await visit(other, "/"), 200, "allowed by form");
  await entry.getByRole("button", { name: "Remove" }).click();
  await page.locator("#confirm .go").click();
  await entry.waitFor({ state: "detached" });
  equal(await visit(other, "/"), 403, "no longer allowed");

  await attack("203.0.113.10");
  await row(page, "203.0.113.10").waitFor();
  await page.locator("#search").fill("asked too");
  await row(page, "203.0.113.10").waitFor({ state: "detached" });
  await row(page, other).waitFor();
  await page.locator("#search").fill("");
  await row(page, "203.0.113.10").waitFor();
  await clean(page, "acting");
}

/** Unbans without a mouse; the keyboard is never lost. */
async function keyboard() {
  await attack("203.0.113.20");
  await attack("203.0.113.21");
  const page = await live("/");
  await row(page, "203.0.113.20").waitFor();
  const at = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent);
  await page.keyboard.press("Tab");
  equal(await at(), "Skip to the bans", "first stop");
  await page.keyboard.press("Enter");
  for (let stops = 0; (await at()) !== "Unban 203.0.113.20"; stops++) {
    assert(stops < 40, "Unban is not reached by Tab");
    await page.keyboard.press("Tab");
  }
  const seen = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert(seen !== "none", "the focus is visible");
  await page.keyboard.press("Enter");
  await page.locator("#confirm[open]").waitFor();
  await page.keyboard.press("Escape");
  equal(await at(), "Unban 203.0.113.20", "Escape leads back");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  await row(page, "203.0.113.20").waitFor({ state: "detached" });
  equal(await visit("203.0.113.20", "/"), 200, "unbanned by keyboard");
  assert(/^Unban 203/.test(await at()), `focus is on the next row, not on ${await at()}`);
  await until("it is said aloud", 5000, () => page.locator("#spoken").innerText().then((said) => said.includes("203.0.113.20")));
  await clean(page, "keyboard");
}

/** Says that it lost touch, and finds back by itself. */
async function reconnects() {
  const page = await open("/", {}, (page) => page.route("**/api/v1/events", (route) => route.abort()));
  await page.locator("#link", { hasText: /Reconnecting|Not connected/ }).waitFor();
  await page.locator("#lost").waitFor();
  await page.unroute("**/api/v1/events");
  await page.waitForSelector("#link[data-link=live]", { timeout: 20000 });
  equal(await page.locator("#lost").isVisible(), false, "the warning goes");
}

/** Stored in paths, agents, reasons and notes, reflected from the address: nothing of it runs. */
async function inert() {
  const clients = [];
  for (const [number, text] of CORPUS.entries()) {
    const client = `203.0.113.${number + 1}`;
    clients.push(client);
    const path = "/status/404/" + encodeURI(text).replace(/[?#]/g, encodeURIComponent);
    await attack(client, path, text.replace(/[^\x20-\x7e]/g, "·"));
    const reason = { clients: [`198.51.100.${number + 1}`], reason: text };
    await api("POST", "/bans", reason);
    await api("POST", "/allow", { subjects: [`192.0.2.${number + 1}`], note: text });
    // Logs of other servers tell paths and agents as they please.
    const line = { ClientHost: `203.0.113.${number + 101}`, RequestMethod: "GET", RequestHost: text, RequestPath: "/" + text, DownstreamStatus: 404, "request_User-Agent": text };
    for (let i = 0; i < 4; i++) fs.appendFileSync(LOG, JSON.stringify({ ...line, StartUTC: new Date().toISOString() }) + "\n");
  }
  const total = CORPUS.length * 3;
  await until("all are banned", 10000, async () => (await api("GET", "/status")).bans >= total);
  for (const javaScriptEnabled of [true, false]) {
    const options = { javaScriptEnabled };
    const page = javaScriptEnabled ? await live("/", options) : await open("/", options);
    if (javaScriptEnabled) {
      await until("every row", 20000, async () => {
        // The button goes away with the last page, which may be on its way.
        if (await page.locator("#more:enabled").isVisible()) await page.locator("#more").click({ timeout: 500 }).catch(() => {});
        return (await page.locator("#bans tbody tr").count()) === total;
      });
      const text = await page.locator("body").innerText();
      for (const one of CORPUS) assert(text.includes(one.replace(/\s+/g, " ").trim()), `shown as it is: ${one}`);
      for (const client of [...clients, "203.0.113.101", "203.0.113.105"]) {
        await page.locator("#ask-client").fill(client);
        await page.locator("#ask").getByRole("button").click();
        await page.locator("#explanation h2", { hasText: client }).waitFor();
        await page.locator("#explanation .summary", { hasText: "Denied" }).waitFor();
        await page.keyboard.press("Escape");
      }
    }
    await pure(page, `stored, JavaScript ${javaScriptEnabled}`);
    for (const text of CORPUS) {
      const inAddress = encodeURIComponent(text);
      await page.goto(`${ADMIN}/?text=${inAddress}&jail=${inAddress}&origin=${inAddress}&explain=${inAddress}&url=${inAddress}#${inAddress}`);
      await pure(page, `reflected, JavaScript ${javaScriptEnabled}: ${text}`);
    }
    await page.context().close();
  }
  console.log(`${CORPUS.length} texts, stored in ${total} bans and reflected: nothing ran`);
}

/** Nothing ran, nothing was asked elsewhere, nothing became an element, a handler or a link. */
async function pure(page, where) {
  await clean(page, where);
  const found = await page.evaluate(() => {
    const found = [];
    const own = "html head meta title link style script body a header h1 h2 h3 span nav div button form main p section dl dt dd ul ol li label select option figure details summary table caption thead tbody tr th td template footer code pre dialog input strong i time circle path svg line text".split(" ");
    for (const root of [document, ...[...document.querySelectorAll("template")].map((one) => one.content)]) {
      for (const element of root.querySelectorAll("*")) {
        if (!own.includes(element.localName)) found.push(`<${element.localName}>`);
        for (const { name, value } of element.attributes) {
          if (/^on|^srcdoc|^style$/.test(name) && !(name === "style" && /^width: [\d.]+%;$/.test(value))) found.push(`${name}="${value}"`);
          if (/^(href|src|action|formaction|xlink:href)$/.test(name) && !/^(\/|#|data:image\/svg)/.test(value)) found.push(`${name}="${value}"`);
        }
      }
    }
    if (document.scripts.length !== 1) found.push("scripts");
    return found;
  });
  equal(found, [], where);
}

/** What axe says of the page in both schemes, on a phone, in dialogs, and of the login. */
async function accessible() {
  const login = await open("/");
  equal(login.answer.status(), 401, "without a session");
  await audit(login, "login");
  await login.getByLabel(/token/i).fill("wrong");
  await login.getByRole("button").click();
  await login.getByRole("alert").filter({ hasText: /not the token/ }).waitFor();
  await audit(login, "login refused");
  equal(await login.locator("form").evaluate((form) => getComputedStyle(form).display), "grid", "its style");
  await clean(login, "login");
  await login.getByLabel(/token/i).fill(TOKEN);
  await login.getByRole("button").click();
  await login.waitForSelector("#link[data-link=live]");
  const [cookie] = await login.context().cookies();
  equal([cookie.httpOnly, cookie.sameSite], [true, "Strict"], "the session's cookie");
  const storageState = await login.context().storageState();
  await attack("203.0.113.30");
  await api("POST", "/bans", { clients: ["198.51.100.0/24", "2001:db8:1::/64"], reason: "a reason" });
  await api("POST", "/allow", { subjects: ["192.0.2.5"], note: "a note" });
  const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
  for (const [where, options] of [["light", { colorScheme: "light" }], ["dark", { colorScheme: "dark" }], ["phone", { ...phone, colorScheme: "light" }], ["phone, dark", { ...phone, colorScheme: "dark" }]]) {
    const page = await live("/", { storageState, ...options });
    await row(page, "203.0.113.30").waitFor();
    await page.locator("#top-clients a").first().waitFor();
    await audit(page, where);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert(wide <= 0, `${where}: ${wide} px wider than the window`);
    await row(page, "203.0.113.30").locator("a").click();
    await page.locator("#explanation .steps").first().waitFor();
    await audit(page, `${where}, explanation`);
    await page.keyboard.press("Escape");
    await page.locator("#filters").getByRole("button", { name: "Ban…" }).click();
    await audit(page, `${where}, ban`);
    await clean(page, where);
    await page.context().close();
  }
  const page = await live("/", { storageState, colorScheme: "light" });
  await page.getByRole("button", { name: /light and dark/ }).click();
  await page.reload();
  equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark", "the theme is remembered");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel(/token/i).waitFor();
  equal((await page.goto(ADMIN + "/")).status(), 401, "after logging out");
}

/** Who came with the token that may only read sees everything and is offered nothing else. */
async function looks() {
  const client = "203.0.113.50";
  await attack(client);
  const page = await open("/");
  await page.getByLabel(/token/i).fill(READ_TOKEN);
  await page.getByRole("button").click();
  await page.waitForSelector("#link[data-link=live]");
  await page.waitForSelector("html.read-only");
  await row(page, client).locator("a").click();
  await page.locator("#explanation .steps .decides").first().waitFor();
  await page.keyboard.press("Escape");
  for (const name of ["Unban", "Allow", "Ban…", "Reload"]) equal(await page.getByRole("button", { name }).filter({ visible: true }).count(), 0, `${name} is offered`);
  const answer = await page.evaluate((client) => fetch(`/api/v1/bans?client=${client}`, { method: "DELETE" }).then((answer) => answer.status), client);
  equal(answer, 403, "asked all the same");
  equal(await visit(client, "/"), 403, "it is denied as before");
  await clean(page, "looks");
}

/** Everything there is to read is read without JavaScript. */
async function reads() {
  await attack("203.0.113.40", "/status/404");
  await attack("203.0.113.41", "/status/403");
  const page = await open("/", { javaScriptEnabled: false });
  const text = await page.locator("main").innerText();
  for (const word of ["203.0.113.40", "4 counted requests, status 404, last path /status/404", "web", "jailgate", "Configuration in force", "4 times 400-499 in 10m"]) assert(text.includes(word), `${word} is on the page`);
  assert(!/Unban…/.test(text), "no button that would do nothing");
  await page.locator("#search").fill("203.0.113.41");
  await page.getByRole("button", { name: "Filter" }).click();
  equal(await page.locator("#bans tbody tr").count(), 1, "filtered by the form");
  await page.locator("#bans tbody a").click();
  await page.locator(".told .steps .decides").first().waitFor();
  await page.locator(".summary", { hasText: "denied" }).waitFor();
  const headers = page.answer.headers();
  equal([headers["x-content-type-options"], headers["referrer-policy"]], ["nosniff", "no-referrer"], "headers");
  for (const part of ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]) assert(headers["content-security-policy"].includes(part), part);
  assert(!headers["content-security-policy"].includes("unsafe"), "nothing unsafe");
}

/** A hundred thousand bans, and a thousand more while somebody works. */
async function many() {
  const address = (number) => `10.${100 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`;
  const ban = (from, count) => api("POST", "/bans", { clients: Array.from({ length: count }, (_, i) => address(from + i)), for: "1day" });
  for (let i = 0; i < 100; i++) await ban(i * 1000, 1000);
  const page = await live("/");
  const begun = Date.now();
  await page.reload();
  await page.waitForSelector("#link[data-link=live]");
  await row(page, address(99999)).waitFor();
  console.log(`100,000 bans: the page is there after ${Date.now() - begun} ms`);
  await page.locator("#bans-count", { hasText: "100,000" }).waitFor();
  await page.evaluate(() => {
    window.longest = 0;
    new PerformanceObserver((list) => { for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration); }).observe({ entryTypes: ["longtask"] });
  });
  const storm = (async () => { for (let i = 200; i < 202; i++) await ban(i * 500, 500); })();
  const typed = Date.now();
  await page.locator("#search").fill(address(1023));
  await until("only that one", 3000, async () => (await page.locator("#bans tbody tr").count()) === 1 && (await row(page, address(1023)).count()) === 1);
  console.log(`found among them after ${Date.now() - typed} ms`);
  await storm;
  await page.locator("#search").fill("");
  for (let i = 0; i < 10; i++) {
    await page.locator("#more").click();
    await until("another page", 3000, async () => (await page.locator("#bans tbody tr").count()) >= 100 + 50 * i);
  }
  await page.locator("#bans-count", { hasText: "101,000" }).waitFor();
  const longest = await page.evaluate(() => window.longest);
  console.log(`the page stood still for ${Math.round(longest)} ms at most`);
  assert(longest < 500, `the page stood still for ${longest} ms`);
  await clean(page, "many");
}

/** Pictures for the documents, of what made-up attackers did. */
async function pictures() {
  // A timeline of one minute says little; the rest of it takes its time.
  for (let minute = 0; minute < Number(process.env.JAILGATE_SCREENSHOT_MINUTES ?? 0); minute++) {
    for (let n = 0; n < 20 + 15 * Math.sin(minute / 2); n++) await visit(`192.0.2.${n}`, `/status/${n % 9 ? 200 : 404}`);
    if (minute % 3 === 1) for (let n = 0; n < 2 + (minute % 4); n++) for (let i = 0; i < 7; i++) await visit(`203.0.113.${200 + minute + n}`, "/status/404/wp-admin");
    await new Promise((done) => setTimeout(done, 60000));
  }
  const paths = ["/status/404/wp-login.php", "/status/404/.env", "/status/403/admin", "/status/401/login", "/status/404/xmlrpc.php", "/status/404/.git/config"];
  for (let i = 1; i < 24; i++) {
    const client = i % 6 ? `203.0.113.${i * 7}` : `2001:db8:${i}::1`;
    for (let n = 0; n < 4 + (i % 5); n++) await visit(client, paths[i % paths.length], "Mozilla/5.0 zgrab/0.x");
    for (let n = 0; n < 3; n++) await visit(`192.0.2.${i}`, "/status/200");
    if (i % 4 === 0) await visit(`198.51.100.${i}`, paths[1]);
  }
  await api("POST", "/bans", { clients: ["198.51.100.0/24"], reason: "scans from this network", for: "1day" });
  await api("POST", "/bans", { clients: ["192.0.2.250"], reason: "asked by Anna", for: "forever" });
  await api("POST", "/allow", { subjects: ["192.0.2.10"], note: "office" });
  const shot = async (name, options, before = async () => {}) => {
    const page = await live("/", options);
    await page.locator("#top-clients a").first().waitFor();
    await before(page);
    await page.screenshot({ path: `${process.env.JAILGATE_SCREENSHOTS}/${name}.png` });
    await page.context().close();
  };
  const viewport = { width: 1280, height: 960 };
  await shot("dashboard-light", { viewport, colorScheme: "light" });
  await shot("dashboard-dark", { viewport, colorScheme: "dark" });
  await shot("dashboard-phone", { viewport: { width: 390, height: 844 }, colorScheme: "light" });
  await shot("dashboard-explain", { viewport: { width: 1280, height: 760 }, colorScheme: "light" }, async (page) => {
    await page.locator("#bans tbody a", { hasText: "203.0.113." }).first().click();
    await page.locator("#explanation .steps").first().waitFor();
  });
}

const scenarios = { acts, keyboard, reconnects, inert, accessible, looks, reads, many, pictures };
try {
  for (const name of process.argv.slice(2)) await scenarios[name]();
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
await close();
