"""The command line of tritonserver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from homomorph_export.flavours import LIBTORCH, PYTHON, Flavour
from homomorph_export.serving.tls import ServerTls


@dataclass(frozen=True)
class Command:
    """The settings that become tritonserver's command line."""

    program: Path
    server_id: str
    """The server's name for itself, by which its launcher recognises it."""
    repository: Path
    backends: Path
    caches: Path
    configurations: Flavour
    models: Sequence[str]
    addresses: Mapping[str, tuple[str, int]]
    """Host and port of `grpc`, `metrics` and, if it is on, `http`."""
    shm_prefix: str
    cache_mib: int
    stop_timeout_s: float
    tls: ServerTls | None
    restrictions: Sequence[str]
    """Arguments that restrict calls to holders of a key."""
    preloaded: Sequence[Path]
    """Libraries to load into the server; their paths have no spaces or colons."""

    def words(self) -> list[str]:
        """Return the command's words."""
        return [
            *(["env", f"LD_PRELOAD={':'.join(map(str, self.preloaded))}"] if self.preloaded else []),
            str(self.program),
            f"--id={self.server_id}",
            *([] if self.configurations is PYTHON else [f"--model-config-name={self.configurations.name}"]),
            f"--model-repository={self.repository}",
            f"--backend-directory={self.backends}",
            f"--cache-directory={self.caches}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self.models),
            # The configurations are complete. Completing them would start each Python model a second time.
            "--disable-auto-complete-config",
            *([f"--cache-config=local,size={self.cache_mib << 20}"] if self.cache_mib else []),
            *(self.tls.arguments() if self.tls else []),
            *self.restrictions,
            f"--exit-timeout-secs={max(1, int(self.stop_timeout_s))}",
            f"--allow-http={str('http' in self.addresses).lower()}",
            *(f"--{service}-address={host}" for service, (host, _) in self.addresses.items()),
            *(f"--{service}-port={port}" for service, (_, port) in self.addresses.items()),
        ]


def operator_libraries(repository: Path, flavour: Flavour) -> list[Path]:
    """Return the operator's library if it must be preloaded into tritonserver.

    The libtorch backend cannot load a library of operators. Python models load it themselves; loading it twice would
    end their processes, so the result is empty for them.
    """
    libraries = sorted(repository.resolve().glob("*/1/libhomomorph_ops.so"))  # copies of one library; one is enough
    return libraries[:1] if flavour is LIBTORCH else []
