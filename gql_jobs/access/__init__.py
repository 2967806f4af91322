"""Who asks: API keys, tokens of an identity provider, view tokens, tickets and signed addresses of files."""
