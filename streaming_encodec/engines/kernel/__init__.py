"""``kernel``: the live codec as one small C library, with the same bits on every machine.

``kernel.c`` has the arithmetic, ``image.py`` lays a model out for it, ``shared_library.py`` finds and checks the
compiled library, ``codec.py`` is the codec in numpy, and ``engine.py`` the engine for torch's models. Only the last
imports torch.
"""
