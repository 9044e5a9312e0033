"""How large a training is: its network, the batch that fits, and the time between validations."""
