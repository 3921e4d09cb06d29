"""`make bot`: the chat page of 7.6 on 127.0.0.1, with the newest adapter or with the base model, saying which."""

import argparse

from helpers.chat_page import page
from helpers.checkpoints import newest_checkpoint, run_folder


def load_bot(checkpoints=None):
    """Return (model, tokenizer, what it is): with the newest whole adapter in ``checkpoints``, else the base model.

    ``checkpoints``: a folder with checkpoint-N folders; default: where 7.6 leaves them at this size.
    Computes in fp32 or, where the machine is good at it, in half.
    """
    from peft import PeftConfig, PeftModel

    from helpers.formatting import set_chat_template
    from helpers.models import first_available, load_model, load_tokenizer
    from helpers.sizes import compute_dtype, run_size

    run = run_size("7.6")
    precision = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[str(compute_dtype()).removeprefix("torch.")]
    adapter = newest_checkpoint(checkpoints or run_folder("7.6") / run.size / "checkpoints")
    if adapter is None:
        base = first_available(run.model, vars(run).get("fallback"))
        name = f"还没有微调：{base} 原模型（先跑 7.6 或 make course）"
        return load_model(base, precision), set_chat_template(load_tokenizer(base)), name
    base = PeftConfig.from_pretrained(adapter).base_model_name_or_path
    model = PeftModel.from_pretrained(load_model(base, precision), adapter)
    return model, set_chat_template(load_tokenizer(base)), f"7.6 的适配器 {adapter.name}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="the chat page of 7.6")
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 shows the page to everybody who reaches this machine"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--checkpoints", help="a folder with checkpoint-N folders; default: those of 7.6")
    arguments = parser.parse_args()
    model, tokenizer, name = load_bot(arguments.checkpoints)
    print(name, flush=True)
    blocks = page(model, tokenizer, name)
    blocks.launch(server_name=arguments.host, server_port=arguments.port, share=False, footer_links=[])
