/** What `config.json` says of the server that the page comes from. */
export interface Config {
  /** Whether this is a local run, where a producer can be killed. */
  local: boolean;
  /** The key to use; null: the reader has one. */
  key: string | null;
  models: string[];
  /** Whether requests need the hash of their body, as behind a closed CloudFront origin. */
  bodyHash: boolean;
}

const WAIT_MS = 20_000;

/** Throws an `Error` in words for people. */
export async function loadConfig(): Promise<Config> {
  let text: string;
  try {
    const signal = AbortSignal.timeout(WAIT_MS);
    const reply = await fetch("config.json", { cache: "no-cache", signal });
    if (!reply.ok) throw new Error(`${reply.status}`);
    text = await reply.text();
  } catch (error) {
    throw new Error("The server does not answer as it should.", { cause: error });
  }
  return parseConfig(text);
}

/** Throws an `Error` in words for people, where it is something else: a network answers for the server. */
export function parseConfig(text: string): Config {
  try {
    const { local = false, key = null, models = ["demo"], bodyHash = false } = JSON.parse(text);
    if (isConfig({ local, key, models, bodyHash })) return { local, key, models, bodyHash };
  } catch {
    // No JSON, or no object.
  }
  throw new Error("Something else than the server answered. Does this network want a sign-in?");
}

function isConfig({ local, key, models, bodyHash }: Record<keyof Config, unknown>): boolean {
  return (
    typeof local === "boolean" &&
    typeof bodyHash === "boolean" &&
    (key === null || typeof key === "string") &&
    Array.isArray(models) &&
    models.length > 0 &&
    models.every((model) => typeof model === "string")
  );
}
