import assert from "node:assert/strict";
import { test } from "node:test";
import { parseConfig } from "../../web/src/config";

test("what is left out has a default", () => {
  assert.deepEqual(parseConfig("{}"), {
    local: false,
    key: null,
    models: ["demo"],
    bodyHash: false,
  });
});

for (const text of [
  "<!doctype html><title>Sign in</title>",
  "",
  "null",
  '{"models":null}',
  '{"models":[]}',
  '{"models":[{}]}',
  '{"key":{"toString":1}}',
  '{"local":"yes"}',
]) {
  test(`${text || "nothing"} is no configuration, and words for people say so`, () => {
    assert.throws(() => parseConfig(text), /Something else than the server answered/);
  });
}
