"""What carries packets and control messages between a client and a relay."""
