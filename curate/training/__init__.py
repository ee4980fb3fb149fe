"""Trains a LoRA adapter on the kept records; an interrupted training resumes to the same bytes.

In reading order:

    arguments.py  train.* as arguments of the Trainer
    callbacks.py  the log of steps; ends when the loss is no number
    resume.py     checkpoints that can be trusted
    lora.py       the adapter, trained with Trainer and PEFT
"""

import logging

# Importing PEFT imports bitsandbytes, which warns of optional kernels that are not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
