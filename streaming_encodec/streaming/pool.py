"""``StreamPool``: many streams through one batch, each of which neither sees nor waits for the others.

Every slot has its own samples, phase and settings; ``tick`` runs one steady step over all slots and keeps its result
only for those that had a full step of input. The batch always has the same shape, so a row's numbers do not depend on
the other rows: law 5 holds to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streaming_encodec.engines.registry import find_engine
from streaming_encodec.errors import StreamError
from streaming_encodec.model.find import AnyModel, find_model
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.stepping.checks import check_count, check_start
from streaming_encodec.stepping.engine import EngineOrName
from streaming_encodec.stepping.half import Half, HalfState, decoder_half, encoder_half
from streaming_encodec.stepping.silence import decoder_after_silence, encoder_after_silence
from streaming_encodec.stepping.state import StreamState
from streaming_encodec.stepping.tree import map_arrays, zip_arrays
from streaming_encodec.streaming.io import Form, take_codes, take_latent, take_samples
from streaming_encodec.streaming.snapshot import restore, snapshot
from streaming_encodec.types import AnyArray

KINDS = ("encoder", "decoder")


@dataclass
class _Slot:
    """What differs from slot to slot; the layers' states lie in the pool's batch."""

    pending: AnyArray  # [1, C, n]
    started: bool
    skip: int
    num_codebooks: int
    form: Form


class StreamPool:
    """A fixed number of slots, each a stream like ``StreamingEncoder``'s (or ``StreamingDecoder``'s) of batch size 1.

    ``open`` a slot, ``push`` into it, ``tick`` all; ``close`` it when the stream is over.

    Args:
        model: a model that streams by samples, or its name.
        slots: streams at most.
        kind: ``"encoder"`` (samples in, codes out) or ``"decoder"`` (codes in, samples out).
        bandwidth: kbps of slots that are opened without one, None is the nearest to 6; encoder only.
        start: ``"silence"`` or ``"exact"``, for all slots.
        frames_per_step: frames of every slot that go through the network at once.
        max_pending_frames: a slot with this many waiting frames accepts no more.
        engine: a name out of ``engines``, or an engine of this model that streams share.

    Raises:
        StreamError: the model cannot stream by samples, or a setting is out of range.
        MissingExtraError: the engine needs a package that is not installed.
    """

    def __init__(
        self,
        model: AnyModel,
        slots: int = 16,
        kind: str = "encoder",
        bandwidth: float | None = None,
        start: str = "silence",
        frames_per_step: int = 1,
        max_pending_frames: int = 750,
        engine: EngineOrName = "auto",
    ) -> None:
        if kind not in KINDS:
            raise StreamError(f'kind must be "encoder" or "decoder", got {kind!r}')
        self.model = find_model(model)
        self.kind = kind
        self.start = check_start(start)
        self.slots = check_count("slots", slots)
        self.max_pending_frames = max_pending_frames
        self.engine = find_engine(engine, self.model)
        self._arrays = self.engine.arrays
        self._half = self._make_half(frames_per_step)
        config = self.engine.config
        if bandwidth is None:
            bandwidth = config.usual_bandwidth
        self._num_codebooks = config.num_codebooks_for(bandwidth) if kind == "encoder" else 0
        self._layers = self._half.stepper.enter(self._half.stepper.zero_state(self.slots))
        self._open: dict[int, _Slot] = {}

    # -- slots ----------------------------------------------------------------------------------------------

    def open(self, bandwidth: float | None = None) -> int:
        """Take a free slot for a new stream and return its number. Raises ``StreamError`` when all are taken."""
        free = next((slot for slot in range(self.slots) if slot not in self._open), None)
        if free is None:
            raise StreamError(f"all {self.slots} slots are taken: close one, or make a pool with more")
        num_codebooks = self._num_codebooks
        if bandwidth is not None:
            num_codebooks = self._codebooks_for(bandwidth)
        self._begin(free, num_codebooks)
        return free

    def close(self, slot: int) -> None:
        """Free a slot; pending input is dropped (``flush`` it first to get its output)."""
        self._slot(slot)
        del self._open[slot]

    def reset(self, slot: int) -> None:
        """Start a new stream in a slot."""
        self._begin(slot, self._slot(slot).num_codebooks)

    def set_bandwidth(self, slot: int, bandwidth: float) -> None:
        """An encoder slot's bandwidth in kbps from its next frame on."""
        self._slot(slot).num_codebooks = self._codebooks_for(bandwidth)

    @property
    def open_slots(self) -> tuple[int, ...]:
        """The slots in use."""
        return tuple(sorted(self._open))

    # -- streams --------------------------------------------------------------------------------------------

    def push(self, slot: int, x: AnyArray) -> None:
        """Push samples [1, C, n] (numpy [C, n] or [n]), or codes [1, K, f] (numpy [K, f]), into a slot.

        Raises:
            StreamError: no such open slot, bad input, or too much of it waiting: then nothing was taken.
        """
        held = self._slot(slot)
        if self.kind == "encoder":
            inputs, form = take_samples(x, 1, self.model.config, self._arrays)
            self._take(slot, inputs, held.num_codebooks)
        else:
            codes, form = take_codes(x, 1, self.model.config, self._arrays)
            self._take(slot, self.engine.quantizer.decode(codes), codes.shape[1])
        held.form = form

    def push_latent(self, slot: int, latent: AnyArray, num_codebooks: int | None = None) -> None:
        """Push latent frames [1, D, f] in place of codes into a decoder slot: see ``StreamingDecoder.push_latent``."""
        if self.kind != "decoder":
            raise StreamError("only a decoder's slots take latent frames")
        taken, _ = take_latent(latent, 1, self.model.config, self._arrays)
        self._take(slot, taken, num_codebooks or self.model.config.num_quantizers)

    def tick(self) -> dict[int, AnyArray]:
        """One step for every slot that has enough input; the outputs of those slots, each in its last push's form.

        A slot with more input continues at the next tick: ``while pool.ready: pool.tick()`` catches up.
        """
        ready = self.ready
        steady = [slot for slot in ready if self._open[slot].started]
        outputs = {slot: self._outputs(self._start(slot)) for slot in ready if slot not in steady}
        if steady:
            n = self._half.step_inputs
            batch = self._arrays.zeros(self.slots, self._half.channels, n)
            for slot in steady:
                held = self._open[slot]
                batch[slot] = held.pending[0, :, :n]
                held.pending = self._arrays.copy(held.pending[..., n:])
            y, after = self._half.stepper.step(batch, self._layers)
            self._keep(steady, after)
            y = self._outputs(y)
            outputs |= {slot: y[slot : slot + 1] for slot in steady}
        return {slot: self._give(slot, outputs[slot]) for slot in sorted(outputs)}

    @property
    def ready(self) -> tuple[int, ...]:
        """The slots that the next tick will advance."""
        half = self._half
        return tuple(
            slot
            for slot, held in sorted(self._open.items())
            if held.pending.shape[-1] >= (half.step_inputs if held.started else half.start_inputs)
        )

    def flush(self, slot: int) -> AnyArray:
        """End a slot's stream: returns all remaining output, also for pending input. A new stream begins after it."""
        held = self._slot(slot)
        num_codebooks, form = held.num_codebooks, held.form
        pieces, state = self._half.advance(self._state_of(slot), held.pending[..., :0])
        last = self._half.finish(state)
        pieces += [] if last is None else [last]
        given = [self._cut(self._outputs(piece), num_codebooks) for piece in pieces]
        self._begin(slot, num_codebooks)
        return form.give(self._arrays.join([self._nothing(num_codebooks), *given]))

    # -- states as values -----------------------------------------------------------------------------------

    def snapshot(self, slot: int) -> StreamState:
        """The slot's stream as a value, for any slot, or for a ``StreamingEncoder`` or ``StreamingDecoder``."""
        held = self._slot(slot)
        state = self._state_of(slot)
        return snapshot(self.engine, self._half, state, self.kind, self.start, held.num_codebooks)

    def restore(self, slot: int, state: StreamState) -> None:
        """Continue from a snapshot in an open slot. Raises ``StreamError`` if it is not of such a stream."""
        held = self._slot(slot)
        most = self.model.config.num_quantizers if self.kind == "encoder" else 0
        working = restore(self.engine, self._half, state, self.kind, 1, most)
        if state.start != self.start:
            raise StreamError(f"the state's stream starts {state.start!r}, this pool's streams {self.start!r}")
        held.num_codebooks = state.num_codebooks
        self._enter(slot, working)

    # -- pickles and copies ---------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Model, settings and all streams' states: in another process they continue with the same output."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_half"}
        layers = map_arrays(self._arrays.copy, self._half.stepper.leave(self._layers))
        return kept | {"_layers": layers, "_frames_per_step": self._half.frames_per_step}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        frames_per_step = kept["_frames_per_step"]
        self.__dict__.update({name: value for name, value in kept.items() if name != "_frames_per_step"})
        self._half = self._make_half(frames_per_step)
        self._layers = self._half.stepper.enter(kept["_layers"])

    # -- inside ---------------------------------------------------------------------------------------------

    def _make_half(self, frames_per_step: int) -> Half:
        return (encoder_half if self.kind == "encoder" else decoder_half)(self.engine, frames_per_step)

    def _slot(self, slot: int) -> _Slot:
        if slot not in self._open:
            raise StreamError(f"slot {slot} is not open (open: {list(self.open_slots)})")
        return self._open[slot]

    def _codebooks_for(self, bandwidth: float) -> int:
        if self.kind != "encoder":
            raise StreamError("a decoder slot takes codes of any bandwidth: only encoder slots have one")
        return self.model.config.num_codebooks_for(bandwidth)

    def _take(self, slot: int, inputs: AnyArray, num_codebooks: int) -> None:
        held = self._slot(slot)
        room = self.max_pending_frames * self._half.inputs_per_frame + self._half.start_inputs
        if held.pending.shape[-1] + inputs.shape[-1] > room:
            raise StreamError(
                f"slot {slot} has {held.pending.shape[-1]} inputs waiting and takes {room} at most: tick more often"
            )
        if self.kind == "decoder" and self.start == "silence" and not held.started and inputs.shape[-1]:
            self._enter(slot, decoder_after_silence(self.engine, self._half, 1, num_codebooks))
        held.pending = self._arrays.join((held.pending, inputs))

    def _begin(self, slot: int, num_codebooks: int) -> None:
        fresh = self._half.begin(1)
        self._open[slot] = _Slot(fresh.pending, False, 0, num_codebooks, Form(isinstance(self.model, ModelFolder)))
        if self.kind == "encoder" and self.start == "silence":
            self._enter(slot, encoder_after_silence(self.engine, self._half, 1))

    def _start(self, slot: int) -> AnyArray:
        held = self._open[slot]
        n = self._half.start_inputs
        y, layers = self._half.stepper.start(held.pending[..., :n])
        held.pending = self._arrays.copy(held.pending[..., n:])
        held.started = True
        self._write(slot, self._half.stepper.leave(layers))
        return y

    def _enter(self, slot: int, state: HalfState) -> None:
        held = self._open[slot]
        held.pending, held.skip, held.started = state.pending, state.skip, state.layers is not None
        if state.layers is not None:
            self._write(slot, self._half.stepper.leave(state.layers))

    def _write(self, slot: int, layers: object) -> None:
        # Never in place: a snapshot or a running step may hold the old tensors.
        def put(row: AnyArray, batch: AnyArray) -> AnyArray:
            batch = self._arrays.copy(batch)
            batch[slot] = row[0]
            return batch

        now = self._half.stepper.leave(self._layers)
        self._layers = self._half.stepper.enter(zip_arrays(put, layers, now))

    def _keep(self, steady: list[int], after: object) -> None:
        rows = [slot in steady for slot in range(self.slots)]
        self._layers = after if all(rows) else self._half.stepper.choose(rows, after, self._layers)

    def _state_of(self, slot: int) -> HalfState:
        held = self._open[slot]
        if not held.started:
            return HalfState(held.pending, None, held.skip)
        rows = map_arrays(lambda x: self._arrays.copy(x[slot : slot + 1]), self._half.stepper.leave(self._layers))
        return HalfState(held.pending, self._half.stepper.enter(rows), held.skip)

    def _give(self, slot: int, y: AnyArray) -> AnyArray:
        held = self._open[slot]
        cut = min(held.skip, y.shape[-1])
        held.skip -= cut
        return held.form.give(self._cut(y[..., cut:], held.num_codebooks))

    def _outputs(self, y: AnyArray) -> AnyArray:
        # All rows at once with all codebooks that anyone needs: fewer are a prefix of more.
        if self.kind == "decoder" or y.shape[-1] == 0:
            return y
        most = max(held.num_codebooks for held in self._open.values())
        return self.engine.quantizer.encode(y, most)

    def _cut(self, y: AnyArray, num_codebooks: int) -> AnyArray:
        if self.kind == "decoder":
            return y
        return y[:, :num_codebooks] if y.shape[-1] else self._nothing(num_codebooks)

    def _nothing(self, num_codebooks: int) -> AnyArray:
        if self.kind == "decoder":
            return self._arrays.zeros(1, self.model.config.audio_channels, 0)
        return self._arrays.no_codes(1, num_codebooks)
