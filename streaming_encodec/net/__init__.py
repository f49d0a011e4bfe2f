"""Codes over WebSockets: relay, client, tokens. Thin drivers over `streaming_encodec.wire` and `.voice`.

The relay (`streaming_encodec.net.relay`) never imports torch; the client does when it is made.
"""
