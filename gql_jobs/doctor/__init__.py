"""``gql-jobs doctor``: examines streams, consumers and indexes, and says what is wrong and what to do. Changes nothing.

One check a module, each a function from ``Patient`` to findings.
"""
