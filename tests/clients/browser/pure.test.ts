/** The parts that need no network. */

import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";
import type { AnswerEvent, LogEvent } from "sluice-client";
import {
  BUDGET_MS,
  backoff,
  nearly,
  progress,
  spend,
} from "../../../clients/browser/src/backoff.js";
import { credentials } from "../../../clients/browser/src/credentials.js";
import { Broken, retryAfter, SluiceError } from "../../../clients/browser/src/errors.js";
import { guard } from "../../../clients/browser/src/guard.js";
import { enqueue } from "../../../clients/browser/src/queue.js";
import { admit, type Seen } from "../../../clients/browser/src/seen.js";
import { decode } from "../../../clients/browser/src/transport/events.js";
import { decodePage } from "../../../clients/browser/src/transport/poll.js";
import { judge } from "../../../clients/browser/src/verdict.js";

describe("waiting", () => {
  test("backoff is anywhere below a bound that doubles, up to 15 s", () => {
    const most = [1, 2, 3, 4, 5, 6, 5000].map((attempt) => backoff(attempt, () => 1));
    assert.deepEqual(most, [1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
    assert.equal(
      backoff(3, () => 0),
      0,
    );
  });

  test("what the server said is waited for, and no timer overflows", () => {
    assert.equal(
      nearly(1000, () => 0),
      1000,
    );
    assert.equal(
      nearly(1000, () => 1),
      1100,
    );
    assert.equal(
      nearly(3_600_000, () => 1),
      3_605_000,
    );
    assert.equal(nearly(1e12), 2 ** 31 - 1);
  });

  test("the budget counts tries and waits, and no sleep", () => {
    const tries = { attempts: 0, spentMs: 0, progressAt: 0 };
    progress(tries, 1000);
    assert.equal(spend(tries, 0, 500, 3000), false); // what came before the progress is none of it
    assert.equal(tries.spentMs, 2500);
    assert.equal(spend(tries, 3000, 0, 8 * 3_600_000), false); // a night
    assert.equal(tries.spentMs, 32_500);
    assert.equal(spend(tries, 10_000, 0, 5000), false); // a clock that was set back
    assert.equal(tries.spentMs, 32_500);
    tries.spentMs = BUDGET_MS;
    assert.equal(spend(tries, 0, 1, 0), true);
  });

  test("Retry-After is in seconds, or a date", () => {
    assert.equal(retryAfter("3"), 3000);
    assert.equal(retryAfter("Thu, 01 Jan 1970 00:00:09 GMT", 2000), 7000);
    assert.equal(retryAfter("Thu, 01 Jan 1970 00:00:01 GMT", 2000), 0);
    assert.equal(retryAfter("soon"), undefined);
    assert.equal(retryAfter(null), undefined);
  });
});

describe("a guard", () => {
  const outer = new AbortController().signal;
  const silence = (slept: boolean) => new Broken(slept ? "interrupted" : "buffered", "silence");

  // @types/node is that of the oldest Node 20, which could not set the clock yet.
  const clock = mock.timers as unknown as {
    enable(options: { apis: string[] }): void;
    tick(ms: number): void;
    setTime(ms: number): void;
    reset(): void;
  };

  function timed(work: () => void): void {
    clock.enable({ apis: ["setTimeout", "Date"] });
    try {
      work();
    } finally {
      clock.reset();
    }
  }

  test("ends what is silent, and only that", () =>
    timed(() => {
      const watch = guard(outer, 4000, silence);
      clock.tick(3000);
      watch.heard(20_000);
      clock.tick(19_000);
      watch.heard();
      clock.tick(19_000);
      assert.equal(watch.signal.aborted, false);
      clock.tick(1000);
      assert.equal(watch.signal.reason.how, "buffered");
    }));

  test("takes a timer that fires late for a sleep", () =>
    timed(() => {
      const watch = guard(outer, 4000, silence);
      clock.setTime(3_600_000);
      watch.look();
      assert.equal(watch.signal.reason.how, "interrupted");
    }));

  test("ends with what is around it, and gives up on what does not heed that", async () => {
    const around = new AbortController();
    const watch = guard(around.signal, 4000, silence);
    const never = watch.within(new Promise(() => {}));
    around.abort(new Broken("lost", "cut"));
    await assert.rejects(never, /cut/);
    assert.equal(watch.signal.aborted, true);
  });
});

describe("credentials", () => {
  test("are asked for once, however many want one", async () => {
    let asked = 0;
    const held = credentials(async () => `key ${++asked}`);
    assert.deepEqual(await Promise.all([held.show(), held.show()]), ["key 1", "key 1"]);
    assert.deepEqual(await Promise.all([held.renew("key 1"), held.renew("key 1")]), [
      "key 2",
      "key 2",
    ]);
    assert.equal(await held.renew("key 1"), "key 2"); // who comes late gets the one that is there
    assert.equal(await held.show(), "key 2");
  });

  test("are asked for again where that failed", async () => {
    let asked = 0;
    const held = credentials(() => {
      if (++asked === 1) throw new Error("no network");
      return "key";
    });
    await assert.rejects(held.show(), /no network/);
    assert.equal(await held.show(), "key");
  });

  test("that are given as they are, are all there is", async () => {
    const held = credentials("key");
    assert.equal(await held.renew(await held.show()), "key");
  });
});

describe("what was seen", () => {
  const chunk = (seq: number, text: string): LogEvent => ({ type: "chunk", seq, text });
  const closed: LogEvent = {
    type: "closed",
    seq: 9,
    status: "completed",
    finish_reason: "stop",
    usage: null,
    error: null,
  };

  test("is taken in once, whatever brings it", () => {
    const seen: Seen = { after: -1, text: "" };
    const told = [chunk(1, "a"), chunk(1, "a"), chunk(3, "b"), chunk(2, "?"), chunk(4, "c")];
    assert.deepEqual(
      told.map((event) => admit(seen, event)),
      [true, false, true, false, true],
    );
    assert.deepEqual(seen, { after: 4, text: "abc", paused: undefined });
  });

  test("ends once, also for who had seen the end before", () => {
    const seen: Seen = { after: 9, text: "abc" };
    assert.equal(admit(seen, closed), true);
    assert.equal(admit(seen, closed), false);
    assert.equal(seen.closed?.status, "completed");
  });

  test("is paused until more comes", () => {
    const seen: Seen = { after: 4, text: "" };
    const paused: LogEvent = { type: "paused", seq: 4, reason: "requested" };
    assert.equal(admit(seen, paused), false); // known by its number, and no more
    assert.equal(seen.paused, "requested");
    admit(seen, { type: "expiring", seq: 5, expires_at: 1 });
    assert.equal(seen.paused, "requested");
    admit(seen, { type: "granted", seq: 6, expires_at: null });
    assert.equal(seen.paused, undefined);
  });
});

describe("what is on the wire", () => {
  test("events are the log's, by their number", () => {
    const message = { id: "3", event: "chunk", data: '{"text":"水","seq":7,"type":"x"}' };
    assert.deepEqual(decode(message), { type: "chunk", seq: 3, text: "水" });
    assert.equal(decode({ event: "surprise", data: "not JSON" }), undefined);
    assert.equal(decode({ data: "no name" }), undefined);
    assert.equal(decode({ event: "toString", data: "{}" }), undefined);
  });

  for (const [why, message] of Object.entries({
    "no number": { event: "chunk", data: '{"text":"a"}' },
    "no such number": { id: "-1", event: "chunk", data: '{"text":"a"}' },
    "no text": { id: "1", event: "chunk", data: "{}" },
    "no JSON": { id: "1", event: "chunk", data: '{"text":"a' },
    "no object": { id: "1", event: "chunk", data: "null" },
  })) {
    test(`${why} is a broken connection`, () => {
      assert.throws(() => decode(message), Broken);
    });
  }

  test("a page has chunks, and the end", () => {
    const page = decodePage(
      JSON.stringify({
        chunks: [{ seq: 1, text: "a", at: 5 }],
        next: 2,
        status: "failed",
        closed: true,
        poll_after_ms: 0,
        finish_reason: "error",
        usage: null,
        error: { type: "urn:sluice:problem:internal" },
      }),
    );
    assert.deepEqual(
      page.events.map(({ type, seq }) => [type, seq]),
      [
        ["chunk", 1],
        ["closed", 2],
      ],
    );
  });

  for (const text of ["<html>", "{}", '{"chunks":[{}],"next":1}', '{"chunks":[],"next":"1"}']) {
    test(`${text} is no page`, () => {
      assert.throws(() => decodePage(text), Broken);
    });
  }
});

describe("a verdict", () => {
  const ours = (status: number, more: object = {}) =>
    new SluiceError({ type: "urn:sluice:problem:x", status, ...more });
  const gateway = (status: number) => new SluiceError({ type: "about:blank", status });
  const told = new SluiceError({ type: "about:blank", status: 503 }, { retryAfterMs: 2000 });

  for (const [what, error, streaming, polling] of [
    ["a reset", new Broken("lost", "reset"), "back off", "back off"],
    ["an interruption", new Broken("interrupted", "cut"), "again", "again"],
    ["a hint", new Broken("told", "", { afterMs: 5 }), "come back", "come back"],
    ["a gateway's 502", gateway(502), "poll", "back off"],
    ["a gateway's 403", gateway(403), "poll", "give up"],
    ["a 408", gateway(408), "back off", "back off"],
    ["a 503 that says when", told, "wait", "wait"],
    ["a 429 that does not", ours(429), "back off", "back off"],
    ["a bad request", ours(400), "give up", "give up"],
    ["another key that runs", ours(409, { stream: "s" }), "follow", "follow"],
    ["an error of ours", ours(500, { retryable: false }), "back off", "back off"],
    ["a model's failure", ours(502, { retryable: false }), "give up", "give up"],
    ["a bug", new TypeError("bug"), "back off", "back off"],
  ] as const) {
    test(`${what}: ${streaming}, ${polling}`, () => {
      assert.equal(judge(error, true).do, streaming);
      assert.equal(judge(error, false).do, polling);
    });
  }
});

test("nobody is asked again at once, whatever a gateway says", () => {
  const refused = new SluiceError({ type: "about:blank", status: 429 }, { retryAfterMs: 0 });
  const verdict = judge(refused, true);
  assert(verdict.do === "wait" && verdict.afterMs >= 1000);
});

describe("the queue of a slow consumer", () => {
  test("merges chunks, keeps seams, and of states the newest", () => {
    const waiting: AnswerEvent[] = [];
    const state = (attempt: number): AnswerEvent => ({
      type: "state",
      state: { is: "reconnecting", attempt, at: 0, why: "" },
    });
    const told: AnswerEvent[] = [
      state(1),
      { type: "chunk", seq: 1, text: "a" },
      state(2),
      { type: "chunk", seq: 2, text: "b" },
      { type: "epoch", seq: 3, epoch: 2 },
      { type: "chunk", seq: 4, text: "c" },
      state(3),
    ];
    for (const event of told) enqueue(waiting, event);
    assert.deepEqual(
      waiting.map((event) => (event.type === "chunk" ? event.text : event.type)),
      ["ab", "epoch", "c", "state"],
    );
    for (let n = 0; n < 1000; n++) {
      enqueue(waiting, { type: "chunk", seq: 5 + n, text: "x" });
      enqueue(waiting, state(n));
    }
    assert(waiting.length < 10, `${waiting.length} wait`);
  });
});
