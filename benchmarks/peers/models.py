"""The service's table of courses as SQLAlchemy's ORM has it, for the peers that use that."""

from datetime import datetime

from sqlalchemy.orm import DeclarativeBase, Mapped

from course_service.course import State
from course_service.store.models import COURSES


class _Base(DeclarativeBase):
    pass


class CourseRow(_Base):
    """One course."""

    __table__ = COURSES

    uid: Mapped[str]
    course_id: Mapped[str]
    title: Mapped[str]
    code: Mapped[str]
    description: Mapped[str]
    owner: Mapped[str]
    language_code: Mapped[str]
    subjects: Mapped[list[str]]
    labels: Mapped[dict[str, str]]
    external_ids: Mapped[dict[str, str]]
    state: Mapped[State]
    create_time: Mapped[datetime]
    update_time: Mapped[datetime]
    revision: Mapped[int]
    delete_time: Mapped[datetime | None]
    purge_time: Mapped[datetime | None]
    state_before_delete: Mapped[State | None]
    search_text: Mapped[str]
