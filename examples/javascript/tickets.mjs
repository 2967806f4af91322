// EventSource where the API asks who calls. It can send no header, so each of its connections needs a ticket: one for
// this operation, which works once. EventSource would come back to the same address by itself, whose ticket is used up
// then; so this opens a new one, behind the last event that was seen. Browsers have their own EventSource.

/**
 * Calls `onResult` with each result of a subscription until it is complete.
 *
 * @param {object} options
 * @param {string} options.url - of the API: https://jobs.example.com/graphql
 * @param {() => Promise<string>} options.token - gets a view token from your own back end; called for each connection.
 *   It is asked again after any error, unless that has a property `isFinal`: throw such a one where the user has signed out
 * @param {string} options.query - the subscription, with a variable $after: String
 * @param {object} [options.variables]
 * @param {(result: object) => void} options.onResult
 * @param {AbortSignal} [options.signal] - ends it
 */
export async function subscribe({ url, token, query, variables = {}, onResult, signal }) {
  let after = variables.after;
  while (!signal?.aborted) {
    try {
      const ticket = await askForTicket(url, await token(), query, { ...variables, after });
      const isComplete = await listen(`${url}?${new URLSearchParams({ ticket })}`, signal, (result, cursor) => {
        after = cursor || after;
        onResult(result);
      });
      if (isComplete) return;
    } catch (error) {
      if (error.isFinal) throw error;
    }
    // At random, so that the clients of a lost server do not come back as one.
    await new Promise((resolve) => setTimeout(resolve, 1000 + Math.random() * 2000));
  }
}

async function askForTicket(url, token, query, variables) {
  const answer = await fetch(url.replace(/graphql$/, 'tickets'), {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
    body: JSON.stringify({ query, variables }),
  });
  const body = await answer.json();
  if (answer.ok) return body.ticket;
  // 401: the token has just ended; 429 and 503 pass. Anything else would be refused again.
  throw Object.assign(new Error(body.errors[0].message), { isFinal: ![401, 429, 503].includes(answer.status) });
}

/** Resolves with whether the subscription is complete; else its connection was lost, or its token has ended. */
function listen(address, signal, onNext) {
  return new Promise((resolve) => {
    const events = new EventSource(address);
    const end = (isComplete) => {
      events.close();
      resolve(isComplete);
    };
    events.addEventListener('next', ({ data, lastEventId }) => {
      const result = JSON.parse(data);
      if (result.errors?.some(({ extensions }) => extensions?.code === 'UNAUTHENTICATED')) end(false);
      else onNext(result, lastEventId);
    });
    events.addEventListener('complete', () => end(true));
    events.addEventListener('error', () => end(false));
    signal?.addEventListener('abort', () => end(true), { once: true });
  });
}
