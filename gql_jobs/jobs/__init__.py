"""What a job is: values, the fold, the registry of types. Nothing here does I/O."""
