"""How the codes of many recordings lie on disk."""
