"""``gql-jobs doctor``: finds what is wrong with streams, consumers and indexes, with advice. Changes nothing.

A check is a function from ``Installation`` to findings; ``examination`` runs all of them.
"""
