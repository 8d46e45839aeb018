"""Find in tritonserver's log why a server ended."""

from __future__ import annotations

import re
import signal

_HARMLESS = ("CUDA driver version", "CudaDriverHelper has not been initialized", "DCGM")
"""Parts of error messages that appear on every machine without a GPU."""
_SIGNALS = {
    signal.SIGKILL: "the system may have run out of memory",
    signal.SIGBUS: "/dev/shm may be full",
}


def failure_reason(log: str, code: int = 0) -> str:
    """Return in one line why a server ended.

    Args:
        log: text of its log.
        code: its exit code as a shell reports it, 128 plus the number of a signal; 0 if it runs.
    """
    failed = re.search(r"\"failed to load '([^']+)' version \d+: (.*)\"$", log, re.MULTILINE)
    if failed:
        reason = failed[2].split("\\n")[0]  # the log writes line ends as \n; a Python model's traceback follows
        return f"model {failed[1]!r} failed to load: {reason}"
    uncaught = re.search(r"^terminate called after throwing an instance of '(.*)'$", log, re.MULTILINE)
    if uncaught:
        return f"it ended with an uncaught {uncaught[1]}"
    missing = re.search(r"^.*?((?:symbol lookup error|error while loading shared libraries): .*)$", log, re.MULTILINE)
    if missing:
        return missing[1]
    errors: list[str] = re.findall(r"^(?:error: |E\d{4} .*?\] \")(.*?)\s*\"?$", log, re.MULTILINE)
    errors = [error for error in errors if not any(words in error for words in _HARMLESS)]
    if errors:
        return errors[-1]
    ignored = re.search(
        r"^ERROR: ld\.so: (object '.*?' from LD_PRELOAD cannot be preloaded .*): ignored", log, re.MULTILINE
    )
    if ignored:
        return f"{ignored[1]}. Allow programs in its folder, or delete it: the next start builds it again"
    if code > 128:
        return ended_by(code - 128)
    return "its log names no error"


def ended_by(number: int) -> str:
    """Describe the end of a process by a signal."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    hint = next((f": {words}" for known, words in _SIGNALS.items() if known == number), "")
    return f"it was ended by {name}{hint}"
