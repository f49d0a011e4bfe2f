"""How relays share rooms."""
