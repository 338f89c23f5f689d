import assert from "node:assert/strict";
import { test } from "node:test";
import { SluiceError, type State } from "sluice-client";
import { announcement } from "../../web/src/announcement";
import { describe } from "../../web/src/describe";

const NOW = 1_000_000;

function closed(status: "completed" | "cancelled" | "failed", more: object = {}): State {
  return { is: "closed", status, finishReason: "stop", error: null, ...more };
}

const WORDS: [string, State, object][] = [
  ["connecting", { is: "connecting" }, { tone: "waiting", text: "Connecting" }],
  ["live", { is: "live" }, { tone: "live", text: "Live" }],
  [
    "polling",
    { is: "polling", why: "buffered" },
    {
      tone: "live",
      text: "Polling",
      detail: "Something on the way holds the stream back. Nothing is lost.",
    },
  ],
  [
    "paused by hand",
    { is: "paused", reason: "requested" },
    { tone: "paused", text: "Paused", detail: "The text so far is kept.", remedy: "resume" },
  ],
  [
    "paused by a key's end",
    { is: "paused", reason: "expired" },
    { tone: "paused", text: "Paused", detail: "Your key has expired.", remedy: "key" },
  ],
  ["complete", closed("completed"), { tone: "done", text: "Complete" }],
  [
    "stopped",
    closed("cancelled", { finishReason: "cancelled" }),
    { tone: "stopped", text: "Stopped", detail: "The text so far is kept." },
  ],
  [
    "a failure that may be tried again",
    closed("failed", {
      finishReason: "error",
      error: { type: "urn:x", detail: "The model was cut.", retryable: true },
    }),
    {
      tone: "failed",
      text: "Failed",
      detail: "The model was cut. The text so far is kept.",
      remedy: "regenerate",
    },
  ],
  [
    "a failure that may not",
    closed("failed", {
      finishReason: "policy",
      error: { type: "urn:x", title: "Not allowed.", retryable: false },
    }),
    {
      tone: "failed",
      text: "Ended by a rule",
      detail: "Not allowed. The text so far is kept.",
    },
  ],
  [
    "given up",
    { is: "given-up", error: new SluiceError({ type: "urn:x", detail: "Nobody answers." }) },
    { tone: "failed", text: "Not connected", detail: "Nobody answers.", remedy: "retry" },
  ],
  [
    "what was refused",
    {
      is: "given-up",
      error: new SluiceError({ type: "urn:x", status: 403, detail: "Not this model." }),
    },
    { tone: "failed", text: "Refused", detail: "Not this model.", remedy: "retry" },
  ],
];

for (const [name, state, told] of WORDS) {
  test(`the state line says ${name}`, () => assert.deepEqual(describe(state, NOW), told));
}

test("a key that is no longer valid asks for another", () => {
  const error = new SluiceError({ type: "urn:x", status: 401 });
  assert.equal(describe({ is: "given-up", error }, NOW).remedy, "key");
});

test("waiting for a connection counts down, and offers to try at once only where it is long", () => {
  const waiting = (ms: number) =>
    describe({ is: "reconnecting", attempt: 1, at: NOW + ms, why: "lost" }, NOW);
  assert.equal(waiting(3400).text, "Reconnecting in 4 s");
  assert.equal(waiting(3400).remedy, "retry");
  assert.equal(waiting(800).text, "Reconnecting in 1 s");
  assert.equal(waiting(800).remedy, undefined);
  assert.equal(waiting(-10).text, "Reconnecting");
});

test("a limit says until when, and why", () => {
  const state: State = {
    is: "limited",
    problem: { type: "urn:x", detail: "Ten a minute." },
    until: NOW + 12_000,
  };
  const told = describe(state, NOW);
  assert.equal(told.text, "Limited for 12 s");
  assert.equal(told.detail, "Ten a minute. It goes on by itself.");
  assert.equal(told.remedy, undefined);
});

test("a limit that is known is told in words for people", () => {
  const problem = { type: "urn:x", policy: "user-tokens-per-day", limit: 5000, detail: "urn" };
  const told = describe({ is: "limited", problem, until: NOW + 1000 }, NOW);
  assert.equal(told.detail, "Your limit of 5,000 tokens today is reached. It goes on by itself.");
});

test("a long wait has a time of day, and can be ended", () => {
  const until = new Date(2026, 10, 27, 16, 5).getTime();
  const state: State = { is: "limited", problem: { type: "urn:x" }, until };
  assert.equal(describe(state, until - 3_600_000).text, "Limited until 16:05");
  assert.equal(describe(state, until - 86_400_000).text, "Limited until 27 Nov, 16:05");
  assert.equal(describe(state, until - 3_600_000).remedy, "retry");
});

test("a server that cannot answer now is not a limit", () => {
  const problem = { type: "urn:x", status: 503, detail: "Not now." };
  assert.equal(describe({ is: "limited", problem, until: NOW + 900 }, NOW).text, "Waiting for 1 s");
});

test("a live answer that falls silent says so after a while", () => {
  assert.equal(describe({ is: "live" }, NOW, 4000).text, "Live");
  assert.equal(describe({ is: "live" }, NOW, 7000).text, "Nothing new for 7 s");
});

test("of the text only its beginning and its end are announced", () => {
  const chunk = (text: string) => ({ type: "chunk", seq: 1, text }) as const;
  assert.equal(announcement(chunk("One "), "live", "One "), "Answer started");
  assert.equal(announcement(chunk("two"), "live", "One two"), undefined);
  const state = { type: "state", state: closed("completed") } as const;
  assert.equal(announcement(state, "live", "One two"), "Answer complete, 2 words");
});

test("a state is announced once, however often its figures change", () => {
  const lost = (attempt: number) =>
    ({ type: "state", state: { is: "reconnecting", attempt, at: NOW, why: "" } }) as const;
  assert.equal(announcement(lost(1), "live", ""), "Connection lost, reconnecting");
  assert.equal(announcement(lost(2), "reconnecting", ""), undefined);
  const live = { type: "state", state: { is: "live" } } as const;
  assert.equal(announcement(live, "reconnecting", ""), "The answer goes on");
  assert.equal(announcement(live, "connecting", ""), undefined);
});
