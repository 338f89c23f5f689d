import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("../../web/", import.meta.url));

function building(): Promise<unknown> {
  return once(spawn(process.execPath, [`${web}build.mjs`], { stdio: "ignore" }), "exit");
}

/** Every file that the page there asks for. */
async function whole(): Promise<void> {
  const html = await readFile(`${web}dist/index.html`, "utf8");
  const names = html.match(/[\w.-]+\.(?:js|css|svg)(?=")/g) ?? [];
  assert.equal(names.length, 4, html);
  await Promise.all(names.map((name) => access(`${web}dist/${name}`)));
}

test("a page that is served misses nothing while it is built anew, twice at once", async () => {
  await building();
  let over = false;
  const built = Promise.all([building(), building()]).finally(() => {
    over = true;
  });
  while (!over) await whole();
  assert.deepEqual(await built, [
    [0, null],
    [0, null],
  ]);
});
