// New text is marked by the highlights `fresh-0` to `fresh-3`, each paler than the one before: they change no node,
// so a selection, a screen reader and the next update notice nothing of them.
const STEPS = 4;
const STEP_MS = 120;

const highlights = Array.from({ length: "highlights" in CSS ? STEPS : 0 }, (_, i) => {
  const highlight = new Highlight();
  CSS.highlights.set(`fresh-${i}`, highlight);
  return highlight;
});
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let timer: ReturnType<typeof setInterval> | undefined;

/** Marks what is in `node` from `start` on, for half a second. */
export function markFresh(node: Text, start: number): void {
  const [first] = highlights;
  if (!first || calm.matches || node.data.trim() === "") return;
  const range = new StaticRange({
    startContainer: node,
    startOffset: start,
    endContainer: node,
    endOffset: node.length,
  });
  first.add(range);
  timer ??= setInterval(fade, STEP_MS);
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
