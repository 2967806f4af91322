"""What the metrics of API and worker have in common: plain counters, read when somebody asks for them."""
