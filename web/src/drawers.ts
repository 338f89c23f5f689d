import { part } from "./element";
import { icon } from "./icons";
import type { Memory } from "./storage";

/** Wide enough for the sidebar, and for the panel beside it. */
const SIDEBAR_FITS = matchMedia("(min-width: 56rem)");
const PANEL_FITS = matchMedia("(min-width: 75rem)");

/** The history and the panel: columns where there is room, else drawers over the page. */
export class Drawers {
  readonly #sidebar = part("sidebar");
  readonly #panel = part("panel");
  readonly #scrim = part("scrim");
  readonly #sidebarOpen = part<HTMLButtonElement>("sidebar-open");
  readonly #panelToggle = part<HTMLButtonElement>("panel-toggle");

  constructor(private readonly memory: Memory) {
    const close = part<HTMLButtonElement>("sidebar-close");
    close.append(icon("close"));
    this.#sidebarOpen.append(icon("menu"));
    this.#panelToggle.append(icon("chart"));
    this.#sidebarOpen.addEventListener("click", () => this.toggleSidebar());
    close.addEventListener("click", () => this.close());
    this.#panelToggle.addEventListener("click", () => this.togglePanel());
    this.#scrim.addEventListener("click", () => this.close());
    for (const fits of [SIDEBAR_FITS, PANEL_FITS])
      fits.addEventListener("change", () => this.#settle());
    this.#settle();
  }

  toggleSidebar(): void {
    if (SIDEBAR_FITS.matches) part("new").focus();
    else this.#open(this.#sidebar, !this.#isOpen(this.#sidebar));
  }

  togglePanel(): void {
    const open = !this.#isOpen(this.#panel);
    if (PANEL_FITS.matches) this.memory.set("panel", open ? undefined : "closed");
    this.#open(this.#panel, open);
  }

  /** Close what lies over the page; false: nothing did. */
  close(): boolean {
    const over = this.#over();
    for (const drawer of over) this.#open(drawer, false);
    return over.length > 0;
  }

  #settle(): void {
    this.#open(this.#sidebar, SIDEBAR_FITS.matches);
    this.#open(this.#panel, PANEL_FITS.matches && this.memory.get("panel") !== "closed");
  }

  #open(drawer: HTMLElement, open: boolean): void {
    const had = drawer.contains(document.activeElement);
    drawer.classList.toggle("open", open);
    // Out of sight is out of reach, too.
    drawer.inert = !open;
    this.#sidebarOpen.ariaExpanded = String(this.#isOpen(this.#sidebar));
    this.#panelToggle.ariaExpanded = String(this.#isOpen(this.#panel));
    const over = this.#over();
    this.#scrim.hidden = !over.length;
    part("main").inert = over.length > 0;
    const opener = drawer === this.#sidebar ? this.#sidebarOpen : this.#panelToggle;
    if (open && over.includes(drawer)) drawer.querySelector<HTMLElement>("button, a")?.focus();
    else if (!open && had) opener.focus();
  }

  #over(): HTMLElement[] {
    return [
      ...(SIDEBAR_FITS.matches ? [] : [this.#sidebar]),
      ...(PANEL_FITS.matches ? [] : [this.#panel]),
    ].filter((drawer) => this.#isOpen(drawer));
  }

  #isOpen(drawer: HTMLElement): boolean {
    return drawer.classList.contains("open");
  }
}
