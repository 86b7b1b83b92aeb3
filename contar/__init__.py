"""contar: parts for models that generate images and video as sequences of continuous tokens.

The rooms, from the ground up: `data`, `media`; `attention`, `ordering`, `diffusion`;
`conditioning`, `tokenizers`; `backbones`, `heads`; `generation`; `training`, `evaluation`. Whole
models are in the package `recipes`.
Importing `contar` alone imports nothing heavy; import the room you need.
"""

import logging

# Diffusers imports xformers where it is installed, which then reports the kernels that it lacks.
# A level that somebody chose stays.
if (_xformers := logging.getLogger("xformers")).level == logging.NOTSET:
    _xformers.setLevel(logging.ERROR)

__version__ = "0.2.0"
