"""Sequences of requests drawn from the table of commands, sent to both servers; replies and all state compared."""
