"""How the work is spread: DeepSpeed, FSDP, and the batch that stays what the recipe says."""
