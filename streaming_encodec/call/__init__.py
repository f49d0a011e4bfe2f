"""The media end of a call: what is spoken leaves as packets, what arrives becomes sound. No sockets here."""
