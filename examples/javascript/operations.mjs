// The operations that all examples send.

/** A mail that the mailbox of `gql-jobs dev` refuses twice, so that there is something to watch. */
export const CREATE = /* GraphQL */ `
  mutation Create {
    createJob(
      input: { payload: { email: { to: "ada@greylist.example", subject: "Hello", body: "It works." } } }
    ) {
      job { id events { __typename cursor job { status } } }
    }
  }
`;

/** Each event has a cursor; `after` goes on behind the last one seen. */
export const WATCH = /* GraphQL */ `
  subscription Watch($id: ID!, $after: String) {
    jobProgress(id: $id, after: $after) { __typename cursor job { status } }
  }
`;

export const HISTORY = /* GraphQL */ `
  query History($id: ID!) {
    job(id: $id) { events { cursor } }
  }
`;

/** Data of a query or mutation, without a library. */
export async function ask(url, query, variables) {
  const headers = { 'Content-Type': 'application/json' };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors[0].message);
  return data;
}
