"""The value of redundancy at equal bitrate: `bench playout redundancy`.

Two senders of packets of equal size under the same bursty loss. One spends all on codebooks; the other sends half of
them, and in each packet the first codebooks of the frames before it. A call's receiver conceals what neither brings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming_encodec.bench.tables import Table
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.metrics import make_metrics
from streaming_encodec.evaluation.packet_loss import Lost, bursty_loss
from streaming_encodec.evaluation.received import receive_clip
from streaming_encodec.evaluation.streamed import encode_clips
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.wire.packet import packet_size

FRAMES_PER_PACKET = 3
LOSSES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3)

Books = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sending:
    """How a sender spends its bits."""

    num_codebooks: int
    redundant_codebooks: int = 0
    redundant_frames: int = 0

    @property
    def packet_bytes(self) -> int:
        """Bytes of one packet on the wire, above WebSocket."""
        return packet_size(
            FRAMES_PER_PACKET,
            self.num_codebooks,
            redundant_codebooks=self.redundant_codebooks,
            redundant_frames=self.redundant_frames,
        )


PLAIN = Sending(8)
REDUNDANT = Sending(4, 2, 6)


def codebooks_that_arrive(sending: Sending, lost: Lost, frames: int) -> Books:
    """How many codebooks of each of ``frames`` frames are there when it is played; 0: it has to be concealed.

    ``lost``: by packet. A packet's redundancy is waited for: playout learns to, see ``docs/playout.md``.
    """
    books = np.zeros(frames, np.int64)
    for packet, gone in enumerate(lost):
        if gone:
            continue
        begin = packet * FRAMES_PER_PACKET
        past = slice(max(0, begin - sending.redundant_frames), begin)
        books[past] = np.maximum(books[past], sending.redundant_codebooks)
        books[begin : begin + FRAMES_PER_PACKET] = sending.num_codebooks
    return books


def measure(model: EncodecModel, clips: list[Clip], metrics: list[str], seed: int = 1) -> list[dict[str, float]]:
    """A row for each loss and way of sending: the metrics' means over the clips, and the share concealed."""
    judges, engine = make_metrics(metrics), find_engine("auto", model)
    rows = []
    for sending in (PLAIN, REDUNDANT):
        kbps = model.config.bandwidth_for(sending.num_codebooks)
        bandwidth = min(model.config.target_bandwidths, key=lambda known: abs(known - kbps))
        coded = [encode_clips(model, [clip], bandwidth) for clip in clips]
        for loss in LOSSES:
            row = {"loss": loss, "codebooks": float(sending.num_codebooks), "bytes": float(sending.packet_bytes)}
            scores: dict[str, list[float]] = {name: [] for name in ("concealed", *judges.names)}
            for number, (clip, one) in enumerate(zip(clips, coded, strict=True)):
                packets = -(-one.frames[0] // FRAMES_PER_PACKET)
                packet_ms = FRAMES_PER_PACKET * model.config.frame_ms
                lost = bursty_loss(packets, packet_ms, loss, seed + number) if loss else np.zeros(packets, np.bool_)
                books = codebooks_that_arrive(sending, lost, one.frames[0])
                sound = receive_clip(engine, one.codes[0].numpy(), books)[: len(clip.samples)]
                scores["concealed"].append(float((books == 0).mean()))
                for judge in judges.metrics:
                    score = judge(clip, sound)
                    if score is not None:
                        scores[judge.name].append(score.value)
            rows.append(row | {name: float(np.mean(values)) for name, values in scores.items()})
    return rows


def redundancy_table(rows: list[dict[str, float]]) -> Table:
    """The quality at each loss, with all bits in codebooks and with redundancy."""
    names = [name for name in rows[0] if name not in ("loss", "codebooks", "bytes", "concealed")]
    lines = []
    for row in rows:
        spent = REDUNDANT if row["codebooks"] == REDUNDANT.num_codebooks else PLAIN
        extra = f"{spent.redundant_codebooks} × {spent.redundant_frames} frames" if spent.redundant_frames else "–"
        sent = [f"{row['loss']:.0%}", str(spent.num_codebooks), extra, f"{row['bytes']:.0f}", f"{row['concealed']:.1%}"]
        lines.append(sent + [f"{row[name]:.3f}" for name in names])
    columns = ["loss", "codebooks", "redundancy", "bytes a packet", "concealed", *names]
    return Table("redundancy", columns, lines)
