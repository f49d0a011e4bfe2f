"""Playout of packets, pure: functions of what arrived, when the sound card asked, and a clock handed in.

`Receiver` decides frame by frame what is played (`receive(data, now_s)`, `pull(now_s)`), on a `ConcealmentLadder`.
`PcmPlayout` turns its instructions into samples with a decoder handed in. `Sender` turns frames of codes into packets.
No torch, no sockets and no clock are used here, so the same calls give the same output.
"""
