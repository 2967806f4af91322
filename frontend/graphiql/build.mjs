// Bundles GraphiQL with its workers, its licences and the example operations: node build.mjs [folder]
//
// Without a folder it writes into the Python package, which serves the files from its own origin.
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const target = path.resolve(process.argv[2] ?? path.join(here, "../../gql_jobs/web/static/graphiql"));
const queries = path.join(here, "../../tests/queries");

// The order of the tabs: what to try first comes first.
const TABS = [
  "create_job", "job_progress", "job", "jobs", "jobs_changed", "job_events", "create_report_job", "create_image_job",
  "create_jobs", "create_scheduled_job", "job_history", "cancel_job", "retry_job", "dead_letters", "dead_letter_groups", "plan_bulk", "run_bulk",
  "bulk_progress", "bulk_run", "stop_bulk", "retry_jobs",
  "jobs_by_offset", "job_types", "queues", "queues_changed", "workers", "workers_changed", "viewer",
  "create_view_token", "revoke_token", "renew_access",
];

const examples = {
  name: "examples",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^examples$/ }, () => ({ path: "examples", namespace: "examples" }));
    onLoad({ filter: /.*/, namespace: "examples" }, async () => {
      const found = (await readdir(queries)).map((file) => path.basename(file, ".graphql"));
      const missing = found.filter((name) => !TABS.includes(name));
      if (missing.length) throw new Error(`no place among the tabs for ${missing.join(", ")}`);
      const texts = await Promise.all(TABS.map((name) => readFile(path.join(queries, `${name}.graphql`), "utf8")));
      return { contents: JSON.stringify(texts), loader: "json" };
    });
  },
};

// The reader's own fonts do, and Monaco brings its icons itself.
const ownFonts = {
  name: "own-fonts",
  setup({ onLoad }) {
    onLoad({ filter: /graphiql[\\/]dist[\\/]style\.css$/ }, async (file) => {
      const css = await readFile(file.path, "utf8");
      return { contents: css.replace(/@font-face\s*\{[^}]*data:[^}]*\}/g, ""), loader: "css" };
    });
  },
};

async function licences(inputs) {
  const folders = new Set();
  for (const input of inputs) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input.replaceAll("\\", "/"));
    if (match) folders.add(path.join(here, match[1]));
  }
  const texts = [];
  for (const folder of [...folders].sort()) {
    const { name, version, license, author } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
    const files = (await readdir(folder)).filter((file) => /^(licen[cs]e|copying|notice|thirdpartynotices)/i.test(file));
    const text = await Promise.all(files.map((file) => readFile(path.join(folder, file), "utf8")));
    if (!text.length && license !== "MIT") throw new Error(`${name} comes without the text of its licence`);
    const owner = author?.name ?? author ?? `the contributors of ${name}`;
    texts.push(`${name} ${version} (${license})\n\n${text.join("\n\n").trim() || mit(owner)}\n`);
  }
  return `The GraphiQL page of gql-jobs contains these packages.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

// For packages that name this licence and leave its text out.
const mit = (owner) => `Copyright (c) ${owner}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;

const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  target: "es2022",
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
  define: { "process.env.NODE_ENV": '"production"' },
};
await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
const built = await Promise.all([
  build({
    ...common,
    entryPoints: { graphiql: "page.jsx" },
    format: "esm",
    jsx: "automatic",
    loader: { ".ttf": "file" },
    assetNames: "[name]",
    outdir: target,
    plugins: [examples, ownFonts],
  }),
  build({
    ...common,
    entryPoints: {
      "editor.worker": "monaco-editor/esm/vs/editor/editor.worker.js",
      "json.worker": "monaco-editor/esm/vs/language/json/json.worker.js",
      "graphql.worker": "monaco-graphql/esm/graphql.worker.js",
    },
    format: "iife",
    outdir: target,
  }),
]);
const inputs = built.flatMap(({ metafile }) => Object.keys(metafile.inputs));
await writeFile(path.join(target, "licenses.txt"), await licences(inputs));
const sizes = built.flatMap(({ metafile }) => Object.values(metafile.outputs)).map(({ bytes }) => bytes);
console.log(`GraphiQL is built: ${(sizes.reduce((a, b) => a + b) / 1e6).toFixed(1)} MB in ${path.relative(".", target)}`);
