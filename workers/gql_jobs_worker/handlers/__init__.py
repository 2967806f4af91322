"""The handlers of the job types that come with gql-jobs: one module per type, importing what that type needs."""
