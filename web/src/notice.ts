const SHOWN_MS = 6000;

/** A word on what was asked for and could not be done; it goes by itself. */
export class Notice {
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly host: HTMLElement) {}

  show(text: string): void {
    clearTimeout(this.#timer);
    this.host.textContent = text;
    this.host.hidden = false;
    this.#timer = setTimeout(() => {
      this.host.hidden = true;
    }, SHOWN_MS);
  }
}
