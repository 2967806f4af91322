"""The job types that come with gql-jobs: one contract module each."""
