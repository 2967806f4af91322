"""``gql-jobs doctor``: examines streams, consumers and indexes, and says what is wrong and what to do. Changes nothing.

A check is a function from ``Installation`` to findings; ``examination`` runs all of them.
"""
