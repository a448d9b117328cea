"""Who may what: method → role, beside the contract, and role → identities, in the operator's file."""

import tomllib
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from course_service.auth.errors import PermissionDenied
from course_service.auth.watched import Unusable, Watched
from course_service.call import DOCUMENTATION, PROBE, UNKNOWN_METHOD, Call


class Role(IntEnum):
    """What an identity may. Each role includes those before it."""

    PUBLIC = 0
    """Nobody has to say who they are."""
    READER = 1
    EDITOR = 2
    ADMIN = 3


METHODS: Mapping[str, Role] = {
    "GetCourse": Role.READER,
    "BatchGetCourses": Role.READER,
    "ListCourses": Role.READER,
    "CreateCourse": Role.EDITOR,
    "BatchCreateCourses": Role.EDITOR,
    "UpdateCourse": Role.EDITOR,
    "DeleteCourse": Role.EDITOR,
    "UndeleteCourse": Role.EDITOR,
    "PublishCourse": Role.EDITOR,
    "ArchiveCourse": Role.EDITOR,
    "grpc.health.v1.Health/Check": Role.PUBLIC,
    "grpc.health.v1.Health/List": Role.PUBLIC,
    "grpc.health.v1.Health/Watch": Role.PUBLIC,
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Role.READER,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.READER,
    PROBE: Role.PUBLIC,
    DOCUMENTATION: Role.READER,
    UNKNOWN_METHOD: Role.READER,
}
"""Which role each method takes. A method without a row is for nobody."""


def is_public(method: str) -> bool:
    """Whether a method is for everybody."""
    return METHODS.get(method) is Role.PUBLIC


def _identity(text: str) -> str:
    prefix, separator, name = text.partition("://" if text.startswith("spiffe") else ":")
    if prefix not in {"spiffe", "dns", "cn", "jwt"} or not separator or not name or text != text.strip():
        raise ValueError("an identity begins with spiffe://, dns:, cn: or jwt:")
    if "*" in text:
        raise ValueError("identities are matched as they are; there are no wildcards")
    return text


_Identities = Annotated[tuple[Annotated[str, AfterValidator(_identity)], ...], ()]


class _Roles(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    reader: _Identities = ()
    editor: _Identities = ()
    admin: _Identities = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: _Roles


class Policy:
    """The step of the guard that refuses who may not call. The file is read again when it changes."""

    def __init__(self, path: str) -> None:
        self._roles = Watched("COURSE_POLICY_FILE", [path], read_policy)

    def __call__(self, call: Call) -> None:
        """Raise `PermissionDenied` unless the caller has the role that the method takes."""
        least = METHODS.get(call.method)
        if least is None or self._roles.current.get(call.caller, Role.PUBLIC) < least:
            raise PermissionDenied

    def close(self) -> None:
        """Look no more for changes of the file."""
        self._roles.close()


def read_policy(contents: Sequence[bytes]) -> dict[str, Role]:
    """Return the role of each identity of a policy's text. Raises `Unusable`."""
    try:
        file = _File.model_validate(tomllib.loads(contents[0].decode()))
    except UnicodeDecodeError:
        raise Unusable("it is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"it is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Unusable(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
    roles: dict[str, Role] = {}
    for role in (Role.READER, Role.EDITOR, Role.ADMIN):
        for identity in getattr(file.roles, role.name.lower()):
            if identity in roles:
                raise Unusable(f"{identity} is named twice; each role includes those before it")
            roles[identity] = role
    if not roles:
        raise Unusable("it gives nobody a role")
    return roles
