"""Which cores and GPUs a server uses, and which configurations that takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from homomorph_client.errors import ServerError
from homomorph_export.flavours import GPU, LIBTORCH, ONNX, PYTHON
from homomorph_export.serving import devices
from homomorph_export.serving.devices import choose_cores, choose_gpus, visible_devices

CORES = sorted(os.sched_getaffinity(0))


def test_cores_are_some_of_those_that_there_are() -> None:
    assert choose_cores(None) == tuple(CORES)
    assert choose_cores(1) == (CORES[0],)
    for count in (0, len(CORES) + 1):
        with pytest.raises(ServerError, match=rf"from 1 to {len(CORES)}, which is what there is here, not {count}"):
            choose_cores(count)


def test_gpus_are_those_asked_for_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 3)
    assert choose_gpus(None) == (0, 1, 2)
    assert choose_gpus("none") == ()
    assert choose_gpus("2, 0") == (2, 0)
    # The other flavours' configurations are for the CPU.
    assert choose_gpus(None, LIBTORCH) == choose_gpus("none", ONNX) == ()
    with pytest.raises(ServerError, match="flavour python: the configurations of onnx are for the CPU"):
        choose_gpus("0", ONNX)
    with pytest.raises(ServerError, match="there is no GPU 3: torch finds GPUs 0 to 2 on this machine"):
        choose_gpus("0,3")


def test_without_gpus_the_cpu_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 0)
    assert choose_gpus(None) == ()
    with pytest.raises(ServerError, match="there is no GPU 0: torch finds no GPU on this machine"):
        choose_gpus("0")


@pytest.mark.parametrize("asked", ["", "all", "0,", "-1", "0,0", "0.5"])
def test_gpus_that_are_no_list(asked: str) -> None:
    with pytest.raises(ServerError, match="numbers with commas between, such as 0,1, or none"):
        choose_gpus(asked)


def test_gpus_are_counted_among_the_visible_ones() -> None:
    assert visible_devices((), None) == visible_devices((), "0,1") == "", "a server on the CPU sees none"
    assert visible_devices((1, 0), None) == "1,0"
    assert visible_devices((1,), "GPU-a,GPU-b") == "GPU-b"


def test_a_repository_has_configurations_for_gpus_beside_those_for_the_cpu(repository: Path) -> None:
    def read(file: Path) -> schema.ModelConfig:
        return text_format.Parse(file.read_text(), schema.ModelConfig())

    models = sorted(path.parents[1] for path in repository.glob("*/1/model.pt"))
    assert models
    for folder in models:
        cpu, gpu = read(folder / PYTHON.config_file), read(folder / GPU.config_file)
        (group,) = gpu.instance_group
        assert (group.kind, list(group.gpus)) == (schema.ModelInstanceGroup.KIND_GPU, []), "on all that it sees"
        assert cpu.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU
        group.kind = schema.ModelInstanceGroup.KIND_CPU
        assert gpu == cpu, "and they differ in nothing else"
