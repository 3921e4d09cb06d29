"""Losses per row are the same whether rows are evaluated one by one or together."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.evaluation import token_losses

SIZES = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)


def test_batches_give_the_losses_of_single_rows():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    rows = []
    for length, head in ((9, 3), (4, 1), (12, 8), (7, 2), (5, 4)):
        ids = torch.randint(1, 50, (length,)).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * head + ids[head:]})
    single, together = token_losses(model, rows), token_losses(model, rows, batch_size=3)
    assert [n for _, n in together] == [n for _, n in single] == [6, 3, 4, 5, 1]
    assert [x for x, _ in together] == pytest.approx([x for x, _ in single], rel=1e-4)
    with torch.no_grad():  # the model's own loss of the first row
        ids, labels = (torch.tensor([rows[0][key]]) for key in ("input_ids", "labels"))
        assert single[0][0] / 6 == pytest.approx(model(input_ids=ids, labels=labels).loss.item(), rel=1e-4)
    with pytest.raises(ValueError, match="without any supervised"):
        token_losses(model, [{"input_ids": [1, 2], "labels": [-100, -100]}])
