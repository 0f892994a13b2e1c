"""Initial values of the convolutions in the built-in deep networks."""

from torch import nn


def initialise_convolutions(module: nn.Module) -> None:
    """Draw the weights of all convolutions in place: normal with variance 2 / (outputs x kernel area), zero biases.

    K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 14 (the backward form).
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)
