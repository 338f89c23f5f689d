/** What the browser tells of the network and of its tab. */
export interface Surroundings {
  online(): void;
  offline(): void;
  /** The tab is looked at again, maybe after a sleep. */
  shown(): void;
}

/** Listen; returns what ends that. Outside of a browser nothing is told. */
export function watchSurroundings(tell: Surroundings): () => void {
  const shown = () => {
    if (globalThis.document?.visibilityState !== "hidden") tell.shown();
  };
  const listening: [EventTarget | undefined, string, () => void][] = [
    [globalThis as unknown as EventTarget, "online", tell.online],
    [globalThis as unknown as EventTarget, "offline", tell.offline],
    [globalThis as unknown as EventTarget, "pageshow", shown],
    [globalThis.document, "visibilitychange", shown],
  ];
  for (const [target, name, listener] of listening) target?.addEventListener?.(name, listener);
  return () => {
    for (const [target, name, listener] of listening) target?.removeEventListener?.(name, listener);
  };
}

export function isOffline(): boolean {
  return globalThis.navigator?.onLine === false;
}
