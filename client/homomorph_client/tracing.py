"""The caller's trace, passed on to the server as W3C trace context, if the program uses OpenTelemetry."""

from __future__ import annotations


def trace_headers() -> dict[str, str]:
    """Return `traceparent` and `tracestate` of the span that the caller is in; nothing if there is none."""
    headers: dict[str, str] = {}
    try:
        from opentelemetry.propagate import inject
    except ImportError:  # it is not a dependency
        return headers
    inject(headers)
    return headers
