/** What happens to an answer when its browser sleeps, is offline, or reaches nothing for long. */

import assert from "node:assert/strict";
import { after, before, mock, test } from "node:test";
import { Sluice, SluiceError } from "sluice-client";
import { client, ended, HELLO, hostile, report, type Served, until } from "./servers.js";

/** The part of a browser that the client listens to. */
const browser = Object.assign(new EventTarget(), { onLine: true, visibilityState: "visible" });
Object.defineProperty(globalThis, "navigator", { value: browser, configurable: true });
Object.defineProperty(globalThis, "document", { value: browser });
globalThis.addEventListener = browser.addEventListener.bind(browser);
globalThis.removeEventListener = browser.removeEventListener.bind(browser);

let server: Served;
before(async () => {
  server = await hostile();
  Math.random = () => 0.99; // the longest waits
});
after(() => server.stop());

function face(scenario: string): string {
  return `${server.url}/${encodeURIComponent(`${scenario},as=surroundings`)}`;
}

test("offline waits for online", async () => {
  const answer = client(face("cut=400,refuse")).start(HELLO);
  await until(answer, () => answer.state.is === "live");
  browser.onLine = false;
  await until(answer, () => answer.state.is === "offline");
  browser.onLine = true;
  browser.dispatchEvent(new Event("online"));
  await ended(answer, 20_000);
  assert.equal(answer.text, (await report(face("cut=400,refuse"))).text);
});

test("a browser that goes offline tries once, for this machine may be what it calls", async () => {
  const answer = client(face("pace=100")).start(HELLO);
  await until(answer, () => answer.text !== "");
  browser.onLine = false;
  browser.dispatchEvent(new Event("offline"));
  assert.equal((await ended(answer)).status, "completed");
  browser.onLine = true;
  const { requests, text } = await report(face("pace=100"));
  assert.equal(answer.text, text);
  assert.deepEqual(
    requests.map(({ route }) => route),
    ["start", "events"],
  );
});

test("a tab that is shown again does not wait on", async () => {
  const answer = client(face("refuse;on=any;times=3")).start(HELLO);
  await until(answer, () => answer.state.is === "reconnecting" && answer.state.attempt === 3);
  const { state } = answer;
  assert(state.is === "reconnecting");
  browser.visibilityState = "hidden";
  browser.dispatchEvent(new Event("visibilitychange"));
  assert.equal(answer.state, state);
  browser.visibilityState = "visible";
  browser.dispatchEvent(new Event("visibilitychange"));
  await ended(answer);
  assert(Date.now() < state.at, "it waited to the end");
});

test("what has not begun can be cancelled, and never begins", async () => {
  const url = face("status=429;retry-after=600");
  const answer = client(url).start(HELLO);
  await until(answer, () => answer.state.is === "limited");
  await answer.cancel();
  assert.equal((await ended(answer)).status, "cancelled");
  assert.equal(answer.state.is, "closed");
  assert.equal((await report(url)).streams_begun, 0);
});

test("what is limited goes on at once where that is wanted", async () => {
  const answer = client(face("status=429;retry-after=601")).start(HELLO);
  await until(answer, () => answer.state.is === "limited");
  answer.retry();
  assert.equal((await ended(answer)).status, "completed");
});

test("a page that is not in a secure context has no UUIDs, and asks all the same", async () => {
  const { randomUUID } = crypto;
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
  try {
    const answer = client(face("pace=0")).start(HELLO);
    assert.equal((await ended(answer)).status, "completed");
  } finally {
    Object.defineProperty(crypto, "randomUUID", { value: randomUUID, configurable: true });
  }
});

test("whoever wants another try twice gets one", async () => {
  const url = face("status=401;times=1");
  const answer = client(url).start(HELLO);
  await assert.rejects(ended(answer));
  answer.retry();
  answer.retry();
  assert.equal((await ended(answer)).status, "completed");
  assert.equal((await report(url)).requests.length, 2);
});

/** Time that goes only when it is told to. */
const clock = mock.timers as unknown as {
  enable(options: { apis: string[] }): void;
  tick(ms: number): void;
  reset(): void;
};

test("an end that is asked for and never told is asked for again", async () => {
  const paths: string[] = [];
  const summary = { status: "completed", finish_reason: "stop", usage: null, error: null };
  const silentOnce: typeof fetch = async (input) => {
    paths.push(new URL(String(input)).pathname);
    if (paths.at(-1)?.endsWith("/events")) return new Response(null, { status: 204 });
    const last = paths.filter((path) => path === paths.at(-1)).length > 1;
    return last ? Response.json({ ...summary, last_seq: 9 }) : new Promise(() => {});
  };
  clock.enable({ apis: ["setTimeout", "Date"] });
  const sluice = new Sluice({ url: "http://silent", credential: "demo", fetch: silentOnce });
  const answer = sluice.follow("x", { after: 9 });
  const began = Date.now();
  while (answer.state.is !== "closed" && Date.now() - began < 120_000) {
    await new Promise((resolve) => setImmediate(resolve));
    clock.tick(500);
  }
  clock.reset();
  answer.leave();
  assert.equal(answer.state.is, "closed", paths.join());
});

test("two minutes without a connection are enough; then it is tried when that is wanted", async () => {
  const keys: (string | null)[] = [];
  let reachable = false;
  const sometimes: typeof fetch = (input, init) => {
    keys.push(new Headers(init?.headers).get("idempotency-key"));
    return reachable ? fetch(input as string, init) : Promise.reject(new TypeError("fetch failed"));
  };
  clock.enable({ apis: ["setTimeout", "Date"] });
  const began = Date.now();
  const url = face("cut=300");
  const answer = new Sluice({ url, credential: "demo", fetch: sometimes }).start(HELLO);
  while (answer.state.is !== "given-up" && Date.now() - began < 600_000) {
    await new Promise((resolve) => setImmediate(resolve));
    clock.tick(500);
  }
  const took = Date.now() - began;
  clock.reset();
  assert(took > 100_000 && took < 130_000, `${took} ms`);
  assert(keys.length < 30, `${keys.length} tries`);
  await assert.rejects(answer.done, (error) => {
    assert(error instanceof SluiceError);
    assert.equal(error.problem.type, "urn:sluice:client:unreachable");
    return true;
  });
  reachable = true;
  answer.retry();
  assert.equal((await ended(answer)).status, "completed");
  assert.equal(answer.text, (await report(url)).text);
  // Nobody knows whether the first tries began it, so the key stays.
  assert.equal(new Set(keys.filter((key) => key !== null)).size, 1);
});
