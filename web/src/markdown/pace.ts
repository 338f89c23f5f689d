// What takes longer than this is done at most half of the time, so that a page with a huge block stays responsive.
const SHORT_MS = 12;
// Where no frames are drawn, as in a hidden tab, the answer goes on all the same.
const HIDDEN_MS = 1000;

/** Runs a piece of work in an animation frame, and the later the longer it took the last time, with layout. */
export class Pace {
  readonly #work: () => void;
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #due = false;
  /** From the work's beginning until it is known how long it took. */
  #measuring = false;
  #next = 0;

  constructor(work: () => void) {
    this.#work = work;
  }

  /** Asks for the work to be done; once, however often it is asked. */
  request(): void {
    if (this.#due) return;
    this.#due = true;
    if (!this.#measuring) this.#rest();
  }

  cancel(): void {
    this.#due = false;
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
  }

  #rest(): void {
    const wait = this.#next - performance.now();
    if (wait > 0) this.#timer = setTimeout(() => this.#await(), wait);
    else this.#await();
  }

  #await(): void {
    this.#frame = requestAnimationFrame(() => this.#run());
    this.#timer = setTimeout(() => this.#run(), HIDDEN_MS);
  }

  #run(): void {
    this.cancel();
    const start = performance.now();
    this.#measuring = true;
    // Behind the frame, which lays out and paints what has changed; and whatever becomes of the work.
    setTimeout(() => {
      const end = performance.now();
      // In a hidden tab nothing is painted, and the timer itself is late.
      const took = document.hidden ? 0 : end - start;
      this.#next = took > SHORT_MS ? end + took : end;
      this.#measuring = false;
      if (this.#due) this.#rest();
    });
    this.#work();
  }
}
