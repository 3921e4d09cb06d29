"""The slides' training code (7.6), for today's libraries and for those of its time (trl 0.12, transformers 4.46).

Changed: ``processing_class`` for ``tokenizer``, no ``overwrite_output_dir``, a CPU in full precision, and what measuring
needs (paths, seed, one epoch, ten saves instead of one, no evaluation). Usage: slides.py MODEL DATA OUTPUT SEED
"""

import sys

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

model_id, data, output, seed = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model_id)
model = AutoModelForCausalLM.from_pretrained(model_id)  # saved in float32


def apply_chat_template(example, tokenizer):
    messages = example["messages"]
    # We add an empty system message if there is none
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": ""})
    example["text"] = tokenizer.apply_chat_template(messages, tokenize=False)
    return example


dataset = load_dataset("json", data_files=data, split="train")
small_train_dataset = dataset.map(apply_chat_template, fn_kwargs={"tokenizer": tokenizer}, remove_columns=["messages"])

tokenizer.pad_token = tokenizer.eos_token
training_args = SFTConfig(
    output_dir=output,
    dataset_text_field="text",
    packing=True,
    logging_steps=1,
    per_device_train_batch_size=1,
    save_strategy="steps",
    save_steps=0.1,
    num_train_epochs=1,
    use_cpu=True,
    bf16=False,
    report_to="none",
    seed=int(seed),
)
peft_config = LoraConfig(
    lora_alpha=32,
    lora_dropout=0.05,
    bias="none",
    task_type="CAUSAL_LM",
)
trainer = SFTTrainer(
    model=model,
    args=training_args,
    train_dataset=small_train_dataset,
    processing_class=tokenizer,
    peft_config=peft_config,
)
trainer.train()
