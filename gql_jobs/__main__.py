"""``python -m gql_jobs`` is ``gql-jobs``."""

from gql_jobs.cli import main

if __name__ == "__main__":
    main()
