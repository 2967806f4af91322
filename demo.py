"""The demo: ``python demo.py``, or ``python -m gql_jobs.demo`` where gql-jobs is installed."""

from gql_jobs.demo.__main__ import main

if __name__ == "__main__":
    main()
