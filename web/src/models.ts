export interface Choice {
  model: string;
  label: string;
}

/** What the built-in model can be asked for, to see each thing that may befall an answer. */
const PRESETS: readonly Choice[] = [
  { model: "demo", label: "Demo · a tour" },
  { model: "demo?tokens=60", label: "Demo · short" },
  { model: "demo?tokens=5000&rate=200", label: "Demo · long, 5,000 tokens" },
  { model: "demo?tokens=200&rate=8&ttft=2500", label: "Demo · slow" },
  { model: "demo?tokens=400&fail_after=120", label: "Demo · fails midway" },
  { model: "demo?tokens=200&silence_after=40&silence=12", label: "Demo · falls silent for 12 s" },
];

/** What can be chosen, where a server offers these models. */
export function choices(models: readonly string[]): Choice[] {
  return models.flatMap((model) =>
    model === "demo" ? PRESETS : [{ model, label: nameOf(model) }],
  );
}

/** A model's name for people: the provider is not part of it. */
export function nameOf(model: string): string {
  const preset = PRESETS.find((choice) => choice.model === model);
  return preset?.label ?? model.replace(/^(openai|bedrock)\//, "").replace(/\?.*/, "");
}
