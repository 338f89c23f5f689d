import { Sluice } from "sluice-client";
import { App } from "./app";
import { loadConfig } from "./config";
import { askForKey } from "./dialogs";
import { part } from "./element";
import { Memory } from "./storage";

async function begin(): Promise<void> {
  const memory = new Memory();
  const config = await loadConfig();
  let asking = false;

  async function signIn(why: string): Promise<void> {
    if (asking) return;
    asking = true;
    const { key, remember } = await askForKey(why);
    memory.keepKey(key, remember);
    location.reload();
  }

  const key = config.key ?? memory.key;
  if (key === undefined) return signIn("You need a key to ask. It stays in this browser.");
  new App({
    config,
    memory,
    sluice: new Sluice({ credential: key, bodyHash: config.bodyHash }),
    signIn: (why) => void signIn(why),
    signOut: config.key === null ? () => signOut(memory) : undefined,
    kill: (stream) => kill(stream, key),
  }).begin();
}

function signOut(memory: Memory): void {
  memory.forgetKey();
  memory.running = undefined;
  location.replace("#/");
  location.reload();
}

async function kill(stream: string, key: string): Promise<void> {
  const headers = { Authorization: `Bearer ${key}` };
  const reply = await fetch(`local/streams/${stream}/kill`, { method: "POST", headers });
  if (!reply.ok) throw new Error("No producer of this stream runs here.");
}

begin().catch((error) => {
  part("state").textContent = `The page could not begin: ${error.message}. Reload it to try again.`;
});
