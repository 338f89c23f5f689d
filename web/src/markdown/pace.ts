// What takes longer than this is done at most a quarter of the time, so that a page with a huge block stays responsive.
const SHORT_MS = 12;
const REST = 3;
// Where no frames are drawn, as in a hidden tab, the answer goes on all the same.
const HIDDEN_MS = 1000;

/** Runs a piece of work in an animation frame, and the later the longer it took the last time, with layout. */
export class Pace {
  readonly #work: () => void;
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #due = false;
  #next = 0;

  constructor(work: () => void) {
    this.#work = work;
  }

  /** Asks for the work to be done; once, however often it is asked. */
  request(): void {
    if (this.#due) return;
    this.#due = true;
    const wait = this.#next - performance.now();
    if (wait > 0) this.#timer = setTimeout(() => this.#await(), wait);
    else this.#await();
  }

  cancel(): void {
    this.#due = false;
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
  }

  #await(): void {
    this.#frame = requestAnimationFrame(() => this.#run());
    this.#timer = setTimeout(() => this.#run(), HIDDEN_MS);
  }

  #run(): void {
    this.cancel();
    const start = performance.now();
    this.#next = Number.POSITIVE_INFINITY;
    this.#work();
    // Behind the frame, which lays out and paints what has changed.
    setTimeout(() => {
      const end = performance.now();
      const took = end - start;
      this.#next = took > SHORT_MS ? end + REST * took : end;
    });
  }
}
