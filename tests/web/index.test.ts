import assert from "node:assert/strict";
import { test } from "node:test";
import { CLIENT } from "sluice-client";

test("x", () => assert.equal(CLIENT, "sluice"));
