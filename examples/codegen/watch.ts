// Operations whose variables and results are typed from the schema.
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import { print } from 'graphql';
import { graphql } from './generated';
import type { JobPriority } from './generated/graphql';
import { calendarDate, type DateTime, dateTime, type Id } from './scalars';

const CREATE = graphql(/* GraphQL */ `
  mutation CreateReport($dateRange: DateRangeInput!, $priority: JobPriority!, $runAt: DateTime) {
    createJob(
      input: {
        payload: { reportGeneration: { reportType: MONTHLY_SALES, format: PDF, dateRange: $dateRange } }
        priority: $priority
        runAt: $runAt
      }
    ) {
      job { id createdAt }
    }
  }
`);

const JOB = graphql(/* GraphQL */ `
  query Job($id: ID!) {
    job(id: $id) {
      __typename
      finishedAt
      rawPayload
      ... on ReportGenerationJob { payload { dateRange { start } } result { url rows } }
      ... on EmailJob { result { messageId } }
    }
  }
`);

/** The data of an operation. Clients such as urql and Apollo take the same documents. */
async function ask<Data, Variables>(
  url: string,
  document: TypedDocumentNode<Data, Variables>,
  variables: Variables,
): Promise<Data> {
  const headers = { 'Content-Type': 'application/json' };
  const body = JSON.stringify({ query: print(document), variables });
  const { data, errors } = await (await fetch(url, { method: 'POST', headers, body })).json();
  if (errors) throw new Error(errors[0].message);
  return data;
}

export async function report(url: string): Promise<{ id: Id; createdAt: DateTime }> {
  const year = { start: calendarDate(new Date('2024-01-01')), end: calendarDate(new Date('2024-12-31')) };
  const priority: JobPriority = 'HIGH';
  const inAnHour = dateTime(new Date(Date.now() + 3_600_000));
  const { createJob } = await ask(url, CREATE, { dateRange: year, priority, runAt: inAnHour });
  return createJob.job;
}

export async function outcome(url: string, id: Id): Promise<string> {
  const { job } = await ask(url, JOB, { id });
  switch (job?.__typename) {
    case 'ReportGenerationJob':
      return `${job.result?.rows ?? 'no'} rows since ${job.payload.dateRange.start}`;
    case 'EmailJob':
      return job.result?.messageId ?? 'not sent yet';
    default:
      return JSON.stringify(job?.rawPayload);
  }
}

// Each of these has to be refused, or the types say nothing.
export const mistakes = (url: string, id: Id, moment: DateTime) => [
  // @ts-expect-error: a moment is no id
  ask(url, JOB, { id: moment }),
  // @ts-expect-error: an id is no moment
  ask(url, CREATE, { dateRange: { start: calendarDate(new Date()), end: id }, priority: 'HIGH' }),
  // @ts-expect-error: there is no such priority
  ask(url, CREATE, { dateRange: { start: calendarDate(new Date()), end: calendarDate(new Date()) }, priority: 'URGENT' }),
  // @ts-expect-error: the id is missing
  ask(url, JOB, {}),
];
