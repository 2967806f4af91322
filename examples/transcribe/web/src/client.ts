import { createJobsClient } from '@gql-jobs/client';
import { jobTypes } from './jobs';

/** The jobs' API is another server than the page's: that of `gql-jobs dev`, unless `?jobs=` names another one. */
export const jobsApi = new URLSearchParams(location.search).get('jobs') ?? 'http://127.0.0.1:8000/graphql';

export const client = createJobsClient({ url: jobsApi, types: jobTypes });
