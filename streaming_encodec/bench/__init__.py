"""Programs that measure: the codec's engines, a relay under load, a call's delay, playout over bad networks."""
