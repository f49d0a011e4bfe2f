"""WebSocket as a transport, both ends."""
