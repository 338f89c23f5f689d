import { element } from "./element";
import { icon } from "./icons";

/** A modal dialog; the browser keeps the focus within it and closes it by Escape. */
export function dialog(title: string, ...content: (Node | string)[]): HTMLDialogElement {
  const heading = element("h2", { textContent: title, id: "dialog-title" });
  const made = element(
    "dialog",
    { className: "dialog", attributes: { "aria-labelledby": "dialog-title" } },
    heading,
    ...content,
  );
  made.addEventListener("close", () => made.remove());
  document.body.append(made);
  made.showModal();
  return made;
}

/** Ask before what cannot be undone. */
export function confirmed(title: string, text: string, yes: string): Promise<boolean> {
  return new Promise((resolve) => {
    const no = element("button", { type: "button", className: "button", textContent: "Keep it" });
    const go = element("button", { type: "button", className: "button danger", textContent: yes });
    const made = dialog(
      title,
      element("p", { textContent: text, attributes: { dir: "auto" } }),
      element("div", { className: "dialog-buttons" }, no, go),
    );
    no.addEventListener("click", () => made.close());
    go.addEventListener("click", () => made.close("yes"));
    made.addEventListener("close", () => resolve(made.returnValue === "yes"));
  });
}

export interface GivenKey {
  key: string;
  remember: boolean;
}

/** Ask for a key. Resolves once the reader has given one; it is not to be done without. */
export async function askForKey(why: string): Promise<GivenKey> {
  while (true) {
    const given = await keyGiven(why);
    if (given) return given;
  }
}

/** What the reader gives; undefined where the dialog was closed, which a browser does not let a page prevent twice. */
function keyGiven(why: string): Promise<GivenKey | undefined> {
  return new Promise((resolve) => {
    const key = element("input", {
      type: "password",
      id: "key",
      name: "key",
      required: true,
      // What a header can carry: with anything else no request would be sent.
      pattern: "\\s*[!-~]+\\s*",
      title: "Letters, digits and signs, without a space",
      autocomplete: "current-password",
      spellcheck: false,
    });
    const remember = element("input", { type: "checkbox", id: "remember" });
    const form = element(
      "form",
      { method: "dialog", className: "key-form" },
      element("p", { textContent: why }),
      element("label", { htmlFor: "key", textContent: "Key" }),
      key,
      element(
        "label",
        { className: "check", htmlFor: "remember" },
        remember,
        "Remember on this device",
      ),
      element("p", {
        className: "small",
        textContent: "Else it is forgotten when this tab is closed.",
      }),
      element("button", { className: "button primary", type: "submit" }, icon("key"), "Sign in"),
    );
    const made = dialog("Your key", form);
    made.addEventListener("close", () => resolve(undefined));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      resolve({ key: key.value.trim(), remember: remember.checked });
      made.close();
    });
  });
}
