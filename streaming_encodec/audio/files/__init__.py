"""Sound files and `.ecdc` files: whole or refused."""
