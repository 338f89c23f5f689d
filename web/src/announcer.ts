/** Says to screen readers what happens to an answer; never its text, which they read when they like. */
export class Announcer {
  #last = Number.NEGATIVE_INFINITY;
  #waiting: string | undefined;

  constructor(
    private readonly region: HTMLElement,
    /** The least time between two announcements, in ms. Of those that wait only the newest is said. */
    private readonly apart = 2500,
  ) {}

  say(text: string): void {
    const due = this.#last + this.apart - performance.now();
    if (due > 0 && this.#waiting === undefined) {
      setTimeout(() => this.#speak(this.#waiting ?? ""), due);
    }
    if (due > 0) this.#waiting = text;
    else this.#speak(text);
  }

  #speak(text: string): void {
    this.#waiting = undefined;
    this.#last = performance.now();
    this.region.textContent = text;
  }
}
