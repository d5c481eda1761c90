"""``python -m app``: serve, as the environment says, until SIGTERM or Ctrl-C."""

import logging
import logging.config
import os
import resource
import sys

from pydantic import ValidationError

from app import tracing
from app.keys import KeysError
from app.logs import log_config
from app.main import create_app
from app.server import Server
from app.settings import Settings, explain
from app.store import InUse

log = logging.getLogger("app")

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main() -> None:
    """Run the service in this process."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.exit(explain(error))
    try:
        tracing.start()
    except tracing.TracingUnavailable as error:
        sys.exit(str(error))
    logging.config.dictConfig(log_config(settings.log_level, settings.log_format))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # each connection is one
    try:
        server = Server(create_app(settings))
    except KeysError as error:
        sys.exit(f"LIPSYNC_KEYS_FILE={error}")
    except (InUse, OSError) as error:
        sys.exit(f"LIPSYNC_DATA_DIR={settings.data_dir}: {error}")
    if settings.keys_file is None and settings.host not in LOOPBACK:
        log.warning("whoever can reach %s may use the service: LIPSYNC_KEYS_FILE is not set", settings.host)
    server.run()
    if server.cut_short:
        log.error("stopped before everything was answered")
        os._exit(1)  # a running analysis can't be ended, and an orderly exit would wait for it


if __name__ == "__main__":
    main()
