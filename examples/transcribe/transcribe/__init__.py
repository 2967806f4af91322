"""Transcribes videos: an application that hands its work to gql-jobs."""
