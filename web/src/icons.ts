const SVG = "http://www.w3.org/2000/svg";

/** Paths in a box of 24 by 24, drawn with a stroke. */
const PATHS = {
  arrowDown: "M12 5v14M6 13l6 6 6-6",
  arrowUp: "M12 19V5M6 11l6-6 6 6",
  branch: "M7 5v6a4 4 0 0 0 4 4h7M14 11l4 4-4 4",
  chart: "M4 20V11M10 20V4M16 20v-6M21 20H3",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  cut: "M4 12h5M15 12h5M10 8l4 8",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  key: "M14.5 9.5a4 4 0 1 1-3.5-3.97A4 4 0 0 1 14.5 9.5zM13.5 12.5L20 19M17 16l2-2",
  keyboard: "M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8",
  menu: "M4 7h16M4 12h16M4 17h10",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  pause: "M9 6v12M15 6v12",
  play: "M8 5.5v13l10.5-6.5z",
  plus: "M12 5v14M5 12h14",
  poll: "M4 8h13M14 5l3 3-3 3M20 16H7M10 13l-3 3 3 3",
  repeat: "M19 7v4h-4M5 17v-4h4M18.5 11A7 7 0 0 0 6.5 8.5M5.5 13a7 7 0 0 0 12 2.5",
  seam: "M4 12h4l2-5 4 10 2-5h4",
  skull: "M6 14a7 7 0 1 1 12 0v2h-3v3H9v-3H6zM9.5 11h.01M14.5 11h.01",
  stop: "M7 7h10v10H7z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
} as const;

export type Icon = keyof typeof PATHS;

export function icon(name: Icon): SVGSVGElement {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("viewBox", "0 0 24 24");
  made.setAttribute("class", `icon icon-${name}`);
  made.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  made.append(path);
  return made;
}
