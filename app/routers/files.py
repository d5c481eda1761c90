"""Files for browsers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Response
from starlette.staticfiles import StaticFiles


class Files(StaticFiles):
    """A folder whose files may do what ``policy`` says (Content Security Policy); unchanged ones are answered 304."""

    def __init__(self, folder: Path, policy: Mapping[str, str]) -> None:
        super().__init__(directory=folder)
        self._policy = "; ".join(f"{kind} {sources}" for kind, sources in policy.items())

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        """One file."""
        response = super().file_response(*arguments, **named)
        response.headers.update({"Content-Security-Policy": self._policy, "Cache-Control": "no-cache"})
        return response
