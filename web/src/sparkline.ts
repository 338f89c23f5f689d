const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 40;
const BAR = WIDTH / 60;

/** Bars for the newest times between chunks, as high as the longest of them. */
export class Sparkline {
  readonly node = document.createElementNS(SVG, "svg");
  readonly #path = document.createElementNS(SVG, "path");

  constructor() {
    this.node.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.node.setAttribute("preserveAspectRatio", "none");
    this.node.setAttribute("class", "sparkline");
    this.node.setAttribute("aria-hidden", "true");
    this.node.append(this.#path);
  }

  show(gaps: readonly number[]): void {
    this.#path.setAttribute("d", bars(gaps));
  }
}

/** The path of the bars, from the right. */
export function bars(gaps: readonly number[]): string {
  const longest = Math.max(...gaps, 1);
  const from = WIDTH - gaps.length * BAR;
  return gaps
    .map((gap, index) => {
      const height = Math.max(1, (gap / longest) * HEIGHT);
      const x = from + index * BAR;
      return `M${x.toFixed(1)} ${HEIGHT}v-${height.toFixed(1)}h${BAR - 1}v${height.toFixed(1)}z`;
    })
    .join("");
}
