"""Sales reports: the sources of rows, their aggregation, and the files that are written from the sums.

Needs the extra ``reports``; nothing outside this package and its handler may import these libraries.
"""
