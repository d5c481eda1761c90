"""A video stream in; how coarsely its pictures were coded, as H.264's QP (ITU-T H.264, 7.4.5), 0 to 51, out.

Of H.264 the decoder tells the QP of every block. Of HEVC, VP9 and AV1 only headers are known: FFmpeg's
``trace_headers`` filter reads them and tells the log. What they say is put on the scale of H.264: six more for
every doubling of the step of the quantiser (ITU-T H.265, 8.6.1; VP9 specification, 8.6.1; AV1 specification, 7.12.2).
"""

import re
from itertools import islice
from threading import Lock

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.sidedata.encparams import VideoEncParamsType
from av.sidedata.sidedata import Type as SideData

AS_H264 = {"hevc": (1.0, -8.0), "vp9": (1 / 8, 5.5), "av1": (1 / 8, 12.0)}
"""Factor and summand that make H.264's QP of what the headers of a codec say.

Real mouths then look as much more rendered for it as after H.264 of that QP (AV1 smooths the more), on training and
validation people; see ``weights/EXPERIMENTS.md``.
"""

HEADER = re.compile(r"\d+\s+(init_qp_minus26|slice_qp_delta|base_q_idx)\s.*= (-?\d+)\s*$")
"""A line that tells of a quantiser: its name in the specification, and its value."""

HEVC_QP = 26
"""To which headers of HEVC add."""

MOST_PACKETS, MOST_BYTES, MOST_LINES = 250, 1 << 17, 100_000
"""Of which headers are read, at the start of a stream; a packet's bytes; lines that they are told in.

A packet of headers alone takes 300 MB and a second to read.
"""

ENCODING = np.dtype(
    {
        "names": ["blocks", "first", "block_bytes", "quantizer"],
        "formats": ["u4", "u8", "u8", "i4"],
        "offsets": [0, 8, 16, 28],
        "itemsize": 64,
    }
)
"""How FFmpeg says how a picture was coded: AVVideoEncParams of libavutil/video_enc_params.h."""

FROM_BLOCK_TO_ITS_QUANTIZER = 16
"""Bytes, in its AVVideoBlockParams."""

_log = Lock()


def picture_quantizer(picture: av.VideoFrame, otherwise: float = np.nan) -> float:
    """Mean over a picture that was decoded with ``export_side_data=venc_params``; ``otherwise`` if it is not H.264."""
    coded = picture.side_data.get(SideData.VIDEO_ENC_PARAMS)
    if coded is None or coded.codec_type != VideoEncParamsType.H264:
        return otherwise
    content = np.frombuffer(coded, np.uint8)
    blocks, first, step, base = content[: ENCODING.itemsize].view(ENCODING)[0].item()
    of_blocks = np.ndarray((blocks,), np.int32, content, first + FROM_BLOCK_TO_ITS_QUANTIZER, (step,))
    return base + float(of_blocks.mean()) if blocks else otherwise


def stream_quantizer(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Mean over the first pictures of a stream of one of the codecs `AS_H264`; nan if its headers can't be read.

    Reads packets of ``container``, which is at its start.
    """
    codec = stream.codec_context.codec.canonical_name
    base, found = HEVC_QP if codec == "hevc" else 0, []
    for header in filter(None, map(HEADER.match, _traced(container, stream))):
        name, value = header[1], int(header[2])
        if name == "init_qp_minus26":
            base = HEVC_QP + value
        else:
            found.append(base + value)
    factor, summand = AS_H264[codec]
    return factor * float(np.mean(found)) + summand if found else np.nan


def _traced(container: av.container.InputContainer, stream: av.VideoStream) -> list[str]:
    """Lines about the headers, as far as they can be read."""
    with _log, av.logging.Capture() as told:
        av.logging.set_level(av.logging.INFO)
        try:
            reader = BitStreamFilterContext("trace_headers", stream)
            for packet in islice(container.demux(stream), MOST_PACKETS):
                if packet.size > MOST_BYTES or len(told) > MOST_LINES:
                    break
                reader.filter(packet)
        except FFmpegError:
            pass
        finally:
            av.logging.set_level(None)
    return [line for _, _, line in told]
