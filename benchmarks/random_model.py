"""A model of a given size and shape with random weights, written layer by layer, without the hub."""

import json
import re
import shutil
from pathlib import Path

from helpers.memory import empty_model, parameter_counts


def write_random_model(config: dict, folder: Path, seed: int) -> None:
    """Write a model of ``config`` with normal weights (standard deviation 0.02, norms 1) as fp16 safetensors.

    One file per layer, so that never more than a layer is in memory. Raises OSError when the disk is too small.
    """
    import torch
    from safetensors.torch import save_file

    counts = parameter_counts(config)
    needed = 2 * (counts["linear"] + counts["rest"])
    if shutil.disk_usage(folder).free < needed * 1.1:
        raise OSError(f"{folder} has too little room for {needed / 1e9:.1f} GB of weights: set TMPDIR to a larger disk")
    model = empty_model(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    random = torch.Generator(device).manual_seed(seed)
    files = {}
    for name, parameter in model.named_parameters():
        layer = re.search(r"layers\.(\d+)\.", name)
        files.setdefault(f"layer-{layer[1] if layer else 'none'}.safetensors", []).append((name, parameter.shape))
    for file, entries in files.items():
        tensors = {}
        for name, shape in entries:
            values = torch.ones(shape, device=device)
            if len(shape) > 1:  # all but the norms
                values.normal_(0, 0.02, generator=random)
            tensors[name] = values.half().cpu()
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, entries in files.items() for name, _ in entries}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model.config.save_pretrained(folder)
