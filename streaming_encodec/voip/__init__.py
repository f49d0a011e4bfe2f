"""The codec as SIP and RTP stacks want it: so many milliseconds of int16 in, a packet out, and back."""

from streaming_encodec.voip.decoder import VoiceDecoder
from streaming_encodec.voip.encoder import VoiceEncoder

__all__ = ["VoiceDecoder", "VoiceEncoder"]
