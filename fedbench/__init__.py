"""fedbench: federated-learning experiments on a Ray cluster, with every byte and FLOP accounted for."""

__version__ = "0.1.0"
