"""Remove deleted courses and idempotency records that are past their time."""

import logging

from course_service.commands.common import open_database
from course_service.errors import DatabaseUnavailable, DeadlineExceeded
from course_service.services import purge
from course_service.settings import load_settings
from course_service.startup import StartupError
from course_service.telemetry.logs import log_to_terminal

_log = logging.getLogger("course_service")


def main() -> int:
    """Purge; returns the exit code. Raises `StartupError`."""
    settings = load_settings()
    log_to_terminal(settings.log_level, settings.log_format)
    database = open_database(settings, connections=1)
    try:
        purged = purge(database)
    except (DatabaseUnavailable, DeadlineExceeded) as error:
        problem = error.cause or "a statement took too long"
        raise StartupError(f"the database is not available: {problem}; run purge again") from None
    finally:
        database.close()
    _log.info("purged %d courses and %d idempotency records", purged.courses, purged.records)
    return 0
