"""What all sections share: strictness, and the types of their fields.

A field that is None is left to the backend: nothing is rendered for it. A field with another
default means the same on both backends, and is always rendered.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    StringConstraints,
    model_serializer,
)

Text = Annotated[str, StringConstraints(min_length=1)]
Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Texts = Annotated[tuple[Text, ...], Strict(False)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Numbers = Annotated[tuple[Real, ...], Strict(False)]
Ints = Annotated[tuple[int, ...], Strict(False)]
IntPair = Annotated[tuple[int, int], Strict(False)]
Options = dict[str, Any]
OptionsList = Annotated[tuple[Options, ...], Strict(False)]
PerEpoch = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}/epoch$")]
ShareOfRun = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Cadence = Annotated[
    Literal["epoch", "never", "best"] | Positive | ShareOfRun | PerEpoch,
    Field(
        description="epoch, N/epoch, never, best, every N optimizer steps, or a share of the run"
    ),
]


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors, values never change."""

    # built once, as parts of the recipe, and not each by itself on import
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True
    )

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that are None by default and stay so say nothing, and are not written out."""
        fields = type(self).model_fields
        return {
            name: value
            for name, value in handler(self).items()
            if value is not None or fields[name].default is not None
        }
