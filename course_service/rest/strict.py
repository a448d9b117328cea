"""Reading requests strictly: what would be dropped silently is refused."""

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, get_origin

from fastapi import Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from course_service.errors import RequestInvalid, Violation


class StrictRoute(APIRoute):
    """A route whose query has each of its parameters once at most and no others, and whose body is strict JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        query = [field for field in get_flat_params(self.dependant) if isinstance(field.field_info, params.Query)]
        known = {field.alias for field in query}
        lists = {field.alias for field in query if get_origin(field.field_info.annotation) is list}

        async def strictly(request: Request) -> Response:
            counts = Counter(name for name, _ in request.query_params.multi_items())
            violations = [
                Violation(name[:80], "FIELD_UNKNOWN", "There is no such query parameter.")
                for name in counts
                if name not in known
            ] + [
                Violation(name, "FIELD_DUPLICATE", "Must be given once.")
                for name, count in counts.items()
                if count > 1 and name in known and name not in lists
            ]
            if violations:
                raise RequestInvalid(violations)
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class _StrictRequest(Request):
    async def json(self) -> object:
        """Read the body as JSON in UTF-8, with no name twice in an object and no number that is none."""
        return json.loads((await self.body()).decode(), object_pairs_hook=_no_name_twice, parse_constant=_no_constant)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is there twice")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
