/** Whatever goes wrong on the way: the text is whole, once, or the error clear and the text kept. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  type Answer,
  type Credential,
  type LogEvent,
  SluiceError,
  type State,
} from "sluice-client";
import { client, ended, giving, HELLO, hostile, report, type Served, until } from "./servers.js";

let server: Served;
before(async () => {
  server = await hostile();
  Math.random = () => 0.02; // backoff without its waiting
});
after(() => server.stop());

interface Told {
  answer: Answer;
  url: string;
  chunks: string[];
  seqs: number[];
  states: State[];
}

/** An answer in front of a scenario, with all that it tells. */
function face(scenario: string, label = "", credential?: Credential): Told {
  const url = `${server.url}/${encodeURIComponent(`${scenario},as=browser${label}`)}`;
  const answer = client(url, credential).start(HELLO);
  const told: Told = { answer, url, chunks: [], seqs: [], states: [] };
  answer.on((event) => {
    if (event.type === "state") told.states.push(event.state);
    else told.seqs.push((event as LogEvent).seq);
    if (event.type === "chunk") told.chunks.push(event.text);
  });
  return told;
}

/** The whole text came, once, in order; and nothing was begun twice. */
async function assertWhole({ answer, url, chunks, seqs }: Told): Promise<void> {
  const { text, streams_begun } = await report(url);
  assert.equal(answer.text, text);
  assert.equal(chunks.join(""), text);
  assert.deepEqual(
    seqs,
    [...new Set(seqs)].sort((a, b) => a - b),
  );
  assert.equal(streams_begun, 1);
}

async function whole(scenario: string, label = ""): Promise<Told> {
  const told = face(scenario, label);
  const closed = await ended(told.answer);
  assert.equal(closed.status, "completed");
  await assertWhole(told);
  return told;
}

/** Many at once: most of their time is waiting. */
async function each<T>(items: T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const left = [...items];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: 40 }, worker));
}

describe("cuts", () => {
  /** How many bytes an undisturbed response has. */
  async function length(label: string): Promise<number> {
    const { url } = await whole("pace=0", label);
    const response = await fetch(`${url}/v1/streams`, {
      method: "POST",
      body: JSON.stringify(HELLO),
      headers: { authorization: "Bearer demo" },
    });
    return (await response.arrayBuffer()).byteLength;
  }

  // The first is a connection that breaks; the others end in good order, which a parser sees alike.
  for (const [how, step] of [
    ["cut", 1],
    ["fin", 7],
    ["end", 11],
  ] as const) {
    test(`${how} at every byte, in steps of ${step}`, { timeout: 300_000 }, async () => {
      const bytes = await length(how);
      assert(bytes > 1000);
      const places = Array.from({ length: Math.ceil(bytes / step) + 1 }, (_, n) => n * step);
      await each(places, async (byte) => {
        try {
          await whole(`pace=0,${how}=${byte}`);
        } catch (error) {
          throw new Error(`${how} at ${byte}`, { cause: error });
        }
      });
    });
  }

  test("each connection anew, until the text is there", async () => {
    await each([1, 10, 70, 137, 200, 400], (byte) => whole(`cut=${byte};times=all`));
  });
});

/** What befalls every event stream, and nothing else: a start that asks for none passes. */
function streams(fault: string): string {
  return `${fault},${fault};on=events;times=all`;
}

const WHOLE = [
  "truncated-utf8",
  "refuse",
  "refuse;times=4;on=any",
  "lost-reply",
  "lost-reply;on=any;times=4",
  "cut=137,lost-reply,cut=50,refuse",
  "status=500",
  "status=502",
  streams("status=502"),
  "status=503",
  "status=429",
  "status=429;times=2,cut=400",
  "status=503;retry-after=1;on=any;times=2",
  "status=504;on=any;times=3",
  "cut=200,status=429;retry-after=1;on=any",
  "portal",
  streams("portal"),
  "portal;on=any;times=3",
  "type=html",
  "type=json;times=all",
  "type=none",
  "type=text;times=all",
  "gzip-garbage",
  streams("gzip-garbage"),
  "empty",
  "empty;times=all",
  "cut=300,empty;times=3",
  "slow=1",
  "slow=3;on=any;times=2,type=html;times=all",
  "stall=2;at=300",
  "duplicate=5;times=all,cut=600",
  "cut=600,duplicate=5;times=all",
  "twice;times=all",
  "twice;on=any;times=all,type=html;times=all",
  "reconnect=3;times=all",
  "comment-flood=2000",
  "unknown-event;times=all",
  "future-fields;on=any;times=all",
  "future-fields;on=any;times=all,status=502;times=all",
  "bom;times=all,cut=100",
  "crlf;times=all,cut=400",
  "cr;times=all,cut=400",
  "big-event=200000,cut=300000",
  "pace=20,cut=300,fin=100,end=200",
  "chunks=3000,cut=20000,status=502;times=all",
];

describe("the text is whole", { concurrency: true }, () => {
  for (const scenario of WHOLE) {
    test(scenario, { timeout: 90_000 }, async () => void (await whole(scenario)));
  }
});

