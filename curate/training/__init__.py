"""Training: a LoRA adapter on the kept records, that resumes to the same bytes."""

import logging

# Importing PEFT imports bitsandbytes, which warns of optional kernels that are not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
