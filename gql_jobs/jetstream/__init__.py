"""A JetStream client fit for this project, and the embedded server. Knows no job."""
