import assert from "node:assert/strict";
import { test } from "node:test";
import { type Distribution, groups, type Measured } from "../../web/src/local-run";

function said(measured: Measured): Record<string, string> {
  return Object.fromEntries(groups(measured).flatMap(({ rows }) => rows));
}

/** Values in buckets up to 10, 20 and 40, and beyond. */
function spread(...counts: number[]): Distribution {
  return { bounds: [10, 20, 40], counts };
}

test("before the first answer there is what can be tried, at 0", () => {
  assert.deepEqual(groups({}), [
    { title: "Answers", rows: [["Complete", "0"]] },
    {
      title: "Connections",
      rows: [
        ["Streamed", "0"],
        ["Resumed", "0"],
        ["Interrupted", "0"],
        ["Polls", "0"],
      ],
    },
    { title: "Producers", rows: [["Taken over", "0"]] },
  ]);
});

test("what has happened is counted", () => {
  const {
    Stopped,
    "Taken over": taken,
    "Values redacted": redacted,
    Failed,
  } = said({
    AnswersCancelled: 1,
    TakenOver: 2,
    Redactions: 1200,
  });
  assert.deepEqual([Stopped, taken, redacted, Failed], ["1", "2", "1,200", undefined]);
});

for (const [name, counts, middle] of [
  ["the middle of the only bucket", [0, 1, 0, 0], "≈ 15 ms"],
  ["a place within a bucket", [1, 2, 1, 0], "≈ 15 ms"],
  ["a quarter into a bucket", [2, 4, 0, 0], "≈ 13 ms"],
  ["the end of a bucket", [2, 0, 2, 0], "≈ 10 ms"],
  ["the first bucket, from 0", [4, 0, 0, 0], "≈ 5 ms"],
  ["in the last bucket no more than its beginning", [1, 0, 0, 2], "> 40 ms"],
] as const) {
  test(`a median is ${name}`, () => {
    assert.equal(said({ TimeToFirstToken: spread(...counts) })["First token"], middle);
  });
}

test("rates have no unit of time", () => {
  assert.equal(said({ TokensPerSecond: spread(0, 0, 3, 0) })["Tokens a second"], "≈ 30");
});

test("the longest is at most the bound of its bucket", () => {
  const longest = (...counts: number[]) =>
    said({ LagMax: spread(...counts) })["Behind the log, longest"];
  assert.equal(longest(5, 1, 0, 0), "≤ 20 ms");
  assert.equal(longest(5, 0, 0, 1), "> 40 ms");
});
