// New text is marked by the highlights `fresh-0` to `fresh-3`, each paler than the one before: they change no node,
// so a selection, a screen reader and the next update notice nothing of them.
const STEPS = 4;
const STEP_MS = 120;
const MOST = 1000;

const highlights = Array.from({ length: "highlights" in CSS ? STEPS : 0 }, (_, i) => {
  const highlight = new Highlight();
  CSS.highlights.set(`fresh-${i}`, highlight);
  return highlight;
});
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let timer: ReturnType<typeof setInterval> | undefined;

/** Gathers the text that one render adds, to mark it for half a second. */
export class Fresh {
  #start: { node: Text; offset: number } | undefined;
  #end: Text | undefined;
  #length = 0;

  add(node: Text, offset: number): void {
    if (node.data.trim() === "") return;
    this.#start ??= { node, offset };
    this.#end = node;
    this.#length += node.length - offset;
  }

  /** Marks it, as one range: many are slow to paint. So is a lot of text, which nobody reads as it comes. */
  mark(): void {
    const [first] = highlights;
    if (!first || !this.#start || !this.#end || this.#length > MOST || calm.matches) return;
    const { node: startContainer, offset: startOffset } = this.#start;
    const end = { endContainer: this.#end, endOffset: this.#end.length };
    first.add(new StaticRange({ startContainer, startOffset, ...end }));
    timer ??= setInterval(fade, STEP_MS);
  }
}

function fade(): void {
  for (let i = STEPS - 1; i >= 0; i--) {
    const from = highlights[i];
    for (const range of from ?? []) {
      from?.delete(range);
      highlights[i + 1]?.add(range);
    }
  }
  if (highlights.some(({ size }) => size > 0)) return;
  clearInterval(timer);
  timer = undefined;
}
