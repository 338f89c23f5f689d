// What an EventSource makes of a stream: node eventsource.mjs URL KEY
// Prints one JSON object when the server has told it to stay away.
import { EventSource } from "eventsource";

const [url, key] = process.argv.slice(2);
// The package waits for its next connection on a timer that does not keep Node running.
const awake = setInterval(() => {}, 1000);
const resumedAfter = [];
const events = [];
const source = new EventSource(url, {
  fetch: (input, init) => {
    resumedAfter.push(init.headers["Last-Event-ID"] ?? null);
    const headers = { ...init.headers, Authorization: `Bearer ${key}` };
    return fetch(input, { ...init, headers });
  },
});
for (const name of ["message", "opened", "chunk", "epoch", "closed"]) {
  source.addEventListener(name, (event) => {
    events.push({ id: event.lastEventId, event: name, data: event.data });
  });
}
source.addEventListener("error", (error) => {
  if (source.readyState === EventSource.CLOSED) {
    clearInterval(awake);
    console.log(JSON.stringify({ events, resumedAfter, stoppedBy: error.code }));
  }
});
