"""The commands that watch and steer jobs from a terminal: a client of the public GraphQL API, and of nothing else."""
