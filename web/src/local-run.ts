import { duration, whole } from "./wording";

/** How many values are in each bucket, up to its bound; the last one has none. */
export interface Distribution {
  bounds: number[];
  counts: number[];
}

type Told = number | Distribution | undefined;

/** What a local run has measured since its start, by the names of its metrics. Times are in ms. */
export type Measured = Record<string, Told>;

export interface Group {
  title: string;
  /** Each a label and its figure. */
  rows: [string, string][];
}

type Say = (told: Told) => string | undefined;

const count: Say = (told) => whole(typeof told === "number" ? told : 0);
const ifAny: Say = (told) => (told ? count(told) : undefined);
const median =
  (say: (value: number) => string): Say =>
  (told) =>
    typeof told === "object" ? quantile(told, 0.5, say) : undefined;
const longest: Say = (told) => (typeof told === "object" ? mostOf(told, duration) : undefined);

/** What a reader feels, or can bring about. A count stands there at 0 only where it can be tried. */
const SHOWN: [title: string, rows: [label: string, metric: string, say: Say][]][] = [
  [
    "Answers",
    [
      ["Complete", "AnswersCompleted", count],
      ["Stopped", "AnswersCancelled", ifAny],
      ["Failed", "AnswersFailed", ifAny],
    ],
  ],
  [
    "A typical answer",
    [
      ["First token", "TimeToFirstToken", median(duration)],
      ["First chunk", "TimeToFirstChunk", median(duration)],
      ["Tokens a second", "TokensPerSecond", median(whole)],
      ["Gap, median", "GapP50", median(duration)],
      ["Gap, p99", "GapP99", median(duration)],
    ],
  ],
  [
    "Connections",
    [
      ["Streamed", "Connections", count],
      ["Resumed", "Resumed", count],
      ["Interrupted", "Interrupted", count],
      ["Polls", "Polls", count],
      ["Behind the log, median", "LagP50", median(duration)],
      ["Behind the log, longest", "LagMax", longest],
    ],
  ],
  [
    "Producers",
    [
      ["Taken over", "TakenOver", count],
      ["Handed over", "HandedOver", ifAny],
    ],
  ],
  [
    "Rules",
    [
      ["Requests refused", "Refusals", ifAny],
      ["Values redacted", "Redactions", ifAny],
    ],
  ],
];

/** What is told of a local run; groups that have nothing to say are left out. */
export function groups(measured: Measured): Group[] {
  return SHOWN.map(([title, rows]) => ({
    title,
    rows: rows.flatMap(([label, metric, say]): [string, string][] => {
      const said = say(measured[metric]);
      return said === undefined ? [] : [[label, said]];
    }),
  })).filter(({ rows }) => rows.length > 0);
}

/** The value that such a part of the values are at most: "≈ 81 ms", as if they lay evenly in its bucket. */
function quantile(told: Distribution, part: number, say: (value: number) => string): string {
  const rank = part * told.counts.reduce((sum, count) => sum + count, 0);
  let before = 0;
  let from = 0;
  for (const [bucket, count] of told.counts.entries()) {
    const to = told.bounds[bucket];
    if (to === undefined) break;
    if (count > 0 && before + count >= rank)
      return `≈ ${say(from + ((to - from) * (rank - before)) / count)}`;
    before += count;
    from = to;
  }
  return `> ${say(from)}`;
}

/** What all values are at most: "≤ 250 ms". */
function mostOf({ bounds, counts }: Distribution, say: (value: number) => string): string {
  const bound = bounds[counts.findLastIndex((count) => count > 0)];
  return bound === undefined ? `> ${say(bounds.at(-1) ?? 0)}` : `≤ ${say(bound)}`;
}
