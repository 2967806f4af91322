"""Sales reports: where the rows come from, how they are added up, and the files that are made of the sums.

Needs the extra ``reports``; nothing outside this package and its handler may import these libraries.
"""
