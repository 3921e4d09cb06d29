"""LoRA: the configuration that the course uses, parameter arithmetic, and precision of the adapter."""


def lora_config(r: int = 16, alpha: int = 32, dropout: float = 0.0):
    """Return peft's LoraConfig on all linear layers except the output head.

    alpha 32 is the slides' value, and "all-linear" is what QLoRA found necessary to match full fine-tuning
    (arXiv 2305.14314, section 4). The slides' dropout 0.05 costs memory (benchmarks/results/ablation.json).
    """
    from peft import LoraConfig

    return LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def lora_parameter_count(model, r: int) -> int:
    """Return how many parameters LoRA of rank ``r`` adds to all linear layers but the output head.

    A layer of shape (d_out, d_in) gets A (r × d_in) and B (d_out × r), so r · (d_in + d_out)
    (LoRA, arXiv 2106.09685, section 4.1).
    """
    import torch

    head = model.get_output_embeddings()
    return sum(
        r * (layer.in_features + layer.out_features)
        for layer in model.modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    )


def count_parameters(model) -> tuple[int, int]:
    """Return (trainable, all) parameters; a 4-bit weight counts as the numbers that it stands for."""
    if hasattr(model, "get_nb_trainable_parameters"):
        return model.get_nb_trainable_parameters()
    return model.num_parameters(only_trainable=True), model.num_parameters()


def adapters_to_fp32(model) -> int:
    """Turn every trainable parameter into float32, in place, and return how many tensors were changed.

    Call it after the SFTTrainer is built and before ``train()``: the trainer casts the adapters of a
    quantized model to bfloat16, on which the fp16 gradient scaler of a T4 fails (trl issue 4901).
    """
    import torch

    changed = 0
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
            changed += 1
    return changed
