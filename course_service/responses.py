"""What an HTTP caller gets, as Pydantic models."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from course_service import descriptions
from course_service.course import State


class CourseResponse(BaseModel):
    """A course as HTTP callers get it. Times are UTC, to the microsecond."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="The resource name, `courses/{course_id}`. Never changes.")
    uid: str = Field(
        description="A UUID given by the service; distinguishes the course from one that had the same name earlier."
    )
    title: str = Field(description=descriptions.TITLE)
    code: str = Field(description=descriptions.CODE)
    description: str = Field(description=descriptions.DESCRIPTION)
    owner: str = Field(description=descriptions.OWNER)
    language_code: str = Field(description=descriptions.LANGUAGE_CODE)
    subjects: Sequence[str] = Field(description=descriptions.SUBJECTS)
    labels: Mapping[str, str] = Field(description=descriptions.LABELS)
    external_ids: Mapping[str, str] = Field(description=descriptions.EXTERNAL_IDS)
    state: State = Field(description="The state of the course's lifecycle.")
    create_time: datetime = Field(description="When the course was created.")
    update_time: datetime = Field(
        description="When the course was last changed; equals create_time until the first change."
    )
    delete_time: datetime | None = Field(description="When the course was deleted; null unless it is DELETED.")
    purge_time: datetime | None = Field(
        description="From when on the course may be removed for good; null unless it is DELETED."
    )
    etag: str = Field(description="Stands for this version of the course; another one after every change.")


class ListCoursesResponse(BaseModel):
    """A page of courses; `next_page_token` is empty on the last."""

    courses: Sequence[CourseResponse] = Field(description="The courses of this page.")
    next_page_token: str = Field(
        description="What to send as page_token for the next page; empty if there is none. Does not expire."
    )


class CoursesResponse(BaseModel):
    """Courses in the order asked."""

    courses: Sequence[CourseResponse] = Field(description="The courses.")
