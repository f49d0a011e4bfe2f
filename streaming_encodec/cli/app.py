"""`streaming-encodec`: the table of commands.

To add a command, write a module of its name in `commands/` with a function `command` (typer annotations; its docstring
is its help) and a line in the table. The module of a command in a group is called GROUP_NAME. It is imported only when
the command runs. Raise errors of the package's own family: they are printed as one line, and the exit code is 1.
`typer.BadParameter` is for wrong usage: exit code 2.
"""

from streaming_encodec.cli.lazy import Entry, build_app
from streaming_encodec.cli.shared.console import prepare_streams

_FILES = "Files"
_ENGINES = "Speed and export"
_CALLS = "Calls"
_LIVE = "Live"
_QUALITY = "Training and quality"

COMMANDS = (
    Entry(
        "demo",
        "Hear yourself through the whole path, live; without a sound device, a clip.",
        _LIVE,
    ),
    Entry("talk", "Talk with others in a room of a relay.", _LIVE),
    Entry("devices", "List microphones and speakers.", _LIVE),
    Entry("doctor", "Check everything that a call needs, and say what to do.", _LIVE),
    Entry("stream", "Send a file through the live codec, block by block.", _FILES),
    Entry("encode", "Compress a sound file to .ecdc.", _FILES),
    Entry("decode", "Decompress an .ecdc file to a sound file.", _FILES),
    Entry("info", "Describe a sound file, an .ecdc file or a model.", _FILES),
    Entry("models", "List the models that --model takes by name.", _FILES),
    Entry("serve", "Run a relay: rooms whose participants hear each other.", _CALLS),
    Entry("bridge", "Make telephone calls participants of a room.", _CALLS),
    Entry("token", "Make a token that admits one participant to a room once.", _CALLS),
    Entry("send", "Send a sound file, or the microphone, into a room as live speech.", _CALLS),
    Entry("listen", "Record a room to a sound file.", _CALLS),
    Entry("export", "Write a model as ONNX step graphs, for programs without torch.", _ENGINES),
    Entry(
        "bench",
        "Measure engines, relays, calls and playout on this machine.",
        _ENGINES,
        (
            Entry("codec", "What each engine costs here, beside other packages."),
            Entry("relay", "How much one relay carries: load, churn, floods."),
            Entry("call", "The delay of a call, from mouth to ear."),
            Entry("bridge", "Many telephone calls at once, through one bridge."),
            Entry("network", "Whole calls over bad networks, measured (Linux, root)."),
            Entry("playout", "Simulated calls over bad networks."),
            Entry("web", "The codec of the web page, beside Python's."),
        ),
    ),
    Entry("corpus", "Encode a corpus: many recordings to codes, in parallel.", _ENGINES),
    Entry("train", "Train a codec on a folder of sound, on CPU or GPU.", _QUALITY),
    Entry("answers", "Count what the listeners of a blind test answered.", _QUALITY),
    Entry("evaluate", "Measure a model on a folder of speech, beside Opus.", _QUALITY),
)

app = build_app(
    COMMANDS,
    "EnCodec made live: sound in by blocks of any size, codes out as soon as a frame is complete, and back.",
)


def main() -> None:
    """Entry point of the console script."""
    prepare_streams()
    app(prog_name="streaming-encodec")
