/** The client on a real local run. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { type AnswerEvent, Sluice, SluiceError } from "sluice-client";
import { asking, client, ended, localRun, type Served, until } from "./servers.js";

let server: Served;
let sluice: Sluice;
before(async () => {
  server = await localRun();
  sluice = client(server.url);
});
after(() => server.stop());

/** Some seconds long. */
const LONG = asking("demo?tokens=150&rate=50");
const SHORT = asking("demo?tokens=20&rate=0");

/** What the log holds, by the server's own word. */
async function logged(id: string): Promise<string> {
  const { streams } = JSON.parse(await (await sluice.exported(id)).text());
  return streams[0].records.map((record: { text?: string }) => record.text ?? "").join("");
}

describe("an answer", { concurrency: true }, () => {
  test("streams from its start to its end", async () => {
    const answer = sluice.start(LONG);
    const told: AnswerEvent[] = [];
    for await (const event of answer) told.push(event);
    const kinds = told.map((event) => (event.type === "state" ? event.state.is : event.type));
    assert.deepEqual([...new Set(kinds)].sort(), [
      "chunk",
      "closed",
      "connecting",
      "live",
      "opened",
    ]);
    assert.equal(kinds.at(-1), "closed");
    const text = told.map((event) => (event.type === "chunk" ? event.text : "")).join("");
    assert.equal(text, answer.text);
    assert.equal(text, await logged(answer.id as string));
    assert.equal(answer.state.is, "closed");
    assert.equal((await answer.done).finish_reason, "stop");
  });

  test("goes on where it was cut, and at the end once more", async () => {
    const answer = sluice.start(LONG);
    await until(answer, () => answer.after > 3);
    answer.cut();
    await until(answer, () => answer.state.is === "reconnecting");
    await ended(answer);
    assert.equal(answer.text, await logged(answer.id as string));
    // Whoever kept what it saw of a stream that is over is told how it ended, and no text again.
    const again = sluice.restore(answer.saved());
    assert.equal((await ended(again)).status, "completed");
    assert.equal(again.text, answer.text);
    const beyond = sluice.follow(answer.id as string, { after: answer.after + 1 });
    assert.equal((await ended(beyond)).status, "completed");
  });

  test("is polled where that is wanted, and streams again", async () => {
    const answer = sluice.start(LONG);
    answer.usePolling(true);
    await until(answer, () => answer.state.is === "polling" && answer.after > 2);
    assert.equal(answer.transport, "polling");
    answer.usePolling(false);
    await until(answer, () => answer.state.is === "live");
    await ended(answer);
    assert.equal(answer.text, await logged(answer.id as string));
  });

  test("is polled to its end", async () => {
    const answer = sluice.start(LONG);
    answer.usePolling(true);
    const closed = await ended(answer);
    assert.equal(closed.usage?.output_tokens, 150);
    assert.equal(answer.text, await logged(answer.id as string));
  });

  test("outlives its page, also in the midst of its start", async () => {
    const before = sluice.start(LONG);
    const early = JSON.parse(JSON.stringify(before.saved()));
    assert.equal(early.stream, undefined);
    await until(before, () => before.after > 3);
    const late = JSON.parse(JSON.stringify(before.saved()));
    before.leave();
    await assert.rejects(before.done, /not followed/);
    const [one, other] = [sluice.restore(early), sluice.restore(late)];
    await Promise.all([ended(one), ended(other)]);
    assert.equal(one.id, before.id);
    assert.equal(other.text, one.text);
    assert.equal(one.text, await logged(one.id as string));
  });

  test("has two followers", async () => {
    const answer = sluice.start(LONG);
    await until(answer, () => answer.id !== undefined);
    const other = client(server.url).follow(answer.id as string);
    await Promise.all([ended(answer), ended(other)]);
    assert.equal(other.text, answer.text);
    assert.deepEqual(await other.done, await answer.done);
  });

  test("is cancelled, even before its stream is known", async () => {
    const answer = sluice.start(LONG);
    await answer.cancel();
    assert.equal((await ended(answer)).status, "cancelled");
    const started = sluice.start(LONG);
    await until(started, () => started.text !== "");
    await started.cancel();
    assert.equal((await ended(started)).status, "cancelled");
    assert.equal(started.text, await logged(started.id as string));
  });

  for (const polled of [false, true]) {
    test(`is paused and resumed, ${polled ? "polled" : "streaming"}`, async () => {
      const answer = sluice.start(LONG);
      answer.usePolling(polled);
      await until(answer, () => answer.text !== "");
      await answer.pause();
      await until(answer, () => answer.state.is === "paused");
      assert.deepEqual(answer.state, { is: "paused", reason: "requested" });
      const { text } = answer;
      // A reload finds it paused, and says so.
      const reloaded = sluice.restore(answer.saved());
      await until(reloaded, () => reloaded.state.is === "paused");
      assert.equal(reloaded.text, text);
      reloaded.leave();
      await answer.resume();
      await until(answer, () => answer.text.length > text.length);
      assert.equal((await ended(answer)).status, "completed");
      assert.equal(answer.text, await logged(answer.id as string));
    });
  }

  test("a paused one can be cancelled", async () => {
    const answer = sluice.start(LONG);
    await answer.pause();
    await until(answer, () => answer.state.is === "paused");
    await answer.cancel();
    assert.equal((await ended(answer, 10_000)).status, "cancelled");
  });

  test("is asked for again, and refined in its midst", async () => {
    const first = sluice.start(LONG);
    await until(first, () => first.text !== "");
    const refined = first.refine("Shorter, please");
    await until(refined, () => refined.text.includes("Shorter, please"));
    const again = refined.regenerate();
    assert.equal((await ended(first)).status, "cancelled");
    assert.equal((await ended(again)).status, "completed");
    assert.equal((await ended(refined)).status, "cancelled");
    assert.equal((await sluice.stream(refined.id as string)).parent, first.id);
    assert.equal((await sluice.stream(again.id as string)).parent, refined.id);
    assert.match(again.text, /Shorter, please/);
  });

  test("is asked for again before it has begun", async () => {
    const first = sluice.start(LONG);
    const again = first.regenerate();
    assert.equal((await ended(again)).status, "completed");
    assert.equal((await ended(first)).status, "cancelled");
  });

  test("fails with its text kept", async () => {
    const answer = sluice.start(asking("demo?fail_after=40"));
    const closed = await ended(answer);
    assert.equal(closed.status, "failed");
    assert.equal(closed.error?.type, "urn:sluice:problem:provider-failed");
    assert.notEqual(answer.text, "");
  });
});

