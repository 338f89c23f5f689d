// Compile every source below a folder for the Python of the functions, as if it stood in /var/task.
//
// The functions run a Python that the machine which deploys need not have. Bytecode depends on
// Python's version alone, so CPython compiled to WebAssembly makes the same files anywhere.
//
//   node infra/compile.mjs <folder> <version>

import { resolve } from "node:path";
import { loadPyodide } from "pyodide";

const [folder, wanted] = process.argv.slice(2);
// A fixed hash seed: the order of a set's members must not differ between two builds.
const python = await loadPyodide({ env: { PYTHONHASHSEED: "0" } });
python.FS.mkdirTree("/var/task");
python.mountNodeFS("/var/task", resolve(folder));
python.globals.set("wanted", wanted);

// Unchecked: nothing in a deployed package changes, so no start compares it with its source.
const done = python.runPython(`
import compileall, py_compile, sys

found = "%d.%d" % sys.version_info[:2]
if found != wanted:
    print(f"the installed pyodide is Python {found}, the functions run {wanted}", file=sys.stderr)
found == wanted and compileall.compile_dir(
    "/var/task",
    quiet=1,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
`);
process.exit(done ? 0 : 1);
