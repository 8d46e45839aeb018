"""Compare frames of a server with those of the run itself, in eager float32 on the CPU.

python3 parity.py REPOSITORY GPUS RESULT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import homomorph
from homomorph_client import MorphClient
from homomorph_export.serving.devices import choose_gpus
from homomorph_export.serving.server import TritonServer


def main() -> None:
    """Morph the pictures of the documentation on both, and write the largest and the mean difference."""
    repository, gpus, result = sys.argv[1:]
    pictures = [Path(__file__).parents[2] / "docs" / name for name in ("source.png", "target.png")]
    with TritonServer(Path(repository), gpus=choose_gpus(gpus)) as server, MorphClient(server.grpc_url) as client:
        served = client.morph(*pictures, steps=17)
    difference = np.abs(served.astype(int) - homomorph.load("avatars64").morph(*pictures, steps=17).astype(int))
    record = {"gpus": gpus, "grey_levels_max": int(difference.max()), "grey_levels_mean": float(difference.mean())}
    Path(result).write_text(json.dumps(record) + "\n")
    print(record)


if __name__ == "__main__":
    main()
