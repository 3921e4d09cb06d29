"""What goes wrong in a training run on a small GPU: a loss that is nan or 0, memory that does not suffice."""

import gc


def stop_on_bad_loss():
    """Return a TrainerCallback that ends the run with RuntimeError, naming the likely cause, when the loss is nan or 0.

    It also switches off ``logging_nan_inf_filter``: with it the Trainer reports the average of earlier losses in
    place of nan, which is 0 when there is none.
    """
    import math

    from transformers import TrainerCallback

    class StopOnBadLoss(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            args.logging_nan_inf_filter = False

        def on_log(self, args, state, control, logs=None, **kwargs):
            loss = (logs or {}).get("loss")
            if loss is None or (math.isfinite(loss) and loss != 0):
                return
            if loss == 0:
                cause = "多半是没有一个词元有监督：回答被 max_length 截掉了，或标签全是 -100；用 show_supervised 看一行"
            elif args.fp16:
                cause = "多半是 FP16 溢出（最大 65504）：学习率减半；建好训练器之后要调用 adapters_to_fp32"
            else:
                cause = "多半是学习率太大，先减半；也可能这一批没有一个词元有监督（0/0），用 show_supervised 看一行"
            raise RuntimeError(f"第 {state.global_step} 步的损失是 {loss}，停止训练。{cause}")

    return StopOnBadLoss()


def train_or_shrink(trainer, resume_from_checkpoint=None):
    """Return ``trainer.train()``; when GPU memory runs out, explain it and try once more with the next smaller setting.

    The second attempt goes on from the newest whole checkpoint of ``output_dir`` if the run saves any (call
    :func:`helpers.checkpoints.resume_point` first, so that none is left from another run), else it begins anew.
    Raises torch.OutOfMemoryError when that does not suffice or nothing can be made smaller.
    """
    import torch

    from helpers.checkpoints import newest_checkpoint

    begin = {name: p.detach().cpu().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    try:
        return trainer.train(resume_from_checkpoint=resume_from_checkpoint)
    except torch.OutOfMemoryError:
        print(memory_table(trainer))
        if not shrink(trainer):
            raise
    # after `except`: as long as the error is handled, its traceback holds the activations
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without CUDA
    for name, parameter in trainer.model.named_parameters():
        if name in begin:
            parameter.data.copy_(begin[name])
    saved = newest_checkpoint(trainer.args.output_dir) if trainer.args.save_strategy != "no" else None
    return trainer.train(resume_from_checkpoint=saved or resume_from_checkpoint)


def shrink(trainer) -> bool:
    """Halve the rows per step and double the accumulation (an even number: the same updates), or else the rows' length.

    Prints what it did; returns False when nothing can be halved: one row at a time, short or packed.
    """
    args, dataset = trainer.args, trainer.train_dataset
    args.per_device_eval_batch_size = max(1, args.per_device_eval_batch_size // 2)
    if args.per_device_train_batch_size > 1:
        args.per_device_train_batch_size //= 2
        args.gradient_accumulation_steps *= 2
        trainer._train_batch_size = args.train_batch_size  # the Trainer copies it when it is built
        size, times = args.per_device_train_batch_size, args.gradient_accumulation_steps
        print(f"改成每次 {size} 条、累积 {times} 次更新一次，再试一次")
        return True
    length = longest(dataset) // 2
    if length < 32 or "seq_lengths" in dataset.column_names:
        return False
    dataset = dataset.map(lambda row: {name: row[name][:length] for name in ("input_ids", "labels")})
    trainer.train_dataset = dataset.filter(lambda row: any(label != -100 for label in row["labels"][1:]))
    print(f"每次已经只有 1 条，改成每条至多 {length} 个词元，再试一次；还不够就换小一号的模型")
    return True


def longest(dataset) -> int:
    """Return the length of the longest row in tokens."""
    return max(map(len, dataset["input_ids"]))


def memory_table(trainer) -> str:
    """Return what :func:`helpers.memory.plan` expects of this run, part by part in GiB, beside what the GPU has."""
    import torch

    from helpers.memory import plan

    args, model = trainer.args, trainer.model
    adapter = getattr(model, "peft_config", {}).get("default")
    precision = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[model.dtype]
    for flag, name in (("is_loaded_in_8bit", "int8"), ("is_loaded_in_4bit", "nf4")):
        precision = name if getattr(model, flag, False) else precision
    size, length = args.per_device_train_batch_size, longest(trainer.train_dataset)
    parts = plan(
        model.config,
        precision,
        r=adapter.r if adapter else None,
        sequence_length=length,
        batch_size=size,
        checkpointing=args.gradient_checkpointing,
        compute_bytes=2 if args.fp16 or args.bf16 else 4,
        optimizer_bytes=2 if "8bit" in args.optim else 8,
    )
    lines = {**parts, "sum": sum(parts.values())}
    if torch.cuda.is_available():
        lines["GPU"] = torch.cuda.get_device_properties(0).total_memory
    table = "\n".join(f"  {name:12} {count / 2**30:7.2f}" for name, count in lines.items())
    return f"显存不够。每次 {size} 条 × {length} 个词元，预计的峰值（GiB）：\n{table}"
