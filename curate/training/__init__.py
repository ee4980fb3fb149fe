"""Trains a LoRA adapter on the kept records; an interrupted training is resumed to the same bytes.

In reading order:

    arguments.py  turns the settings train.* into arguments of the Trainer
    features.py   checks token ids and labels, and pads them into batches
    callbacks.py  logs the steps, and ends training when the loss is not a number
    resume.py     seals checkpoints, and finds the last complete one
    lora.py       trains, loads and merges the adapter, with Trainer and PEFT
"""

import logging

# Importing PEFT imports bitsandbytes, which warns of optional kernels that are not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
