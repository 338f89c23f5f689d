/** Answers that outlast the credential they were begun with: on a local run, by a key of a minute. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Answer, AnswerEvent, Credential } from "sluice-client";
import {
  asking,
  client,
  ended,
  giving,
  localRun,
  type Served,
  shortLivedKey,
  until,
} from "./servers.js";

let server: Served;
let folder: string;
let key: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "sluice-"));
  const file = join(folder, "local.db");
  key = await shortLivedKey(file);
  server = await localRun(file);
});
after(async () => {
  await server.stop();
  await rm(folder, { recursive: true });
});

/** Longer than the key is good. */
const LONG = asking("demo?tokens=140&rate=2");

function begin(credential: Credential): { answer: Answer; told: string[] } {
  const answer = client(server.url, credential).start(LONG);
  const told: string[] = [];
  answer.on((event: AnswerEvent) => event.type !== "chunk" && told.push(event.type));
  return { answer, told };
}

describe("a key that expires", { concurrency: true }, () => {
  test("is renewed ahead of it", { timeout: 180_000 }, async () => {
    const { answer, told } = begin(giving(key, "demo"));
    assert.equal((await ended(answer, 150_000)).status, "completed");
    assert.deepEqual(
      told.filter((type) => type !== "state"),
      ["opened", "expiring", "granted", "closed"],
    );
  });

  test("is renewed behind it, where there was no other before", { timeout: 180_000 }, async () => {
    const { answer, told } = begin(giving(key, key, "demo"));
    assert.equal((await ended(answer, 150_000)).status, "completed");
    assert(told.includes("paused") && told.includes("granted"), told.join());
  });

  test("is renewed where it is polled, which tells nothing ahead", {
    timeout: 180_000,
  }, async () => {
    const { answer } = begin(giving(key, "demo"));
    answer.usePolling(true);
    let paused = false;
    answer.on((event) => {
      paused ||= event.type === "state" && event.state.is === "paused";
    });
    assert.equal((await ended(answer, 150_000)).status, "completed");
    assert(paused);
  });

  test("pauses an answer that has no other, and keeps its text", { timeout: 180_000 }, async () => {
    const { answer } = begin(key);
    await until(answer, () => answer.state.is === "paused");
    assert.deepEqual(answer.state, { is: "paused", reason: "expired" });
    const { text } = answer;
    assert.notEqual(text, "");
    await assert.rejects(answer.grant(), { status: 401 });
    const again = client(server.url).restore(answer.saved());
    await until(again, () => again.state.is === "paused");
    await again.grant();
    assert.equal((await ended(again, 100_000)).status, "completed");
    assert(again.text.startsWith(text));
    answer.leave();
  });
});
