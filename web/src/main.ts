import { Sluice } from "sluice-client";
import { App } from "./app";
import { loadConfig } from "./config";
import { askForKey } from "./dialogs";
import { part } from "./element";
import { Memory } from "./storage";

async function begin(): Promise<void> {
  const memory = new Memory();
  const config = await loadConfig();
  let key = config.key ?? memory.key;
  let asking = false;
  let app: App | undefined;

  async function signIn(why: string): Promise<boolean> {
    if (asking) return false;
    asking = true;
    const given = await askForKey(why);
    asking = false;
    key = given.key;
    memory.keepKey(key, given.remember);
    return true;
  }

  function signOut(): void {
    memory.forgetKey();
    history.replaceState(null, "", "#/");
    beginAnew();
  }

  function beginAnew(): void {
    app?.clear(); // a page that goes keeps what is shown for the next one
    location.reload();
  }

  /** Another tab may have signed out, or somebody else in, while this page was here or put by. */
  function checkKey(): void {
    if (config.key === null && memory.key !== key) beginAnew();
  }
  addEventListener("storage", checkKey);
  addEventListener("pageshow", ({ persisted }) => persisted && checkKey());

  if (key === undefined) await signIn("You need a key to ask. It stays in this browser.");
  app = new App({
    config,
    memory,
    sluice: new Sluice({ credential: () => key ?? "", bodyHash: config.bodyHash }),
    signIn,
    signOut: config.key === null ? signOut : undefined,
    kill: (stream) => kill(stream, key ?? ""),
  });
  app.begin();
}

async function kill(stream: string, key: string): Promise<void> {
  const headers = { Authorization: `Bearer ${key}` };
  const reply = await fetch(`local/streams/${stream}/kill`, { method: "POST", headers });
  if (!reply.ok) throw new Error("No producer of this stream runs here.");
}

begin().catch((error) => {
  part("state").textContent = `The page could not begin. ${error.message} Reload it to try again.`;
});
