"""Datagram sessions: packets over WebTransport, that is HTTP/3 over QUIC. Only this folder imports aioquic."""
