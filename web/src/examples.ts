export interface Example {
  title: string;
  text: string;
  model: string;
}

/** What the empty page suggests, where the demo is offered: each shows the reader something else. */
const EXAMPLES: readonly Example[] = [
  {
    title: "Take the tour",
    text: "How does an answer get here, word by word?",
    model: "demo",
  },
  {
    title: "A long read",
    text: "Write 5,000 tokens with sections, lists and tables.",
    model: "demo?tokens=5000&rate=200",
  },
  {
    title: "Kill it halfway",
    text: "Answer slowly, so that there is time to cut the connection.",
    model: "demo?tokens=200&rate=8&ttft=2500",
  },
  {
    title: "Watch it fail",
    text: "Break off in the middle. What becomes of the text?",
    model: "demo?tokens=400&fail_after=120",
  },
];

/** What to suggest, where a server offers these models. */
export function examples(models: readonly string[]): readonly Example[] {
  return models.includes("demo") ? EXAMPLES : [];
}
