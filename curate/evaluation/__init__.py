"""What a model is worth: response losses on references, lm-eval tasks, a judge that is asked over the network."""
