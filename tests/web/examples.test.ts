import assert from "node:assert/strict";
import { test } from "node:test";
import { examples } from "../../web/src/examples";

test("examples ask for the demo, so they are there only where it is offered", () => {
  assert.deepEqual(examples(["openai/gpt"]), []);
  const shown = examples(["openai/gpt", "demo"]);
  assert.ok(shown.length > 0 && shown.every(({ model }) => model.split("?")[0] === "demo"));
});
