// A page that uses all of the client.
export * from '@gql-jobs/client';
export * from '@gql-jobs/client/react';
