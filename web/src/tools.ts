import { element } from "./element";
import { type Icon, icon } from "./icons";
import type { Memory } from "./storage";
import { applyTheme, nextTheme, type Theme } from "./theme";

const THEME_ICONS: Record<Theme, Icon> = { system: "system", light: "sun", dark: "moon" };

/** The small buttons below the history. */
export function showTools(
  host: HTMLElement,
  memory: Memory,
  listShortcuts: () => void,
  signOut: (() => void) | undefined,
): void {
  host.replaceChildren(themeButton(memory), tool("keyboard", "Keyboard shortcuts", listShortcuts));
  if (signOut) host.append(tool("key", "Sign out", signOut));
}

function themeButton(memory: Memory): HTMLElement {
  const button = tool("system", "", () => {
    const theme = nextTheme(memory.get("theme"));
    memory.set("theme", theme === "system" ? undefined : theme);
    applyTheme(theme);
    show();
  });
  const show = () => {
    const theme = (memory.get("theme") ?? "system") as Theme;
    button.replaceChildren(icon(THEME_ICONS[theme] ?? "system"));
    button.title = button.ariaLabel = `Colours: ${theme}`;
  };
  show();
  return button;
}

function tool(name: Icon, label: string, does: () => void): HTMLButtonElement {
  const button = element(
    "button",
    { type: "button", className: "icon-button", title: label, ariaLabel: label },
    icon(name),
  );
  button.addEventListener("click", does);
  return button;
}
