"""When a stream is sent again, and after which pauses."""

from __future__ import annotations

import grpc
import pytest

from homomorph_client.stream_attempts import StreamAttempts


class _Error(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def test_pauses_grow_and_end() -> None:
    attempts = StreamAttempts({"timeout": 60.0}, retries=6)
    pauses_s = [attempts.pause_s(_Error(grpc.StatusCode.UNAVAILABLE), answered=False) for _ in range(7)]
    for pause_s, wanted_s in zip(pauses_s, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=False):
        assert pause_s == pytest.approx(wanted_s, rel=0.21)
    assert pauses_s[-1] is None


@pytest.mark.parametrize(
    ("code", "answered"),
    [
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.INVALID_ARGUMENT, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False),
    ],
)
def test_final_errors(code: grpc.StatusCode, answered: bool) -> None:
    assert StreamAttempts({"timeout": 60.0}, retries=4).pause_s(_Error(code), answered=answered) is None


def test_all_attempts_share_one_timeout() -> None:
    attempts = StreamAttempts({"timeout": 1e-9, "metadata": []}, retries=4)
    assert attempts.options() == {"timeout": 0.0, "metadata": []}
    assert attempts.timeout_s == 1e-9
