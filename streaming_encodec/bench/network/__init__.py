"""The network laboratory: real calls over bad networks, in network namespaces of this machine, measured."""
