"""Everything that an operator may set, from environment variables."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, DirectoryPath, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from model import Limits

MIB = 1 << 20


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _writable(directory: Path) -> Path:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ValueError("Directory must be writable")
    return directory


class Settings(BaseSettings):
    """One field a variable: ``HOST`` and ``PORT``, and the others with the prefix ``LIPSYNC_``."""

    model_config = SettingsConfigDict(env_prefix="LIPSYNC_", populate_by_name=True, frozen=True)

    host: str = Field("127.0.0.1", validation_alias="HOST", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, validation_alias="PORT", description="TCP port; 0 takes a free one.")
    device: str | None = Field(
        None,
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="Where the detector runs, as PyTorch names it; CUDA when there is one, else the CPU, if unset.",
    )
    max_upload_mb: int = Field(512, ge=1, description="Largest video accepted, in MiB (1,048,576 bytes).")
    max_duration_s: float = Field(600, gt=0, allow_inf_nan=False, description="Longest video accepted, in seconds.")
    max_pixels: int = Field(
        Limits().max_pixels, ge=1, description="Largest picture accepted, in pixels: width times height."
    )
    max_concurrent: int = Field(
        default_factory=_available_cpus, ge=1, description="Analyses that run at once; the number of CPUs if unset."
    )
    max_waiting: int = Field(
        8,
        ge=0,
        description="Requests accepted beyond those, waiting or still uploading. Each may fill the temporary "
        "directory with one video; further ones are answered 503.",
    )
    deadline_s: float = Field(
        900,
        gt=0,
        allow_inf_nan=False,
        description="Seconds from the end of an upload, waiting included, after which its analysis is given up.",
    )
    max_cpu_s: float = Field(
        900, gt=0, allow_inf_nan=False, description="Seconds of processor time that decoding one video may take."
    )
    max_memory_mb: int = Field(
        2048, ge=512, description="Memory that one worker process may take, in MiB; each holds one video at a time."
    )
    batch_most: int | None = Field(
        None,
        ge=1,
        description="Pieces of different videos, some seconds each, that the device computes at once, at most; 8 on "
        "CUDA and 1 on the CPU, where more do not fit into its caches and take longer, if unset.",
    )
    batch_wait_ms: float = Field(
        2, ge=0, allow_inf_nan=False, description="Milliseconds that such a piece waits for company."
    )
    upload_idle_s: float = Field(
        30, gt=0, allow_inf_nan=False, description="Seconds without a byte after which an upload is given up."
    )
    upload_s: float = Field(
        900, gt=0, allow_inf_nan=False, description="Seconds that a whole upload may take, however steadily it comes."
    )
    temp_dir: Annotated[DirectoryPath, AfterValidator(_writable)] = Field(
        default_factory=lambda: Path(tempfile.gettempdir()), description="Where uploads lie while they are analysed."
    )
    grace_s: float = Field(
        30,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that accepted requests have to finish once the service is told to stop.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = Field(
        "info", description="Least serious messages that are logged."
    )

    @property
    def max_upload_bytes(self) -> int:
        """``max_upload_mb`` in bytes."""
        return self.max_upload_mb * MIB

    @property
    def limits(self) -> Limits:
        """What the science refuses."""
        return Limits(max_duration_s=self.max_duration_s, max_pixels=self.max_pixels)


def explain(error: ValidationError) -> str:
    """Wrong settings in words, one variable a line."""
    prefix = Settings.model_config["env_prefix"]
    aliases = {field.validation_alias for field in Settings.model_fields.values()}
    lines = []
    for wrong in error.errors():
        name = str(wrong["loc"][0])
        variable = name if name in aliases else f"{prefix}{name}".upper()
        lines.append(f"{variable}={wrong['input']}: {wrong['msg']}")
    return "\n".join(["The settings are wrong:", *lines])
