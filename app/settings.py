"""Everything that an operator may set, from environment variables."""

import os
import tempfile
from base64 import b64decode
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, DirectoryPath, Field, SecretStr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.keys import rate_of
from model import Limits

MIB = 1 << 20

DEFAULT_MODEL = "default"


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _state_directory() -> Path:
    """As the XDG Base Directory Specification has it; in containers that name no home, in the temporary directory."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    root = Path(home) if Path(home).is_absolute() else Path(tempfile.gettempdir())
    return root / "lipsync-detector"


def _signing_key(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None:
        prefix, _, encoded = secret.get_secret_value().partition("_")
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if prefix != "whsec" or not 24 <= len(key) <= 64:
            raise ValueError("Key must be whsec_ and the Base64 of 24 to 64 bytes")
    return secret


def _rate(text: str | None) -> str | None:
    if text is not None:
        rate_of(text)
    return text


def _writable(directory: Path) -> Path:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ValueError("Directory must be writable")
    return directory


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one video may take: MiB, `Limits` of the science, seconds of processor time, seconds to its answer."""

    max_upload_mb: int
    limits: Limits
    max_cpu_s: float
    deadline_s: float


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
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")], DirectoryPath] = Field(
        {},
        description="Models beside the shipped one, which is `default`, or in place of it: names and folders of "
        "weights with a `manifest.json`, as a JSON object. Requests choose by `?model=`.",
    )
    shadow_model: str | None = Field(
        None,
        description="One of the models, which also scores what another one has judged while a worker is free; how they "
        "differ is logged.",
    )
    max_upload_mb: int = Field(512, ge=1, description="Largest video accepted, in MiB (1,048,576 bytes).")
    max_duration_s: float = Field(600, gt=0, allow_inf_nan=False, description="Longest video accepted, in seconds.")
    max_job_upload_mb: int = Field(4096, ge=1, description="Largest video accepted as a job, in MiB.")
    max_job_duration_s: float = Field(
        4 * 3600,
        gt=0,
        allow_inf_nan=False,
        description="Longest video accepted as a job, in seconds; jobs have as much more time as this is longer.",
    )
    max_jobs: int = Field(100, ge=1, description="Jobs accepted that are not over; further ones are answered 503.")
    data_dir: Path = Field(
        default_factory=_state_directory,
        description="Where jobs are kept: their uploads until they are analysed, their results in one SQLite file.",
    )
    keep_results_s: float = Field(
        86_400,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for which a job that is over is kept. 0: nothing of it is written to disk, and it is "
        "forgotten once its result was fetched, or 600 s later.",
    )
    callback_secret: Annotated[SecretStr | None, AfterValidator(_signing_key)] = Field(
        None,
        description="Key that callbacks are signed with: `whsec_` and the Base64 of 24 to 64 random bytes. Jobs with "
        "a callback are refused if unset.",
    )
    callback_networks: list[IPv4Network | IPv6Network] = Field(
        [], description="Networks that callbacks may go to although they are not public, as a JSON list."
    )
    keys_file: Path | None = Field(
        None,
        description="File of API keys, a line `NAME SHA256 [RATE]` each, read again when it changes; `lipsync key` "
        "makes them. Everybody may do everything if unset.",
    )
    public: set[Literal["health", "docs", "metrics"]] = Field(
        {"health", "docs"}, description="What needs no key where there are keys, as a JSON list."
    )
    rate_limit: Annotated[str | None, AfterValidator(_rate)] = Field(
        None,
        description="How often a key may bring a video if its line does not say, as `60/minute`; no limit if unset.",
    )
    cors_origins: list[str] = Field(
        [], description="Origins whose pages may call the API from a browser, with a key, as a JSON list."
    )
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
    log_format: Literal["line", "json"] = Field(
        "line", description="Log lines for people, `line`, or as JSON objects, `json`."
    )

    @model_validator(mode="after")
    def _shadow_is_a_model(self) -> Self:
        if self.shadow_model not in (None, DEFAULT_MODEL, *self.models):
            raise PydanticCustomError("unknown_model", "LIPSYNC_SHADOW_MODEL must be one of the models")
        return self

    @property
    def allowance(self) -> Allowance:
        """Of a video that is analysed while its client waits."""
        limits = Limits(max_duration_s=self.max_duration_s, max_pixels=self.max_pixels)
        return Allowance(self.max_upload_mb, limits, self.max_cpu_s, self.deadline_s)

    @property
    def job_allowance(self) -> Allowance:
        """Of a video that is a job: as much time for each second of it."""
        longer = max(1.0, self.max_job_duration_s / self.max_duration_s)
        limits = Limits(max_duration_s=self.max_job_duration_s, max_pixels=self.max_pixels)
        return Allowance(self.max_job_upload_mb, limits, self.max_cpu_s * longer, self.deadline_s * longer)


def explain(error: ValidationError) -> str:
    """Wrong settings in words, one variable a line."""
    prefix = Settings.model_config["env_prefix"]
    aliases = {field.validation_alias for field in Settings.model_fields.values()}
    lines = []
    for wrong in error.errors():
        if not wrong["loc"]:
            lines.append(wrong["msg"])
            continue
        name = str(wrong["loc"][0])
        variable = name if name in aliases else f"{prefix}{name}".upper()
        value = "..." if "SECRET" in variable else wrong["input"]
        lines.append(f"{variable}={value}: {wrong['msg']}")
    return "\n".join(["The settings are wrong:", *lines])
