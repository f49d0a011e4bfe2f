"""The caller's end: a connection to a relay that is kept, with the codec behind it."""
