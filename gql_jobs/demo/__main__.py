"""``python -m gql_jobs.demo``."""

from gql_jobs.demo.program import main

if __name__ == "__main__":
    main()
