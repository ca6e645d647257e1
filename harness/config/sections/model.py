"""The network around the attention block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from harness.config.sections.section import Section
from models.attention import variant_names
from models.attention.base import ValueConvolutionConfig
from models.backbone import BACKBONE_SIZES

if TYPE_CHECKING:
    VariantName = str
else:
    VariantName = Literal[variant_names()]


class ModelConfig(Section):
    """The diffusion transformer around the attention block. Depth, width and heads of a named
    size can be overridden one by one."""

    size: Literal["tiny", "S", "B", "L", "XL"]
    depth: int = Field(ge=1, le=200)
    width: int = Field(ge=8, le=8192, multiple_of=4)
    heads: int = Field(ge=1, le=256, description="for variants that do not choose their own")
    patch_size: int = Field(ge=1, le=32)
    feedforward: Literal["mlp", "mix"] = Field(description="of DiT, or SANA's with a convolution")
    mlp_ratio: float = Field(gt=0, le=16)
    match_parameters_of: VariantName | None = Field(
        description="widen the feed-forward part until the network has as many parameters as with "
        "this attention variant and its default fields; null leaves it at mlp_ratio"
    )
    positions: Literal["sincos", "none"]
    qk_norm: bool = Field(description="RMSNorm of queries and keys, over all channels")
    label_dropout: float = Field(ge=0, lt=1)
    value_convolution: ValueConvolutionConfig

    @model_validator(mode="before")
    @classmethod
    def _fill_in_named_size(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # A misspelt size is one mistake; it must not be followed by missing depth, width and heads.
        size = values.get("size")
        named = BACKBONE_SIZES["tiny"]
        if isinstance(size, str):
            named = BACKBONE_SIZES.get(size, named)
        return {"depth": named.depth, "width": named.width, "heads": named.heads, **values}

    @field_validator("heads")
    @classmethod
    def _heads_divide_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width")
        if width is not None and width % heads:
            raise ValueError(
                f"model.heads must divide model.width, but {width} / {heads} leaves a rest"
            )
        return heads
