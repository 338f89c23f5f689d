/** The servers that the client is tried on, each a process of its own. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import {
  type Answer,
  type Closed,
  type Credential,
  Sluice,
  type StartRequest,
} from "sluice-client";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

export interface Served {
  url: string;
  stop(): Promise<void>;
}

/** The local run: on a database that goes with it, or on this file. */
export async function localRun(file?: string): Promise<Served> {
  const where = file === undefined ? ["--ephemeral"] : ["--db", file];
  const child = run(".venv/bin/sluice", "dev", "--port", "0", ...where);
  const ready = await line(child, (said) => said.includes("Sluice is ready"));
  const url = /http:[^ ]+:\d+/.exec(ready)?.[0] as string;
  return { url, stop: () => stop(child) };
}

/** A key of the local run on this file, which expires in a minute. To be made before it runs. */
export async function shortLivedKey(file: string): Promise<string> {
  const child = run(".venv/bin/sluice", "key", "add", "demo", "--db", file, "--expires", "1m");
  return line(child, (said) => /^\S{20,}$/.test(said));
}

/** The hostile server: `tests/clients/hostile/language.py` has the words of its scenarios. */
export async function hostile(): Promise<Served> {
  const child = run(".venv/bin/python", "-m", "tests.clients.hostile");
  const url = await line(child, (said) => said.startsWith("http"));
  return { url, stop: () => stop(child) };
}

/** What the hostile server tells of a scenario. */
export interface Report {
  streams_begun: number;
  text: string;
  closed: boolean;
  requests: {
    method: string;
    target: string;
    route: string;
    at_ms: number;
    idempotency_key: string | null;
    authorization: string | null;
    status: number | null;
    ended: string;
  }[];
}

export async function report(url: string): Promise<Report> {
  return (await (await fetch(`${url}/_report`)).json()) as Report;
}

export const HELLO: StartRequest = {
  model: "demo",
  messages: [{ role: "user", content: "Hello" }],
};

export function asking(model: string): StartRequest {
  return { ...HELLO, model };
}

export function client(url: string, credential: Credential = "demo"): Sluice {
  return new Sluice({ url, credential });
}

/** Gives these, one each time that it is asked, and then the last. */
export function giving(...keys: string[]): () => string {
  return () => (keys.length > 1 ? keys.shift() : keys[0]) as string;
}

/** How an answer ended; it is left behind where that takes too long, so that no test hangs. */
export async function ended(answer: Answer, withinMs = 60_000): Promise<Closed> {
  const timer = setTimeout(() => answer.leave(), withinMs);
  try {
    return await answer.done;
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when an answer is as wanted; rejects where it is over before. */
export async function until(answer: Answer, wanted: () => boolean): Promise<void> {
  if (wanted()) return;
  await new Promise<void>((resolve, reject) => {
    const stop = answer.on(() => {
      if (!wanted()) return;
      stop();
      resolve();
    });
    const over = () => (wanted() ? resolve() : reject(new Error(`over: ${answer.state.is}`)));
    answer.done.then(over, over);
  });
}

function run(command: string, ...args: string[]): ChildProcess {
  return spawn(command, args, { cwd: ROOT, stdio: ["pipe", "pipe", "inherit"] });
}

/** The first line that is meant. What comes after it is read and dropped. */
async function line(child: ChildProcess, wanted: (said: string) => boolean): Promise<string> {
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  return new Promise((resolve, reject) => {
    lines.on("line", (said) => wanted(said) && resolve(said));
    child.once("exit", () => reject(new Error("the server did not come up")));
  });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exit = once(child, "exit");
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await exit;
  clearTimeout(timer);
}
