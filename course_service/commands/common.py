"""What the commands that work with the database have in common."""

from course_service.call import Call, deadline_after, working_on
from course_service.errors import DatabaseUnavailable
from course_service.settings import Settings
from course_service.store.database import Database
from course_service.store.usability import DatabaseUnusable
from course_service.store.watching import Watch

_CHECK_SECONDS = 5.0
"""How long the database may take to show that it can be used."""


def open_database(settings: Settings, *, connections: int, watch: Watch | None = None) -> Database:
    """Open the database of the settings, and check that it can be used. Raises `StartupError`."""
    database = Database(
        settings.database,
        connections=connections,
        session_settings=settings.database_session_settings,
        watch=watch,
    )
    try:
        with working_on(Call(deadline=deadline_after(_CHECK_SECONDS))):  # a frozen server would keep it for ever
            database.check()
    except DatabaseUnavailable as error:
        raise DatabaseUnusable(error.cause) from None
    return database
