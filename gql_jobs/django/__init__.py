"""A backend for Django's tasks: enqueued by Django's own API, run by workers of gql-jobs."""
