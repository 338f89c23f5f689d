import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Pace } from "../../web/src/markdown/pace";

/**
 * A browser's clock: timers and frames, in the order in which they are due. Times are in ms. In a
 * hidden tab there are no frames, and timers come each second.
 */
class Clock {
  now = 0;
  hidden = false;
  #due = new Map<number, { at: number; run: () => void }>();
  #made = 0;

  later(run: () => void, ms: number): number {
    assert(Number.isFinite(ms), `a timer of ${ms} ms`);
    const at = this.now + ms;
    this.#due.set(++this.#made, { at: this.hidden ? Math.ceil(at / 1000) * 1000 : at, run });
    return this.#made;
  }

  cancel(made: number): void {
    this.#due.delete(made);
  }

  /** Let time go on until that moment. */
  to(end: number): void {
    while (true) {
      const [next] = [...this.#due].sort(([a, x], [b, y]) => x.at - y.at || a - b);
      if (!next || next[1].at > end) break;
      this.#due.delete(next[0]);
      this.now = Math.max(this.now, next[1].at);
      next[1].run();
    }
    this.now = Math.max(this.now, end);
  }
}

const FRAME_MS = 16;
let clock: Clock;

beforeEach(() => {
  clock = new Clock();
  Object.assign(globalThis, {
    setTimeout: (run: () => void, ms = 0) => clock.later(run, ms),
    clearTimeout: (made: number) => clock.cancel(made),
    requestAnimationFrame: (run: () => void) => (clock.hidden ? 0 : clock.later(run, FRAME_MS)),
    cancelAnimationFrame: (made: number) => clock.cancel(made),
    performance: { now: () => clock.now },
    document: {
      get hidden() {
        return clock.hidden;
      },
    },
  });
});

/** A pace whose work takes so long, and asks for itself again `times` times; when it began each time. */
function paced(takesMs: number, times: number, again: (pace: Pace) => void): number[] {
  const began: number[] = [];
  const pace: Pace = new Pace(() => {
    began.push(clock.now);
    clock.now += takesMs;
    if (began.length <= times) again(pace);
  });
  pace.request();
  return began;
}

test("work is done in the next frame, once however often it was asked for", () => {
  const began: number[] = [];
  const pace = new Pace(() => began.push(clock.now));
  pace.request();
  pace.request();
  clock.to(1000);
  assert.deepEqual(began, [FRAME_MS]);
});

for (const [when, again] of [
  ["while it is done", (pace: Pace) => pace.request()],
  ["before it is known how long it took", (pace: Pace) => clock.later(() => pace.request(), 0)],
  ["later", (pace: Pace) => clock.later(() => pace.request(), 50)],
] as const) {
  test(`long work rests as long, asked for ${when}`, () => {
    const began = paced(100, 2, again);
    clock.to(5000);
    assert.deepEqual(began, [16, 16 + 100 + 100 + 16, 16 + 2 * (100 + 100 + 16)]);
  });

  test(`short work is done in each frame, asked for ${when}`, () => {
    const began = paced(2, 2, again);
    clock.to(5000);
    const wait = when === "later" ? 50 : 0;
    assert.deepEqual(began, [16, 16 + 2 + wait + 16, 16 + 2 * (2 + wait + 16)]);
  });
}

test("work that throws is done again when it is asked for", () => {
  let tries = 0;
  const pace = new Pace(() => {
    tries += 1;
    throw new Error("broken");
  });
  pace.request();
  assert.throws(() => clock.to(1000), /broken/);
  clock.to(1000);
  pace.request();
  assert.throws(() => clock.to(2000), /broken/);
  assert.equal(tries, 2);
});

test("what was cancelled is not done", () => {
  const began = paced(100, 1, (pace) => {
    pace.request();
    pace.cancel();
  });
  clock.to(5000);
  assert.deepEqual(began, [16]);
});

test("a hidden tab, whose timers come late, takes no rest for that", () => {
  clock.hidden = true;
  const began = paced(100, 2, (pace) => pace.request());
  clock.to(5000);
  assert.deepEqual(began, [1000, 3000, 5000]);
});
