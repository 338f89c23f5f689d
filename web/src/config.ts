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

export async function loadConfig(): Promise<Config> {
  const reply = await fetch("config.json");
  if (!reply.ok) throw new Error(`config.json: ${reply.status}`);
  const { local = false, key = null, models = ["demo"], bodyHash = false } = await reply.json();
  return { local, key, models, bodyHash };
}
