// Talks to the API of the listener this page came from: requests, and the stream of events with
// its reconnecting. What an answer looks like on the page is decided elsewhere.

/** The API said no, in its own words. */
class Fault extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `the answer was ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function call(method, path, body) {
  let response;
  try {
    response = await fetch("/api/v1" + path, {
      method,
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body && JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    throw new Fault(0, { detail: "jailgate does not answer" });
  }
  // The session is over: the page asks for the token again.
  if (response.status === 401) location.reload();
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Fault(response.status, answer);
  return answer;
}

/** `?a=b` of what is set; an array gives its name several times. */
function query(fields) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of [value].flat()) if (one !== undefined && one !== null && one !== "") pairs.append(name, one);
  }
  const text = pairs.toString();
  return text && "?" + text;
}

/** Whether news arrive, in the corner and by a word. */
function showLink(state, text) {
  const link = $("#link");
  if (link.dataset.link === state) return;
  link.dataset.link = state;
  $("span", link).textContent = text;
  $("#lost").hidden = state !== "lost";
}

/** Follows the events for as long as the page is open. */
function listen(handlers) {
  let pause = 1000;
  const open = () => {
    const events = new EventSource("/api/v1/events");
    events.onopen = () => { pause = 1000; showLink("live", "Live"); };
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED) {
        // The browser gave up (an error was answered); we do not.
        showLink("lost", "Not connected");
        setTimeout(open, pause);
        pause = Math.min(pause * 2, 15000);
      } else {
        showLink("trying", "Reconnecting");
        setTimeout(() => { if (events.readyState === EventSource.CONNECTING) showLink("lost", "Not connected"); }, 5000);
      }
    };
    for (const [name, handle] of Object.entries(handlers)) {
      events.addEventListener(name, (event) => handle(event.data ? JSON.parse(event.data) : {}));
    }
  };
  open();
}
