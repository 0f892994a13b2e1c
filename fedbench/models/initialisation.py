"""How the built-in deep networks draw their convolutions."""

from torch import nn


def initialise_convolutions(module: nn.Module) -> None:
    """Normal weights with variance 2 / (outputs x kernel area), zero biases, in place.

    K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 14 (the backward form).
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)
