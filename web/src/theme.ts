export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

export function applyTheme(theme: string | undefined): void {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

export function nextTheme(theme: string | undefined): Theme {
  const at = THEMES.indexOf(theme as Theme);
  return THEMES[(Math.max(at, 0) + 1) % THEMES.length] ?? "system";
}
