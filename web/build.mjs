// Builds the page into dist/: its names carry a hash of their content, so that they can be cached for ever.
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const dist = here("dist");
const fresh = await mkdtemp(here("dist-"));

const { metafile } = await build({
  // The theme is a file of its own: it runs before the first paint, and the page must not wait for more.
  entryPoints: {
    app: here("src/main.ts"),
    theme: here("src/theme-first.ts"),
    style: here("styles/app.css"),
  },
  outdir: fresh,
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  // The client's sources, not its build: the page needs no other step before this one.
  alias: { "sluice-client": here("../clients/browser/src/index.ts") },
  legalComments: "linked",
  metafile: true,
});

let html = await readFile(here("index.html"), "utf8");
for (const [path, { entryPoint }] of Object.entries(metafile.outputs)) {
  if (entryPoint?.endsWith("main.ts")) html = html.replace("{{app.js}}", basename(path));
  if (entryPoint?.endsWith("theme-first.ts")) html = html.replace("{{theme.js}}", basename(path));
  if (entryPoint?.endsWith("app.css")) html = html.replace("{{app.css}}", basename(path));
}
await writeFile(`${fresh}/index.html`, html);
await cp(here("favicon.svg"), `${fresh}/favicon.svg`);

// File by file, what names the others last: a page that is being served, or built twice, misses none.
await mkdir(dist, { recursive: true });
const names = await readdir(fresh);
names.sort((a, b) => Number(a.endsWith(".html")) - Number(b.endsWith(".html")));
for (const name of names) await rename(`${fresh}/${name}`, `${dist}/${name}`);
for (const name of await readdir(dist))
  if (!names.includes(name)) await rm(`${dist}/${name}`, { recursive: true, force: true });
await rm(fresh, { recursive: true });
