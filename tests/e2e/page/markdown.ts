// The view alone, in a page of its own, for the tests to drive.
import { MarkdownView } from "../../../web/src/markdown";
import { ANSWERS } from "../../web/markdown.corpus";

const main = document.querySelector("main");
if (!main) throw new Error("the page has no main");

const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));

const options = { idPrefix: "answer-", hrefOf: (slug: string) => `#/answer/${slug}` };

/** An empty view in the page, the only one. */
function fresh(): MarkdownView {
  const host = document.createElement("section");
  main?.replaceChildren(host);
  return new MarkdownView(host, options);
}

/** Until a view has shown all that came. */
async function settled(view: MarkdownView): Promise<void> {
  while (!view.settled) await frame();
}

/** `tasks`: ms of each task over 50 ms that began later than a second after the start. */
interface Poured {
  tasks: number[];
  renders: number;
  took: number;
  /** Nodes put into the page in all, and those in it at the end. */
  added: number;
  nodes: number;
}

function count(node: Node): number {
  return [...node.childNodes].reduce((sum, child) => sum + count(child), 1);
}

const html = () => main.firstElementChild?.innerHTML ?? "";

const page = {
  answers: ANSWERS,
  violations: [] as string[],
  tasks: [] as { start: number; duration: number }[],
  frame,
  fresh,
  settled,
  html,

  /** What an answer looks like that comes at once. */
  async whole(text: string): Promise<string> {
    const view = fresh();
    view.reset(text);
    view.finish();
    if (text.length > 2000) await settled(view);
    return html();
  },

  /** What it looks like once it has come in these pieces, each shown before the next one comes. */
  async streamed(pieces: string[]): Promise<string> {
    const view = fresh();
    for (const piece of pieces) {
      const shown = new Promise<void>((resolve) => {
        view.onchange = resolve;
      });
      view.append(piece);
      await shown;
    }
    view.finish();
    return html();
  },

  /** Lets these come, one in `every` ms, or one with each frame where that is 0. */
  async pour(pieces: string[], every: number): Promise<Poured> {
    const view = fresh();
    let renders = 0;
    let added = 0;
    const watch = new MutationObserver((records) => {
      for (const { addedNodes } of records) for (const node of addedNodes) added += count(node);
    });
    watch.observe(main, { childList: true, subtree: true });
    await new Promise((resolve) => setTimeout(resolve, 200));
    view.onchange = () => renders++;
    const start = performance.now();
    for (let at = 0; at < pieces.length; ) {
      const due = every ? Math.ceil((performance.now() - start) / every) : at + 1;
      while (at < Math.min(due, pieces.length)) view.append(pieces[at++] ?? "");
      await (every ? new Promise((resolve) => setTimeout(resolve)) : frame());
    }
    view.finish();
    await settled(view);
    const took = performance.now() - start;
    const tasks = page.tasks.filter((task) => task.start > start + 1000);
    watch.disconnect();
    return {
      tasks: tasks.map(({ duration }) => Math.round(duration)),
      renders,
      took: Math.round(took),
      added,
      nodes: count(main),
    };
  },

  /** Shows each of these texts in a view of its own, a character more with each frame. Returns what must not be. */
  async typed(texts: string[]): Promise<string[]> {
    const views = texts.map(() => {
      const host = document.createElement("section");
      main.append(host);
      return new MarkdownView(host, options);
    });
    const found = new Set<string>();
    const longest = Math.max(...texts.map((text) => text.length));
    for (let at = 0; at <= longest; at++) {
      for (const [i, view] of views.entries()) {
        if (at < (texts[i]?.length ?? 0)) view.append(texts[i]?.[at] ?? "");
        else view.finish();
      }
      await frame();
      for (const offence of page.unexpected()) found.add(offence);
    }
    main.replaceChildren();
    return [...found];
  },

  /** Elements and attributes that nothing an answer says may lead to. */
  unexpected(): string[] {
    const tags =
      /^(section|a|blockquote|br|button|code|div|em|h[1-6]|hr|li|ol|p|pre|s|span|strong|table|tbody|td|th|thead|tr|ul)$/;
    const attributes =
      /^(aria-hidden|aria-label|class|data-align|data-language|dir|href|id|rel|role|start|tabindex|target|title|type)$/;
    return [...main.querySelectorAll("*")].flatMap((element) => {
      const { localName } = element;
      const bad = [...element.attributes].filter(({ name, value }) => {
        if (name === "href") return !/^(https?:\/\/|mailto:|#\/answer\/)/i.test(value);
        if (name === "id") return !value.startsWith("answer-");
        return !attributes.test(name);
      });
      const loose =
        element.matches("a[href]:not(.anchor)") &&
        !/noopener.*noreferrer/.test((element as HTMLAnchorElement).rel);
      return [
        ...(tags.test(localName) ? [] : [`<${localName}>`]),
        ...bad.map(({ name, value }) => `${localName} ${name}=${value}`),
        ...(loose ? [`${element.outerHTML}`] : []),
      ];
    });
  },
};
declare global {
  interface Window {
    page: typeof page;
  }
}
window.page = page;

document.addEventListener("securitypolicyviolation", (event) => {
  page.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
new PerformanceObserver((list) => {
  for (const { startTime, duration } of list.getEntries())
    page.tasks.push({ start: startTime, duration });
}).observe({ type: "longtask" });
