"""Bring the database to the newest schema, by the migrations: beside the package in a checkout, in it in a wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from course_service.commands.common import open_database
from course_service.settings import load_settings
from course_service.startup import StartupError

_PACKAGE = Path(__file__).parent.parent


def main() -> int:
    """Run the migrations that the database lacks, and build or drop the search index if the settings say so.

    Returns the exit code. Raises `StartupError`.
    """
    settings = load_settings()
    configuration = migrations()
    configuration.attributes["search_index"] = settings.search_index
    try:
        command.upgrade(configuration, "head")
    except CommandError as error:
        raise StartupError(str(error)) from None
    open_database(settings, connections=1).close()  # what the service would refuse is refused here
    return 0


def migrations() -> Config:
    """Make Alembic's configuration."""
    folder = next(folder for folder in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations") if folder.is_dir())
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config
