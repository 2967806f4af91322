"""How operations are parsed, limited, run and answered fast. Knows no field of the API by name."""