describe("streams that are held back", { concurrency: true }, () => {
  for (const scenario of [
    `${streams("buffer")},pace=1000`,
    `${streams("head-only")},pace=1000`,
    `${streams("stall=60")},pace=1000`,
    `${streams("status=502")},pace=100`,
    `${streams("type=html")},pace=100`,
  ]) {
    test(scenario, { timeout: 90_000 }, async () => {
      const begun = Date.now();
      const told = face(scenario, "held");
      let pollingAfterMs = Number.NaN;
      told.answer.on((event) => {
        if (event.type === "state" && event.state.is === "polling") {
          pollingAfterMs ||= Date.now() - begun;
        }
      });
      await ended(told.answer);
      await assertWhole(told);
      assert(pollingAfterMs < 10_000, `polling after ${pollingAfterMs} ms`); // 5 s, on a busy machine
      const { requests } = await report(told.url);
      const keys = requests.filter(({ route }) => route === "start").map((r) => r.idempotency_key);
      assert.equal(keys.length, 2);
      assert.equal(new Set(keys).size, 1);
    });
  }

  test("one that is held back in its midst", { timeout: 120_000 }, async () => {
    const told = await whole("stall=100;at=400,pace=2500", "midst");
    assert(told.states.some((state) => state.is === "polling" && state.why === "buffered"));
  });

  test("it streams again when it can", { timeout: 90_000 }, async () => {
    const told = await whole("head-only;times=2,pace=1500", "again");
    const is = told.states.map((state) => state.is);
    assert(is.lastIndexOf("live") > is.indexOf("polling"), is.join());
    assert.equal(told.answer.transport, "streaming");
  });
});

/** A request fails in each way, more often than a reader would wait for it. */
function failing(route: string): string[] {
  const often = `on=${route};times=5`;
  return ["refuse", "lost-reply", "status=502", "status=503"].map((how) => `${how};${often}`);
}

describe("of an answer and the one in its place only that runs on", { concurrency: true }, () => {
  const LASTING = "pace=100,chunks=100";

  async function replaced(one: Answer, other: Answer, url: string): Promise<void> {
    assert.equal((await ended(one)).status, "cancelled");
    assert.equal((await ended(other)).status, "completed");
    assert.equal((await report(url)).streams_begun, 2);
  }

  for (const scenario of failing("cancel")) {
    test(`where its name is not known yet: ${scenario}`, { timeout: 60_000 }, async () => {
      const { answer, url } = face(`lost-reply,${scenario},${LASTING}`, "unnamed");
      await until(answer, () => answer.state.is === "reconnecting");
      assert.equal(answer.id, undefined);
      await replaced(answer, answer.regenerate(), url);
    });
  }

  for (const scenario of failing("start")) {
    test(`where its name is known: ${scenario};skip=1`, { timeout: 60_000 }, async () => {
      const { answer, url } = face(`${scenario};skip=1,${LASTING}`, "named");
      await until(answer, () => answer.text !== "");
      await replaced(answer, answer.refine("Shorter"), url);
    });
  }

  test("where it was given up before its name was known", { timeout: 60_000 }, async () => {
    const { answer, url } = face(`lost-reply,status=401;on=start,${LASTING}`, "given-up");
    await assert.rejects(ended(answer), { status: 401 });
    await replaced(answer, answer.regenerate(), url);
  });
});

test("what was given up may have begun, and is not begun again", async () => {
  const told = face("lost-reply,status=401;on=start", "retried");
  await assert.rejects(ended(told.answer), { status: 401 });
  told.answer.retry();
  assert.equal((await ended(told.answer)).status, "completed");
  await assertWhole(told);
});

describe("a credential that ends is granted anew", { concurrency: true }, () => {
  for (const polled of [true, false]) {
    for (const fault of ["pace=0", "status=401;on=chunks", ...failing("grant")]) {
      const how = polled ? "polled" : "streaming";
      test(`${how}, with ${fault}`, { timeout: 60_000 }, async () => {
        const told = face(`${fault},expires=4`, how, giving("old", "fresh"));
        told.answer.usePolling(polled);
        assert.equal((await ended(told.answer, 40_000)).status, "completed");
        await assertWhole(told);
        const { requests } = await report(told.url);
        const grants = requests.filter(({ route }) => route === "grant");
        assert(grants.length > 0);
        assert(grants.every(({ authorization }) => authorization === "Bearer fresh"));
      });
    }
  }
});

describe("what cannot be helped", { concurrency: true }, () => {
  for (const [scenario, status] of [
    ["status=400;on=any;times=all", 400],
    ["status=401;on=any;times=all", 401],
    ["status=403;on=any;times=all", 403],
    ["cut=700,status=404;on=any;times=all", 404],
  ] as const) {
    test(scenario, { timeout: 60_000 }, async () => {
      const { answer, url } = face(scenario, "final");
      await assert.rejects(ended(answer), (error) => {
        assert(error instanceof SluiceError);
        assert.equal(error.status, status);
        return true;
      });
      assert.equal(answer.state.is, "given-up");
      const { text } = await report(url);
      assert((text ?? "").startsWith(answer.text));
      assert.equal(answer.text.length > 0, scenario.startsWith("cut"));
      assert.equal(answer.saved().text, answer.text);
    });
  }

  test("a stream that failed has its text, and says why", async () => {
    const told = face("closes=failed,cut=500");
    const closed = await ended(told.answer);
    assert.equal(closed.status, "failed");
    assert.equal(closed.error?.type, "urn:sluice:problem:provider-failed");
    await assertWhole(told);
  });

  test("a stream without an end is live for as long as it lasts", async () => {
    const told = face("no-end=100");
    await new Promise((resolve) => setTimeout(resolve, 3000));
    await assertWhole(told);
    assert.equal(told.answer.state.is, "live");
    told.answer.leave();
    await assert.rejects(told.answer.done);
  });

  test("too much was asked: it says until when, and goes on by itself", async () => {
    const { states } = await whole("status=429;retry-after=1", "limited");
    const limited = states.find((state) => state.is === "limited");
    assert.equal(limited?.problem.type, "urn:sluice:problem:limit-exceeded");
    assert(Math.abs(limited.until - Date.now()) < 30_000);
  });
});