test("what fails before its first text is given up, and tried with another key", async () => {
  const answer = sluice.start(asking("demo?fail_after=0"));
  await assert.rejects(ended(answer), /failed/);
  const { idempotencyKey } = answer.saved();
  assert.equal(answer.state.is, "given-up");
  answer.retry();
  assert.equal(answer.state.is, "connecting"); // at once, so that a second retry is none
  await assert.rejects(ended(answer), /failed/);
  assert.notEqual(answer.saved().idempotencyKey, idempotencyKey);
});

test("a slow consumer gets the text whole, in fewer pieces", async () => {
  const answer = sluice.start(SHORT);
  const iterator = answer[Symbol.asyncIterator]();
  await iterator.next();
  await ended(answer);
  const rest: AnswerEvent[] = [];
  for await (const event of { [Symbol.asyncIterator]: () => iterator }) rest.push(event);
  const chunks = rest.filter((event) => event.type === "chunk");
  assert.equal(chunks.map(({ text }) => text).join(""), answer.text);
  assert.equal(chunks.length, 1);
  const late: AnswerEvent[] = [];
  for await (const event of answer) late.push(event);
  assert.deepEqual(
    late.map(({ type }) => type),
    ["chunk", "state"],
  );
});

test("lists, looks, exports, erases", async () => {
  const answer = sluice.start({ ...SHORT, metadata: { title: "A list" } });
  await ended(answer);
  const id = answer.id as string;
  const { streams, next_page } = await sluice.streams({ limit: 1 });
  assert.equal(streams[0]?.id, id);
  assert.equal(streams[0]?.metadata.title, "A list");
  const second = await sluice.streams({ limit: 1, page: next_page as string });
  assert.notEqual(second.streams[0]?.id, id);
  assert.equal((await sluice.stream(id)).status, "completed");
  assert((await sluice.usage()).limits.length > 0);
  await sluice.erase(id);
  await assert.rejects(sluice.stream(id), { status: 404 });
  const gone = sluice.restore(answer.saved());
  await assert.rejects(ended(gone), { status: 404 });
  assert.equal(gone.text, answer.text); // what the page has is the page's
});

test("what is asked wrongly says which field", async () => {
  const answer = sluice.start({ model: "demo", messages: [] });
  await assert.rejects(ended(answer), (error: SluiceError) => {
    assert.equal(error.problem.field, "messages");
    return error instanceof SluiceError;
  });
});

test("a credential that is refused is asked for once more, and then no more", async () => {
  const asked: string[] = [];
  const give = (keys: string[]) => () => {
    const key = keys[Math.min(asked.length, keys.length - 1)] as string;
    asked.push(key);
    return key;
  };
  const renewing = new Sluice({ url: server.url, credential: give(["stale", "demo"]) });
  await ended(renewing.start(SHORT));
  assert.deepEqual(asked, ["stale", "demo"]);
  asked.length = 0;
  const refused = new Sluice({ url: server.url, credential: give(["stale", "staler"]) });
  const answer = refused.start(SHORT);
  await assert.rejects(ended(answer), { status: 401 });
  assert.deepEqual(asked, ["stale", "staler"]);
});

test("streams are asked for at one address and all else at another, bodies with their hash", async () => {
  const asked: { url: string; headers: Headers; body: unknown }[] = [];
  const noting: typeof fetch = (input, init) => {
    asked.push({ url: String(input), headers: new Headers(init?.headers), body: init?.body });
    return fetch(input as string, init);
  };
  const api = server.url.replace("127.0.0.1", "localhost");
  const apart = new Sluice({
    url: `${server.url}/`,
    api,
    credential: "demo",
    bodyHash: true,
    fetch: noting,
  });
  const answer = apart.start(asking("demo?tokens=100"));
  await until(answer, () => answer.text !== "");
  answer.usePolling(true);
  await answer.pause();
  await answer.cancel();
  await ended(answer);
  const [first] = asked;
  for (const { url, headers, body } of asked) {
    const streams = url.endsWith("/v1/streams") || url.includes("/events");
    assert(url.startsWith(streams ? `${server.url}/v1` : `${api}/v1`), url);
    assert.equal(headers.get("authorization"), "Bearer demo");
    const posted = body !== undefined || /pause|cancel/.test(url);
    const hash = createHash("sha256")
      .update(String(body ?? ""))
      .digest("hex");
    assert.equal(headers.get("x-amz-content-sha256"), posted ? hash : null);
  }
  assert.match(String(first?.body), /demo/);
});
