import assert from "node:assert/strict";
import { test } from "node:test";
import { Memory } from "../../web/src/storage";

class Shelf implements Storage {
  readonly kept = new Map<string, string>();
  full = false;
  get length(): number {
    return this.kept.size;
  }
  clear(): void {
    this.kept.clear();
  }
  getItem(name: string): string | null {
    return this.kept.get(name) ?? null;
  }
  key(): null {
    return null;
  }
  removeItem(name: string): void {
    this.kept.delete(name);
  }
  setItem(name: string, value: string): void {
    if (this.full) throw new DOMException("full", "QuotaExceededError");
    this.kept.set(name, value);
  }
}

function shelves(): { tab: Shelf; device: Shelf; memory: Memory } {
  const [tab, device] = [new Shelf(), new Shelf()];
  return { tab, device, memory: new Memory(tab, device) };
}

const RUNNING = {
  question: "Why?",
  model: "demo",
  parent: undefined,
  saved: { stream: "x", after: 3, text: "Because" },
};

test("a key is kept for the tab, unless the reader wants the device to remember it", () => {
  const { memory, tab, device } = shelves();
  memory.keepKey("for now", false);
  assert.equal(memory.key, "for now");
  assert.equal(device.length, 0);
  memory.keepKey("for good", true);
  assert.equal(memory.key, "for good");
  assert.equal(tab.length, 0);
  memory.forgetKey();
  assert.equal(memory.key, undefined);
});

test("a running answer survives a reload, and is gone when it is over", () => {
  const { memory, tab, device } = shelves();
  memory.running = RUNNING;
  const { parent: _, ...kept } = RUNNING;
  assert.deepEqual(new Memory(tab, device).running, kept);
  memory.running = undefined;
  assert.equal(memory.running, undefined);
});

test("a running answer is for who has signed in, and for nobody after", () => {
  const { memory, tab, device } = shelves();
  memory.keepKey("one", true);
  memory.running = RUNNING;
  const elsewhere = new Memory(new Shelf(), device); // another tab, which signs out
  assert.equal(elsewhere.key, "one");
  elsewhere.forgetKey();
  assert.equal(memory.running, undefined);
  device.kept.set("sluice.key", "another");
  device.kept.set("sluice.signed-in", "later");
  assert.equal(new Memory(tab, device).running, undefined);
  assert.doesNotMatch([...tab.kept.values()].join(), /one/);
});

test("what there is no room for is not told by what was kept before", () => {
  const { memory, tab } = shelves();
  memory.running = RUNNING;
  tab.full = true;
  memory.running = { ...RUNNING, question: "And then?" };
  assert.equal(memory.running, undefined);
});

test("what is full, broken or not there at all only forgets", () => {
  const { memory, tab } = shelves();
  tab.full = true;
  memory.running = RUNNING;
  assert.equal(memory.running, undefined);
  for (const broken of ["{broken", "null", "3", '{"question":"Why?"}']) {
    tab.kept.set("sluice.running", broken);
    assert.equal(memory.running, undefined);
  }
  const nothing = new Memory(undefined, undefined);
  nothing.set("theme", "dark");
  assert.equal(nothing.get("theme"), undefined);
});
