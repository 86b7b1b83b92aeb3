"""How a token is drawn, given its condition z."""

from contar.heads.diffusion import DiffusionHead
from contar.heads.diffusion_mlp import DiffusionMLP, NetworkOptions
from contar.heads.energy import EnergyHead
from contar.heads.flow_map import FlowMapHead
from contar.heads.mean_flow import MeanFlowHead
from contar.heads.mixture import MixtureHead
from contar.heads.protocol import Noise, TokenHead, check_draw
from contar.heads.registry import (
    check_head,
    head_law,
    head_names,
    head_scheduler,
    make_head,
    register_head,
)
from contar.heads.released import released_head, released_names

__all__ = [
    "DiffusionHead",
    "DiffusionMLP",
    "EnergyHead",
    "FlowMapHead",
    "MeanFlowHead",
    "MixtureHead",
    "NetworkOptions",
    "Noise",
    "TokenHead",
    "check_draw",
    "check_head",
    "head_law",
    "head_names",
    "head_scheduler",
    "make_head",
    "register_head",
    "released_head",
    "released_names",
]
