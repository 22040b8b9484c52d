"""Traces for OpenTelemetry, where they are asked for; else nothing is imported and nothing is done.

Asked for by ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``…_TRACES_ENDPOINT``), with the extra ``otel`` installed. What was
asked of a history, and what it answered, is in no span.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SECONDS = 3
"""How long a collector may take: nobody waits longer for his answer because it is gone."""

Attribute = Callable[[str, str | int | float], None]


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[Attribute]:
    """A span around the block, which is given a way to say more of it. An error is told by its kind alone: its message
    may quote a history.
    """
    tracer = _tracer() if any(os.environ.get(name) for name in ENDPOINTS) else None
    if tracer is None:
        yield lambda *_: None
        return
    from opentelemetry.trace import Status, StatusCode

    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield made.set_attribute
        except BaseException as error:
            made.set_status(Status(StatusCode.ERROR))
            made.set_attribute("error.type", type(error).__name__)
            raise


@cache
def _tracer() -> Any:
    """A tracer of our own: libraries that trace themselves would tell what is asked."""
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or protocol not in ("", "http/protobuf"):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        return None
    from treering import __version__

    service = os.environ.get("OTEL_SERVICE_NAME", "treering")
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=SECONDS)))  # it is emptied at the end
    return provider.get_tracer("treering", __version__)
