// Bundles GraphiQL with its workers, its licences and the example operations: node build.mjs [folder]
//
// Without a folder it writes into the Python package, which serves the files from its own origin.
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { compress, licences } from "../built_files.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const target = path.resolve(process.argv[2] ?? path.join(here, "../../gql_jobs/web/static/graphiql"));
const queries = path.join(here, "../../tests/queries");

// The order of the tabs: what to try first comes first.
const TABS = [
  "create_job", "job_progress", "job", "jobs", "jobs_changed", "job_events", "create_report_job", "create_image_job",
  "create_jobs", "create_raw_jobs", "create_scheduled_job", "job_history", "update_job", "cancel_job", "retry_job", "delete_job", "dead_letters", "dead_letter_groups", "plan_bulk", "run_bulk",
  "bulk_progress", "bulk_run", "stop_bulk", "retry_jobs",
  "jobs_by_offset", "job_types", "queues", "queues_changed", "workers", "workers_changed", "viewer",
  "create_view_token", "revoke_token", "renew_access",
  "server_status", "server_status_changed", "pause_queue", "resume_queue", "set_queue_limits",
  "schedule_preview", "upsert_schedule", "upsert_raw_schedule", "schedules", "schedule", "run_schedule", "pause_schedule", "delete_schedule",
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
await writeFile(path.join(target, "licenses.txt"), await licences("GraphiQL page", inputs.map((input) => path.join(here, input))));
await compress(target);
const sizes = built.flatMap(({ metafile }) => Object.values(metafile.outputs)).map(({ bytes }) => bytes);
console.log(`GraphiQL is built: ${(sizes.reduce((a, b) => a + b) / 1e6).toFixed(1)} MB in ${path.relative(".", target)}`);
