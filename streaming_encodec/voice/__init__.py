"""Playout of packets, pure: functions of what arrived, when the sound card asked, and a clock handed in.

`Receiver` decides frame by frame what is to be played (`receive(bytes, now)`, `pull(now)`), `PcmPlayout`
turns its decisions into samples with a decoder handed in, `Sender` turns frames of codes into packets.
Neither torch nor sockets nor a wall clock come in here, so a recorded call replays to the same output.
"""
