import { copyText } from "../clipboard";

const COPIED_MS = 2000;

/** Gives each code its head, with the language and a button to copy it, and lets wide tables scroll. */
export function furnish(fragment: DocumentFragment): void {
  for (const pre of fragment.querySelectorAll("pre")) {
    pre.tabIndex = 0;
    wrap(pre, "code").prepend(head(pre.dataset.language ?? ""));
  }
  for (const table of fragment.querySelectorAll("table")) wrap(table, "table").tabIndex = 0;
}

/** Copies the code whose button was pressed; to be called with each click in an answer. */
export async function copy(target: EventTarget | null): Promise<void> {
  const button =
    target instanceof Element ? target.closest<HTMLElement>(".code-head button") : null;
  const code = button?.closest(".code")?.querySelector("code");
  const status = button?.parentElement?.querySelector("[role=status]");
  if (!code || !status) return;
  status.textContent = (await copyText(code.textContent)) ? "Copied" : "Not copied";
  setTimeout(() => {
    status.textContent = "";
  }, COPIED_MS);
}

function wrap(element: HTMLElement, name: string): HTMLElement {
  const wrapper = make("div", name);
  element.replaceWith(wrapper);
  wrapper.append(element);
  return wrapper;
}

function head(language: string): HTMLElement {
  const status = make("span", "code-status");
  status.role = "status";
  const button = make("button", "code-copy", "Copy");
  button.setAttribute("type", "button");
  button.ariaLabel = language ? `Copy the code in ${language}` : "Copy the code";
  const made = make("div", "code-head");
  made.append(make("span", "code-language", language || "text"), status, button);
  return made;
}

function make(tag: string, name: string, text = ""): HTMLElement {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}
