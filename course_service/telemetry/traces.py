"""The traces: one span for each call and one for each unit of work of the database, sent by OTLP over HTTP.

They are made by hand, and have what the log's line of a call has: no payload, no query, no text of an exception.
"""

import logging
import threading
import time
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from course_service import call as current_call
from course_service.call import Call
from course_service.errors import CourseError, DatabaseUnavailable, DeadlineExceeded
from course_service.guard.steps import Credentials

_log = logging.getLogger(__name__)

_PATH = "/v1/traces"
_MAX_WAITING = 2_048
"""How many spans may wait to be sent; of more, the oldest are dropped."""
_MAX_BATCH = 512
_PAUSE_SECONDS = 1.0
"""How long spans are gathered before they are sent together."""
_SEND_SECONDS = 2.0
"""How long a batch may take, tries included."""
_CLOSE_SECONDS = 1.5
"""How long the last spans may take."""
_SILENCE_SECONDS = 60.0
"""How long after it has said that spans cannot be sent it says so again."""

_FAULTS_OF_SERVICE = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "DATA_LOSS"})
_ERROR = Status(StatusCode.ERROR)

# They say why a collector cannot be reached with the texts of exceptions, and at each try.
for _name in ("opentelemetry", "urllib3", "requests"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class Traces:
    """Makes the spans of one service, and sends them to a collector at a URL, to which /v1/traces is added.

    Of the traces that begin here, `ratio` are recorded; in the others the caller has decided.
    """

    def __init__(self, endpoint: str, ratio: float) -> None:
        exporter = _Exporter(OTLPSpanExporter(endpoint.removesuffix("/") + _PATH, timeout=_SEND_SECONDS))
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({"service.name": "course-service"}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=_MAX_WAITING,
                schedule_delay_millis=_PAUSE_SECONDS * 1000,
                max_export_batch_size=_MAX_BATCH,
            )
        )
        self._tracer = self._provider.get_tracer("course_service")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, call: Call, credentials: Credentials) -> None:
        """Begin the span of a call, in the trace of its caller if it names one: `traceparent`, as W3C has it."""
        # Not `tracestate`: it would be a text of the caller's in every span.
        parents = credentials.values("traceparent")
        carrier = {"traceparent": parents[0]} if len(parents) == 1 else {}
        span = self._tracer.start_span(
            call.method,
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        )
        call.trace = span
        call.trace_id = format_trace_id(span.get_span_context().trace_id)

    def end(self, call: Call) -> None:
        """End the span of a call."""
        span = call.trace
        if not isinstance(span, Span):
            return
        if span.is_recording():
            span.update_name(call.method)
            span.set_attributes(
                {
                    "rpc.system": call.face,
                    "rpc.method": call.method,
                    "course.caller": call.caller,
                    "course.code": call.code,
                    **({"course.reason": call.reason} if call.reason else {}),
                }
            )
            if call.code in _FAULTS_OF_SERVICE:
                span.set_status(_ERROR)
        span.end()
        call.trace = None

    def begin_unit(self, kind: str) -> Span | None:
        """Begin the span of a unit of work of the database, in that of the current call."""
        parent = current_call.current().trace
        if not isinstance(parent, Span):
            return None
        return self._tracer.start_span(
            f"database {kind}",
            set_span_in_context(parent),
            SpanKind.CLIENT,
            record_exception=False,
            set_status_on_exception=False,
        )

    def end_unit(self, span: Span | None, error: BaseException | None) -> None:
        """End the span of a unit of work."""
        if span is None:
            return
        if isinstance(error, (DatabaseUnavailable, DeadlineExceeded)) or not isinstance(error, CourseError | None):
            span.set_status(_ERROR)
        span.end()

    def close(self) -> None:
        """Send what waits, unless that takes too long, and end."""
        # The library would wait for each batch as long as a batch may take.
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


class _Exporter(SpanExporter):
    """Sends spans, and says at most once a minute that it cannot."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._said_at = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() - self._said_at >= _SILENCE_SECONDS:
                self._said_at = time.monotonic()
                _log.warning("%d spans could not be sent to COURSE_OTLP_ENDPOINT", self._lost)
                self._lost = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
