// The page at /graphql: GraphiQL on the API of its own origin, with the example operations in its tabs.
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createClient } from "graphql-ws";
import { createRoot } from "react-dom/client";
import examples from "examples";
import "graphiql/style.css";
import "./page.css";

// Written as a variable's value, it stands for the id of the newest job.
const LATEST = "latest";
// The close code of a socket without a valid key or token.
const FORBIDDEN = 4403;
// Where `gql-jobs dev` is; the examples speak of it.
const DEVELOPMENT = "http://127.0.0.1:8000";

globalThis.MonacoEnvironment = {
  getWorker(_id, label) {
    const name = label === "json" || label === "graphql" ? label : "editor";
    return new Worker(new URL(`${name}.worker.js`, import.meta.url));
  },
};

const url = new URL(location.pathname, location.href);
const socket = new URL(url);
socket.protocol = url.protocol.replace("http", "ws");
// The one of the headers editor; browsers send no headers with a socket, so it travels in `connection_init`.
let authorization;
const wsClient = createClient({
  url: socket.href,
  connectionParams: () => (authorization === undefined ? {} : { authorization }),
  retryAttempts: Infinity,
  // By default a connection that is refused, as while the server restarts, would end every subscription for good. One
  // that is refused for its token will be refused again: the page shows it.
  shouldRetry: (event) => event?.code !== FORBIDDEN,
});
const send = createGraphiQLFetcher({ url: url.href, wsClient });

async function fetcher(params, options) {
  const given = Object.entries(options?.headers ?? {}).find(([name]) => name.toLowerCase() === "authorization")?.[1];
  if (given !== authorization) {
    authorization = given;
    wsClient.terminate();
  }
  const variables = { ...params.variables };
  for (const [name, value] of Object.entries(variables)) {
    if (value === LATEST) variables[name] = await newestJob(options);
  }
  return send({ ...params, variables }, options);
}

async function newestJob({ headers } = {}) {
  const body = JSON.stringify({ query: "{ jobs(first: 1) { nodes { id } } }" });
  const answer = await fetch(url, {
    method: "POST",
    body,
    headers: { "Content-Type": "application/json", ...headers },
  });
  const found = (await answer.json()).data?.jobs.nodes[0];
  if (!found) throw new Error("There is no job yet: create one first.");
  return found.id;
}

function tab(text) {
  const variables = {};
  if (text.includes("($id:") || text.includes("$id: ID!")) variables.id = LATEST;
  if (text.includes("$runAt:")) variables.runAt = later(60);
  if (text.includes("$since:")) variables.since = later(-7 * 86400);
  const query = text.replaceAll(DEVELOPMENT, location.origin);
  const note = variables.id ? `# "${LATEST}" stands for the newest job.\n` : "";
  return { query: note + query, variables: Object.keys(variables).length ? JSON.stringify(variables, null, 2) : null };
}

function later(seconds) {
  return new Date(Date.now() + seconds * 1000).toISOString();
}

createRoot(document.getElementById("graphiql")).render(
  <GraphiQL fetcher={fetcher} defaultTabs={examples.map(tab)} defaultEditorToolsVisibility="variables" />,
);
