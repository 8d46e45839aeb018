"""The reason that a dead server's log gives."""

from __future__ import annotations

import signal

import pytest

from homomorph_export.serving.log import failure_reason


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "E1123 05:55:25.596662 3261 model_lifecycle.cc:642] \"failed to load 'bad' version 1: Internal: "
            'RuntimeError: weights are missing\\n\\nAt:\\n  model.py(4): initialize\\n"\n'
            "error: creating server: Internal - failed to load all models\n",
            "model 'bad' failed to load: Internal: RuntimeError: weights are missing",
        ),
        ("I1123 x\nerror: creating server: Internal - no\n", "creating server: Internal - no"),
        (
            "E1123 06:06:05.185777 17414 main.cc:245] \"failed to start GRPC service: Socket '127.0.0.1:1' in use \"\n",
            "failed to start GRPC service: Socket '127.0.0.1:1' in use",
        ),
        (
            'E1123 06:06:05.185777 17414 ensemble_scheduler.cc:1481] "unable to create stream for morph: CUDA driver '
            'version is insufficient for CUDA runtime version"\n',
            "its log names no error",
        ),
        (
            'E1123 06:06:05.185777 17414 x.cc:1] "unable to create stream: CUDA driver version is insufficient"\n'
            "terminate called after throwing an instance of 'boost::interprocess::lock_exception'\n"
            "  what():  boost::interprocess::lock_exception\n",
            "it ended with an uncaught boost::interprocess::lock_exception",
        ),
        (
            'E1129 05:19:04.940795 3748 cuda_utils.cc:1] "CudaDriverHelper has not been initialized."\n',
            "its log names no error",
        ),
        (
            'E1129 05:19:04.940795 3748 cuda_utils.cc:1] "CudaDriverHelper has not been initialized."\n'
            "/x/bin/tritonserver: symbol lookup error: /x/libops.so: undefined symbol: PyInstanceMethod_Type\n",
            "symbol lookup error: /x/libops.so: undefined symbol: PyInstanceMethod_Type",
        ),
        (
            "/x/tritonserver: error while loading shared libraries: libb64.so: cannot open shared object file\n",
            "error while loading shared libraries: libb64.so: cannot open shared object file",
        ),
        (
            "ERROR: ld.so: object '/x/guard.so' from LD_PRELOAD cannot be preloaded (failed to map segment): ignored.\n"
            'Bad option: "--grpc-restricted-protocol".\n',
            "object '/x/guard.so' from LD_PRELOAD cannot be preloaded (failed to map segment). Allow programs in its "
            "folder, or delete it: the next start builds it again",
        ),
        ("", "its log names no error"),
    ],
    ids=["model", "error", "glog", "cuda", "uncaught", "driver-helper", "symbol", "library", "preload", "empty"],
)
def test_failure_reason(log: str, reason: str) -> None:
    assert failure_reason(log) == reason


def test_signals_are_named() -> None:
    assert failure_reason("", 128 + signal.SIGBUS) == "it was ended by SIGBUS: /dev/shm may be full"
    assert failure_reason("", 128 + signal.SIGKILL).startswith("it was ended by SIGKILL: the system may have run out")
    assert failure_reason("", 255) == "it was ended by signal 127"
