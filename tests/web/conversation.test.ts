import assert from "node:assert/strict";
import { test } from "node:test";
import { Sluice } from "sluice-client";
import { Conversation } from "../../web/src/conversation";
import { Memory } from "../../web/src/storage";

/** A tab whose server does not answer. */
function silent(): { conversation: Conversation; memory: Memory } {
  const kept = new Map<string, string>();
  const tab = {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => void kept.set(name, value),
    removeItem: (name: string) => void kept.delete(name),
  };
  const fetch = () => new Promise<Response>(() => {});
  const sluice = new Sluice({ url: "http://silent", credential: "demo", fetch });
  const memory = new Memory(tab as unknown as Storage, undefined);
  return { conversation: new Conversation(sluice, memory), memory };
}

test("a question is kept from the moment that it is asked, until its conversation is left", () => {
  const { conversation, memory } = silent();
  conversation.ask("Why?", "demo");
  assert.equal(memory.running?.question, "Why?");
  conversation.clear();
  assert.equal(memory.running, undefined);
});

test("no answer is followed behind a conversation that was left, not even one that was hidden", {
  timeout: 20_000,
}, async () => {
  const { conversation } = silent();
  conversation.ask("Why?", "demo");
  await new Promise((resolve) => setImmediate(resolve)); // it is on its way by now, so nobody knows whether it begins
  conversation.regenerate();
  const answers = conversation.last?.siblings.map(({ answer }) => answer.done) ?? [];
  assert.equal(answers.length, 2);
  conversation.clear();
  for (const done of answers) await assert.rejects(done, /not followed any more/);
});
