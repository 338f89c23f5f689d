import type { Credential } from "./types.js";

export interface Credentials {
  /** What to show now. */
  show(): Promise<string>;
  /** What to show instead of one that has ended; the same again where there is no other. */
  renew(ended: string): Promise<string>;
}

/** Asks for a credential once, however many want it, and again for one that has ended. */
export function credentials(from: Credential): Credentials {
  if (typeof from === "string") return { show: async () => from, renew: async () => from };
  const give = from;
  let asking: Promise<string> | undefined;

  function ask(): Promise<string> {
    const asked = (async () => give())();
    asked.catch(() => {
      if (asking === asked) asking = undefined; // it is asked again, not refused for ever
    });
    asking = asked;
    return asked;
  }

  return {
    show: () => asking ?? ask(),
    async renew(ended) {
      const before = asking;
      const held = before && (await before.catch(() => ended));
      if (held !== undefined && held !== ended) return held; // somebody was faster
      return asking && asking !== before ? asking : ask(); // or is just asking
    },
  };
}
