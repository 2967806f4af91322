"""The engine: how operations are parsed, limited and run. It knows no field of the API by name."""
