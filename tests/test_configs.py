"""The launch configurations are what today's accelerate reads: an unknown key would stop a cluster job at its start."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parent.parent / "configs"


@pytest.mark.parametrize("name, kind, processes", [("fsdp", "FSDP", 2), ("multi_node", "MULTI_GPU", 8)])
def test_accelerate_reads_it(name, kind, processes):
    from accelerate.commands.config.config_args import load_config_from_file

    path = FOLDER / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert str(config.distributed_type).endswith(kind) and config.num_processes == processes
    assert set(yaml.safe_load(path.read_text())) <= set(vars(config))
