// Conformance to GraphQL over HTTP, by the audits of npm's graphql-http: node graphql_over_http.mjs URL
// Prints what failed; exits 1 if anything did, be it a MUST, a SHOULD or a MAY.
import { serverAudits } from 'graphql-http';

const url = process.argv[2];
const counts = {};
let failed = 0;

for (const audit of serverAudits({ url, fetchFn: fetch })) {
  const level = audit.name.split(' ')[0];
  const result = await audit.fn();
  counts[level] = (counts[level] ?? 0) + 1;
  if (result.status !== 'ok') {
    failed += 1;
    const answer = result.response;
    console.log(`FAILED [${result.id}] ${result.name}: ${result.reason} (HTTP ${answer?.status}, ${await answer?.text()})`);
  }
}

const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
const levels = Object.entries(counts).map(([level, count]) => `${count} ${level}`).join(', ');
console.log(`GraphQL over HTTP: ${total - failed} of ${total} audits passed (${levels})`);
process.exit(failed ? 1 : 0);
