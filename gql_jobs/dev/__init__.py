"""Everything on one machine for development: the process tree and the mailbox. Never needed in production."""
