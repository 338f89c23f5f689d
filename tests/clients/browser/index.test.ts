import assert from "node:assert/strict";
import { test } from "node:test";
import { SluiceError } from "sluice-client";

test("an error says what its problem says", () => {
  const error = new SluiceError({ type: "urn:sluice:problem:not-found", status: 404, title: "No" });
  assert.equal(error.message, "No");
  assert.equal(error.status, 404);
});
