"""The rows that every benchmark trains on, and the folder that all contestants read them from."""

import json
import shutil

from benchmarks.common import WORK
from helpers.consultation import SYSTEM


def consultations(train: int, held_out: int, turns: int = 1, max_length: int = 256) -> tuple[list, list]:
    """Return (train, held out) lists of ``messages``, prepared as in 7.6: leading turns within ``max_length`` tokens.

    Raises ValueError when fewer than ``train`` rows are left.
    """
    from helpers.datasets import bundled, split
    from helpers.formatting import encode_chat, set_chat_template, with_system
    from helpers.models import load_tokenizer
    from helpers.sizes import SMOLLM2

    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    rows = [{**r, "messages": with_system(r["messages"], SYSTEM)[: 1 + 2 * turns]} for r in bundled("consultations")]
    rows = [r for r in rows if len(encode_chat(tokenizer, r["messages"])["input_ids"]) <= max_length]
    parts = split(rows, train, held_out)
    if len(parts[0]) < train:
        raise ValueError(f"only {len(parts[0])} rows are left for training, {train} were asked for: use --rows")
    return tuple([row["messages"] for row in part] for part in parts)


def prepare(rows: int, held_out: int) -> dict:
    """Write model, training and held-out rows for all contestants under outputs/bench; return paths and token counts."""
    from benchmarks.evaluate import encode_held_out
    from helpers.models import model_path
    from helpers.sizes import SMOLLM2, run_size

    run = run_size("7.6")
    parts = consultations(rows, held_out, run.turns, run.max_length)
    data = WORK / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("consultations", "held_out"), parts, strict=True):
        lines = [json.dumps(dict(messages=messages), ensure_ascii=False) + "\n" for messages in part]
        (data / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    tags = dict(role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant", system_tag="system")
    columns = dict(file_name="consultations.jsonl", formatting="sharegpt", columns=dict(messages="messages"), tags=tags)
    (data / "dataset_info.json").write_text(json.dumps(dict(consultations=columns)))
    model = WORK / "model"  # transformers 4 does not know the tokenizer class that version 5 writes
    shutil.copytree(model_path(SMOLLM2), model, dirs_exist_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config |= dict(tokenizer_class="PreTrainedTokenizerFast", chat_template=(model / "chat_template.jinja").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    encoded = encode_held_out(parts[0])
    return dict(
        model=str(model),
        data=str(data),
        tokens=sum(len(row["input_ids"]) for row in encoded),
        supervised=sum(label != -100 for row in encoded for label in row["labels"]),
    )
