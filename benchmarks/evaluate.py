"""The one measure for every contestant: loss on the doctor's tokens of the held-out rows, by the course's template.

Every adapter is put on the same float32 base model, whatever it was trained on.
"""

import json
import sys
from pathlib import Path


def encode_held_out(conversations: list) -> list[dict]:
    """Return ``input_ids`` and ``labels`` of the held-out conversations, as 7.6 encodes them."""
    from helpers.formatting import encode_chat, set_chat_template
    from helpers.models import load_tokenizer
    from helpers.sizes import SMOLLM2

    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    return [encode_chat(tokenizer, messages) for messages in conversations]


def mean_loss(model, rows: list[dict]) -> float:
    """Return the loss per supervised token (nats) of ``rows``."""
    from helpers.evaluation import token_losses

    losses = token_losses(model, rows, batch_size=8)
    return sum(total for total, _ in losses) / sum(count for _, count in losses)


def adapter_losses(held_out: Path, adapters: list[Path]) -> list[float]:
    """Return the loss of the base model, then of the base model with each adapter folder."""
    from peft import PeftModel

    from helpers.models import load_model
    from helpers.sizes import SMOLLM2

    lines = held_out.read_text(encoding="utf-8").splitlines()
    rows = encode_held_out([json.loads(line)["messages"] for line in lines])
    model = load_model(SMOLLM2, "fp32")
    losses = [mean_loss(model, rows)]
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter)
        losses.append(mean_loss(model, rows))
        model = model.unload()
    return losses


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    losses = adapter_losses(Path(settings["held_out"]), [Path(a) for a in settings["adapters"]])
    print(json.dumps(dict(losses=losses)))
