import type { AnswerEvent } from "sluice-client";
import { element } from "./element";
import { icon } from "./icons";

type Epoch = Extract<AnswerEvent, { type: "epoch" }>;

const HOW = {
  prefill: "It completes the sentence it found.",
  prompt: "It was asked to go on from here, so it may repeat some words or change its tone.",
  replay: "It says the same again, and what was there already is skipped.",
} as const;

/** What a seam means, for people. `resumed`: it was paused before, and nothing went wrong. */
export function explanation(epoch: Epoch, resumed: boolean): string {
  const why = resumed
    ? `The answer was paused here, and producer ${epoch.epoch} goes on.`
    : `The producer was lost here, and number ${epoch.epoch} took over. No text was lost.`;
  return [why, epoch.continuation && HOW[epoch.continuation]].filter(Boolean).join(" ");
}

/** Marks in an answer where another producer went on. Each keeps its place as the text flows anew. */
export class Seams {
  readonly #marks: { mark: HTMLElement; block: number; height: number }[] = [];

  constructor(
    private readonly host: HTMLElement,
    private readonly text: HTMLElement,
  ) {
    new ResizeObserver(() => this.#place()).observe(text);
  }

  /** Mark the end of the text as it is now. */
  mark(epoch: Epoch, resumed: boolean): void {
    const block = this.text.querySelectorAll(":scope > :not(.cursor)").length - 1;
    const height = this.#block(block)?.offsetHeight ?? 0;
    const mark = element(
      "details",
      { className: "seam" },
      element(
        "summary",
        { title: "Another producer went on here" },
        icon("seam"),
        `Producer ${epoch.epoch}`,
      ),
      element("p", { textContent: explanation(epoch, resumed) }),
    );
    this.#marks.push({ mark, block, height });
    this.host.append(mark);
    this.#place();
  }

  /** By its block, which stays the same as text follows: what lies above may become higher. */
  #place(): void {
    for (const { mark, block, height } of this.#marks) {
      const found = this.#block(block);
      const top = found ? found.offsetTop + Math.min(height, found.offsetHeight) : 0;
      mark.style.setProperty("--seam-top", `${top}px`);
    }
  }

  #block(index: number): HTMLElement | undefined {
    const found = this.text.children[index];
    return found instanceof HTMLElement ? found : undefined;
  }
}
