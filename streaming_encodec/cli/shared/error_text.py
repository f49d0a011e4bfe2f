"""Errors as the commands print them: the library's message, and the options of the command line that help."""

from __future__ import annotations

from streaming_encodec.errors import CallError, CallErrorReason, ConfigError

_OPTIONS_BY_REASON = {
    CallErrorReason.UNREACHABLE: "`streaming-encodec serve` starts one",
    CallErrorReason.UNTRUSTED: "--ca FILE names a certificate to trust",
    CallErrorReason.WRONG_MODEL: "--model chooses it",
}
_OPTIONS_BY_SETTING = {
    "insecure": "options: --key FILE, --tls-cert FILE with --tls-key FILE, or --insecure",
    "admission": "options: --secret TEXT, --auth-token TOKEN, --allow NETWORK, or --insecure",
    "bridge_tls": "options: --tls-cert FILE with --tls-key FILE, or --insecure",
    "node": "option: --node N",
    "token_key": "`streaming-encodec token --new-key FILE` makes one",
}


def error_text(error: Exception) -> str:
    """An error in words, with the options that help; a system's error without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    options = option_hint(error)
    return f"{error} ({options})" if options else str(error)


def option_hint(error: Exception) -> str:
    """Which options or commands help against this error; empty where none does."""
    if isinstance(error, CallError):
        return _OPTIONS_BY_REASON.get(error.reason, "")
    if isinstance(error, ConfigError):
        return _OPTIONS_BY_SETTING.get(error.setting or "", "")
    return ""
