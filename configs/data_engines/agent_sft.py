# A planner of Real-LOD's agent, from any causal language model with a chat template.
sft = dict(
    model="Qwen/Qwen3-4B-Instruct-2507",
    lora=dict(r=16, alpha=32, dropout=0.05, targets="all-linear"),  # None: the whole model
    max_length=1024,
    training=dict(  # of transformers.TrainingArguments
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        bf16=True,
        gradient_checkpointing=True,
    ),
)
