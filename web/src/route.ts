/** What the address names: an open stream, and a heading of its answer. */
export interface Route {
  stream?: string | undefined;
  heading?: string | undefined;
}

export function parseRoute(hash: string): Route {
  const [, stream, heading] = /^#\/s\/([0-9a-v]{32})(?:\/(.+))?$/.exec(hash) ?? [];
  return { stream, heading: heading && decoded(heading) };
}

export function routeTo({ stream, heading }: Route): string {
  if (!stream) return "#/";
  return `#/s/${stream}${heading ? `/${encodeURIComponent(heading)}` : ""}`;
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined; // cut in the midst of a character
  }
}
