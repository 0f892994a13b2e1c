"""The `tracking` section of a configuration."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from fedbench.components.base import Section
from fedbench.config.stores import checked_store


class TrackingSection(Section):
    """What is recorded to MLflow.

    Attributes:
        enabled: Whether to record to MLflow at all; the run directory is written in any case.
        mlflow_uri: Tracking store or server, such as http://HOST:5000 or sqlite:///mlflow.db. null: MLflow's default.
        experiment: Name of the MLflow experiment that the run belongs to.
        tags: Tags that are added to the run.
    """

    enabled: bool = True
    mlflow_uri: Annotated[str | None, AfterValidator(checked_store)] = None
    experiment: str = Field(default="fedbench", min_length=1, pattern="^[^/]+$")
    tags: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if not self.enabled:
            for key in ("mlflow_uri", "experiment", "tags"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key}={getattr(self, key)} has no effect with enabled=false; leave it out")
        return self
