import { element } from "./element";
import { groups, type Measured } from "./local-run";

const WAIT_MS = 5000;

/** The figures of all answers since the local run's start, as its server has measured them. */
export class LocalRunView {
  readonly #body = element("div");
  readonly node = element(
    "details",
    { className: "local-run" },
    element("summary", {}, element("h3", { textContent: "This local run" })),
    element("p", {
      className: "small",
      textContent: "All answers since its start; ≈ is the median.",
    }),
    this.#body,
  );

  constructor() {
    this.node.addEventListener("toggle", () => void this.refresh());
  }

  /** Show them as they are now, where somebody looks. */
  async refresh(): Promise<void> {
    if (!this.node.open) return;
    try {
      this.#show(await measured());
    } catch {
      // They are shown as they were; that the server has gone is told elsewhere.
    }
  }

  #show(measured: Measured): void {
    this.#body.replaceChildren(
      ...groups(measured).flatMap(({ title, rows }) => [
        element("h4", { textContent: title }),
        element(
          "dl",
          {},
          ...rows.map(([label, said]) =>
            element(
              "div",
              {},
              element("dt", { textContent: label }),
              element("dd", { textContent: said }),
            ),
          ),
        ),
      ]),
    );
  }
}

async function measured(): Promise<Measured> {
  const headers = { Accept: "application/json" };
  const reply = await fetch("metrics", { headers, signal: AbortSignal.timeout(WAIT_MS) });
  if (!reply.ok) throw new Error(`${reply.status}`);
  return reply.json();
}
