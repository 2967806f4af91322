// A creation as something to run elsewhere: a command for a shell, or a small program. What they hold may be anything
// that a user or a stored payload has, so everything is quoted, and nothing invisible is left as it is.

import { LosslessNumber } from 'lossless-json';
import { type Exact, write } from '../../api/exact';
import { isRecord } from '../../parts/form/fields';

export const CREATE = `mutation Create($input: CreateJobInput!) {
  createJob(input: $input) {
    deduplicated
    job { id status }
  }
}`;

/** The variable of the environment that has the key or token in a copied program; the page's own is never copied. */
export const TOKEN = 'GQL_JOBS_TOKEN';

/** What could act on a terminal, or make text look other than it is: control and format characters, and separators. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;

/** JSON text in which every character that cannot be seen is written as its number. */
const visible = (json: string): string =>
  json.replace(INVISIBLE, (found) =>
    found === '\n'
      ? found
      : found
          .split('')
          .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
          .join(''),
  );

/** One word of a POSIX shell, whatever is in it. */
export const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** What Linux takes as one argument is a little more: characters here, of up to three bytes each there. */
const LONGEST_ARGUMENT = 40_000;
const END = 'END_OF_JOB';

/** A command for a POSIX shell. `authenticated`: whether the API asks who asks. */
export function asCurl(endpoint: string, input: Exact, authenticated: boolean): string {
  const body = visible(write({ query: CREATE.replace(/\s+/g, ' '), variables: { input } }, 0));
  const isLong = body.length > LONGEST_ARGUMENT;
  const command = [
    `curl --silent --show-error ${quoted(endpoint)}`,
    `  --header 'Content-Type: application/json'`,
    ...(authenticated ? [`  --header "Authorization: Bearer $${TOKEN}"`] : []),
    `  --data-binary ${isLong ? `@- <<'${END}'` : quoted(body)}`,
  ].join(' \\\n');
  // A shell that is typed into would replace what follows an exclamation mark.
  return isLong ? `${command}\n${body.replaceAll('!', '\\u0021')}\n${END}\n` : command;
}

/** A program for Python with the library httpx. */
export function asPython(endpoint: string, input: Exact, authenticated: boolean): string {
  const headers = authenticated ? `\n    headers={"Authorization": f"Bearer {os.environ['${TOKEN}']}"},` : '';
  return `${authenticated ? 'import os\n\n' : ''}import httpx

CREATE = """
${CREATE}
"""

job = ${pythonLiteral(input)}

response = httpx.post(
    ${literal(endpoint)},${headers}
    json={"query": CREATE, "variables": {"input": job}},
    timeout=30,
)
answer = response.json()
if "errors" in answer:
    raise SystemExit(answer["errors"])
print(answer["data"]["createJob"]["job"]["id"])
`;
}

/** A program for TypeScript, where \`fetch\` is there without a library. */
export function asTypeScript(endpoint: string, input: Exact, authenticated: boolean): string {
  const given = survives(input)
    ? `JSON.stringify({ query, variables: { input: ${visible(write(input))} } })`
    : // Numbers that JavaScript would round are sent as they are written.
      `\`{"query":\${JSON.stringify(query)},"variables":{"input":\${${literal(visible(write(input, 0)))}}}}\``;
  const header = authenticated ? `\n    Authorization: \`Bearer \${process.env.${TOKEN}}\`,` : '';
  return `const query = \`
${CREATE}
\`;

const response = await fetch(${literal(endpoint)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${header}
  },
  body: ${given},
});
const { data, errors } = await response.json();
if (errors) throw new Error(JSON.stringify(errors));
console.log(data.createJob.job.id);
`;
}

const literal = (text: string): string => visible(JSON.stringify(text));

function pythonLiteral(value: Exact, indent = ''): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'string') return literal(value);
  if (value instanceof LosslessNumber) return value.value;
  const inner = `${indent}    `;
  const parts = Array.isArray(value)
    ? value.map((item) => pythonLiteral(item, inner))
    : Object.entries(value).map(([name, item]) => `${literal(name)}: ${pythonLiteral(item, inner)}`);
  const [start, end] = Array.isArray(value) ? '[]' : '{}';
  if (parts.length === 0) return `${start}${end}`;
  return `${start}\n${parts.map((part) => `${inner}${part},\n`).join('')}${indent}${end}`;
}

/** Whether a value is the same after JavaScript has read it as source text. */
function survives(value: Exact): boolean {
  if (value instanceof LosslessNumber) return String(Number(value.value)) === value.value;
  if (Array.isArray(value)) return value.every(survives);
  if (isRecord(value))
    return Object.entries(value).every(([name, item]) => name !== '__proto__' && survives(item));
  return true;
}
