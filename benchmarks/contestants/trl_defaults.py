"""TRL's SFTTrainer and peft's LoraConfig with their defaults, on a CPU.

Set: what measuring needs (paths, seed, one epoch, ten saves). Usage: trl_defaults.py MODEL DATA OUTPUT SEED
"""

import sys

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

model_id, data, output, seed = sys.argv[1:]
trainer = SFTTrainer(
    model=model_id,
    args=SFTConfig(
        output_dir=output,
        use_cpu=True,
        report_to="none",
        num_train_epochs=1,
        save_strategy="steps",
        save_steps=0.1,
        seed=int(seed),
    ),
    train_dataset=load_dataset("json", data_files=data, split="train"),
    peft_config=LoraConfig(),
)
trainer.train()
