import assert from "node:assert/strict";
import { test } from "node:test";
import { Figures, median, variance } from "../../web/src/figures";
import { bars } from "../../web/src/sparkline";

function noted(...chunks: [number, string][]): Figures {
  const figures = new Figures(1000);
  for (const [index, [at, text]] of chunks.entries()) {
    figures.note({ type: "chunk", seq: index + 1, text }, at);
  }
  return figures;
}

test("nothing is told of an answer that has not begun", () => {
  const figures = noted();
  assert.equal(figures.firstTokenMs, undefined);
  assert.equal(figures.tokensPerSecond, undefined);
  assert.deepEqual(figures.gaps, []);
});

test("one chunk has a first token, and no rate", () => {
  const figures = noted([1250, "Grüße"]);
  assert.equal(figures.firstTokenMs, 250);
  assert.equal(figures.tokensPerSecond, undefined);
  assert.equal(figures.bytes, 7);
});

test("a rate is what came behind the first chunk, in the time since", () => {
  const figures = noted([1250, "x".repeat(40)], [1750, "x".repeat(40)], [3250, "x".repeat(40)]);
  assert.equal(figures.tokensPerSecond, 10);
  assert.deepEqual(figures.gaps, [500, 1500]);
  assert.equal(figures.silentMs(4000), 750);
});

test("of the gaps the newest thousand are kept", () => {
  const figures = noted(...Array.from({ length: 1500 }, (_, n): [number, string] => [n ** 2, "x"]));
  assert.equal(figures.gaps.length, 1000);
  assert.equal(figures.gaps.at(-1), 1499 ** 2 - 1498 ** 2);
});

test("epochs, offsets and lost connections are counted", () => {
  const figures = new Figures(0);
  figures.note({ type: "opened", seq: 0, id: "x", model: "demo", at: 0 }, 1);
  assert.equal(figures.epoch, 1);
  figures.note({ type: "epoch", seq: 9, epoch: 2, continuation: "replay" }, 2);
  for (const is of ["reconnecting", "live"] as const) {
    const state = is === "live" ? { is } : { is, attempt: 1, at: 5, why: "lost" };
    figures.note({ type: "state", state }, 3);
  }
  assert.deepEqual([figures.epoch, figures.seq, figures.reconnects], [2, 9, 1]);
});

test("medians and variances", () => {
  assert.equal(median([]), undefined);
  assert.equal(median([5]), 5);
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([9, 1, 5, 6]), 5.5);
  assert.equal(variance([]), undefined);
  assert.equal(variance([4]), 0);
  assert.equal(variance([2, 4, 4, 4, 5, 5, 7, 9]), 4);
});

test("the newest gap stands at the right, the longest is as high as the picture", () => {
  assert.equal(bars([]), "");
  assert.equal(bars([10, 20]), "M232.0 40v-20.0h3v20.0zM236.0 40v-40.0h3v40.0z");
});
