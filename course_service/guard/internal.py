"""What happens to an exception that nobody foresaw."""

import logging
import secrets
import traceback
from pathlib import Path

from course_service.errors import InternalError

_log = logging.getLogger(__name__)

_MAX_FRAMES = 20


def report(exception: BaseException) -> InternalError:
    """Log where an unforeseen exception was raised, and make the error that the caller gets instead.

    Neither has the exception's text: it may quote statements, values or addresses.
    """
    error_id = secrets.token_hex(8)
    frames = traceback.extract_tb(exception.__traceback__)[-_MAX_FRAMES:]
    path = " > ".join(f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in frames)
    driver_error = getattr(exception, "orig", None)  # what SQLAlchemy wraps
    code = getattr(driver_error, "pgcode", None) or getattr(driver_error, "sqlite_errorname", None)
    _log.error("internal error %s: %s%s at %s", error_id, type(exception).__name__, f" ({code})" if code else "", path)
    return InternalError(error_id)
