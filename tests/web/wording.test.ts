import assert from "node:assert/strict";
import { test } from "node:test";
import { titled } from "../../web/src/conversation";
import { choices, nameOf } from "../../web/src/models";
import { byScarcity, type Limit, leftOf, shareLeft, whatOf } from "../../web/src/quota";
import { parseRoute, routeTo } from "../../web/src/route";
import { explanation } from "../../web/src/seams";
import { ago, duration, several, size } from "../../web/src/wording";

const ID = "06h1l6e9js01sakna5m3btsd0heh7kms";

function limit(policy: string, left: number, of: number, more: Partial<Limit> = {}): Limit {
  return { policy, left, limit: of, window_s: null, reset_s: null, ...more };
}

test("lengths of time, sizes and counts", () => {
  assert.deepEqual([0, 999, 1000, 45_000, 120_000, 5 * 3_600_000, 60 * 3_600_000].map(duration), [
    "0 ms",
    "999 ms",
    "1.0 s",
    "45 s",
    "2 min",
    "5 h",
    "3 d",
  ]);
  assert.deepEqual([999, 1234].map(size), ["999 B", "1.2 kB"]);
  assert.deepEqual([several(1, "word"), several(1234, "word")], ["1 word", "1,234 words"]);
  assert.deepEqual(
    [ago(0, 59_000), ago(0, 70_000), ago(0, 3 * 3_600_000)],
    ["now", "1 min ago", "3 h ago"],
  );
});

test("policies are told in words, and those not known by their names", () => {
  assert.equal(whatOf("tenant-tokens-per-day"), "Tokens today");
  assert.equal(whatOf("user-starts-per-minute"), "Questions a minute, yours");
  assert.equal(whatOf("tenant-something-new"), "Tenant something new");
});

test("what is left, and when there is all of it again", () => {
  const day = limit("tenant-tokens-per-day", 98_885, 100_000, { reset_s: 18_000 });
  assert.equal(leftOf(day), "98,885 of 100,000 left, full again in 5 h");
  assert.equal(leftOf({ ...day, left: 100_000 }), "100,000 of 100,000 left");
});

test("the scarcest limit comes first, of equals the longest", () => {
  const day = limit("day", 10, 100, { window_s: 86_400 });
  const minute = limit("minute", 60, 600, { window_s: 60 });
  const none = limit("none", 0, 0);
  assert.deepEqual(byScarcity([minute, day, none]), [none, day, minute]);
  assert.equal(shareLeft(none), 0);
});

test("an address names a stream, and a heading within it", () => {
  assert.deepEqual(parseRoute(""), { stream: undefined, heading: undefined });
  assert.deepEqual(parseRoute("#/s/../v1"), { stream: undefined, heading: undefined });
  for (const route of [
    { stream: ID, heading: undefined },
    { stream: ID, heading: "größe" },
  ]) {
    assert.deepEqual(parseRoute(routeTo(route)), route);
  }
  assert.equal(routeTo({}), "#/");
});

test("an address that is broken names nothing, and breaks nothing", () => {
  assert.deepEqual(parseRoute(`#/s/${ID}/%E0%A4%A`), { stream: ID, heading: undefined });
});

test("a long question is cut between words", () => {
  assert.deepEqual(titled("short"), { question: "short" });
  const { question = "", question_cut } = titled("word ".repeat(200));
  assert.ok(question.length <= 501 && question.endsWith("word…"));
  assert.equal(question_cut, "true");
  assert.equal(titled("x".repeat(600)).question, "…");
});

test("the demo is offered in all its moods, other models by their names", () => {
  const offered = choices(["demo", "openai/gpt-5"]);
  assert.ok(offered.length > 5);
  assert.deepEqual(offered.at(-1), { model: "openai/gpt-5", label: "gpt-5" });
  assert.equal(nameOf("demo?tokens=7&rate=0"), "demo");
});

test("a seam says whether anything was wrong", () => {
  const epoch = { type: "epoch", seq: 9, epoch: 2, continuation: "prompt" } as const;
  assert.match(explanation(epoch, false), /was lost here, and number 2 took over/);
  assert.match(explanation(epoch, true), /was paused here/);
});
