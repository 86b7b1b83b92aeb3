"""From words to pixels: NOVA's network with its tokenizer and text encoder, as a pipeline."""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from torch import nn
from torch.nn import functional

from contar._errors import bad, check_choice, check_instance
from contar._random import Generators, check_generator, normal
from contar._typing import Float, Int, Tensor, UInt8
from contar.conditioning import encode_texts
from contar.generation import Graphs, Monitor, Progress
from contar.tokenizers import VAETokenizer
from recipes._nova.call import Call, Texts, make_call, mix
from recipes._nova.motion import motion_numbers
from recipes._nova.network import Nova
from recipes._nova.pixels import Pixels, frames_of, read_given, show
from recipes._nova.request import Request, default_values, read_numbers, read_words
from recipes._nova.settings import read_order
from recipes.nova import draw_frames


@dataclass
class NovaOutput(BaseOutput):
    """What a pipeline made.

    Attributes:
        frames: [b, t, h, w, 3] uint8 ("np"), a list of pictures for each sample ("pil"),
            [b, t, 3, h, w] in [0, 1] ("pt"), latents [b, c, t, h, w] ("latent"), or the
            iterator that `NovaPipeline.stream` returns ("stream").
    """

    frames: Any


class NovaPipeline(DiffusionPipeline):
    """Text, and pictures if given, to an image or a video. `nova.from_pretrained` loads one.

    Args:
        transformer: the network.
        vae: autoencoder that `VAETokenizer` takes.
        scheduler: of diffusers; its config is read, the object never stepped.
        text_encoder: of transformers; None takes embeddings only.
        tokenizer: of transformers.
        defaults: what None means in a call, as `RELEASED_DEFAULTS`; left out, as those.
        text_package: a package and folder that text encoder and tokenizer come from, as
            `contar.conditioning.text_package` takes it; saving then names it instead of them.

    Raises:
        ValueError: another network, a scheduler without a config, a tokenizer of other channels
            than the network, a text encoder without its tokenizer or of another width, an unknown
            default.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["text_encoder", "tokenizer"]  # noqa: RUF012 - diffusers' convention

    def __init__(
        self,
        transformer: Nova,
        vae: Any,
        scheduler: Any,
        text_encoder: Any = None,
        tokenizer: Any = None,
        defaults: Mapping[str, Any] | None = None,
        text_package: str | None = None,
    ) -> None:
        super().__init__()
        check_instance("transformer", transformer, Nova)
        if not isinstance(getattr(scheduler, "config", None), Mapping):
            raise bad("scheduler", type(scheduler).__name__, "a scheduler of diffusers")
        sizes, pixels = transformer.sizes, VAETokenizer(vae)
        if pixels.channels != sizes.channels:
            raise bad("vae", f"{pixels.channels} channels", f"the network's {sizes.channels}")
        if (text_encoder is None) != (tokenizer is None):
            allowed = "one with a text_encoder, none without"
            raise bad("tokenizer", type(tokenizer).__name__, allowed)
        config = getattr(text_encoder, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise bad("text_encoder", type(text_encoder).__name__, "an encoder or a decoder alone")
        width = getattr(config, "hidden_size", None)
        if text_encoder is not None and width != sizes.text_width:
            raise bad("text_encoder", f"width {width}", f"the network's {sizes.text_width}")
        self.register_modules(
            transformer=transformer, vae=vae, scheduler=scheduler,
            text_encoder=text_encoder, tokenizer=tokenizer,
        )  # fmt: skip
        self.register_to_config(
            defaults=default_values(transformer, pixels, {} if defaults is None else defaults),
            text_package=text_package,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | Sequence[tuple[int, str | Sequence[str]]] | None = None,
        *,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        num_diffusion_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_trunc: float = 0,
        min_guidance_scale: float | None = None,
        guidance_renorm: float | None = None,
        temperature: float | tuple[float, float] | None = None,
        flow_shift: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        motion_flow: float | Sequence[float] | None = None,
        fps: float | Sequence[float] | None = None,
        height: int | None = None,
        width: int | None = None,
        image: Pixels | None = None,
        video: Pixels | None = None,
        mask: Pixels | None = None,
        canvas: tuple[int, int, int, int] | None = None,
        grow: int = 1,
        mix: tuple[str | Sequence[str], float] | None = None,
        num_images_per_prompt: int = 1,
        prompt_embeds: Texts | None = None,
        negative_prompt_embeds: Texts | None = None,
        order: Int[Tensor, "b m"] | None = None,
        generator: Generators | None = None,
        plan_changes: Mapping[str, Any] | None = None,
        graphs: Graphs | None = None,
        output_type: str = "np",
        callback_on_step_end: Callable[..., object] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Generate; every argument is checked before any work, and None is the model's default.

        Args:
            prompt: a text or several; an empty one leaves the choice to the model. Or pairs of a
                frame of the video and these, as [(0, "a seven moves left"), (9, "it moves up")]:
                each holds from the latent frame on in which its frame is, see `nova.stream`.
            num_frames: of the result, given ones included; one that the tokenizer can make.
            num_inference_steps: sets in which a frame's tokens are generated.
            num_diffusion_steps: of each set.
            guidance_scale: 0 to 1 is none.
            guidance_trunc: timestep below which there is no guidance.
            min_guidance_scale: scale before the first set, from where it rises linearly.
            guidance_renorm: in [0, 1], least factor that shortens a guided prediction; 1 is off.
            temperature: below 1 for likelier tokens, as `GenerationPlan` says; or the first frame's
                and the last frame's, between which it changes evenly.
            flow_shift: of the timesteps of a flow.
            negative_prompt: what guidance leads away from, one or one for each prompt.
            motion_flow: optical flow score, one or one for each sample. Videos only.
            fps: frames per second that the motion is meant for, likewise.
            height: in pixels.
            width: in pixels.
            image: the first frame, uint8 [h, w, 3] or a picture, or one for each prompt.
            video: the first frames, uint8 [n, h, w, 3] or pictures, n as the tokenizer takes them;
                or uint8 [b, n, h, w, 3], one clip for each prompt.
            mask: what of image or video is made anew: white, in uint8 or bool [h, w], of every
                frame, or [n, h, w], or pictures. Black comes back, see `docs/editing.md`.
            canvas: pixels that are added to image or video at the top, right, bottom and left, and
                made anew; those are smaller than the result by as many.
            grow: tokens by which the mask grows on each side, where given and made pixels fade into
                each other. 0 gives back all that is black, with a seam: the tokens beside the mask
                are then kept, and know a little of what is hidden.
            mix: another text, or one for each prompt, and a weight from 0 to 1: what is made stands
                between the two.
            num_images_per_prompt: samples of each prompt.
            prompt_embeds: states of the text encoder instead of `prompt`, as `nova.stream` takes.
            negative_prompt_embeds: likewise.
            order: [samples, tokens], the order of a frame's tokens, as `nova.stream` takes it.
            generator: one, or one for each sample; draws the posterior of image or video first.
            plan_changes: fields of `GenerationPlan` by name, all but frames and grid, such as
                `refresh`; they win over defaults, and another argument may not say the same.
            graphs: replays each set as one CUDA graph, as `nova.stream` takes it.
            output_type: "np", "pil", "pt", "latent" or "stream"; see `NovaOutput`.
            callback_on_step_end: called after each set with the pipeline, the number of sets that
                are done, the number of the frame, and {"tokens": [b, n, c], the frame so far;
                "progress": the `Progress` that says which set filled which of them}; what it
                raises ends the call, and the pipeline stays usable.
            return_dict: False returns a tuple.

        Raises:
            ValueError: an argument that does not fit the model or the others.
        """
        check_choice("output_type", output_type, ("np", "pil", "pt", "latent", "stream"))
        model, pixels = self.transformer, VAETokenizer(self.vae)
        values, settings = read_numbers(
            model, self.scheduler, pixels, self.config["defaults"], height=height, width=width,
            num_frames=num_frames, num_inference_steps=num_inference_steps,
            num_diffusion_steps=num_diffusion_steps, guidance_scale=guidance_scale,
            guidance_trunc=guidance_trunc, min_guidance_scale=min_guidance_scale,
            guidance_renorm=guidance_renorm, temperature=temperature, flow_shift=flow_shift,
            motion_flow=motion_flow, fps=fps, plan_changes=plan_changes,
        )  # fmt: skip
        frames = values["num_frames"]
        words = read_words(
            settings, pixels, frames, self.text_encoder is not None, prompt, prompt_embeds,
            negative_prompt, negative_prompt_embeds, mix, num_images_per_prompt,
        )  # fmt: skip
        given = {"image": image, "video": video, "mask": mask, "canvas": canvas, "grow": grow}
        clip, edit = read_given(settings, pixels, words.prompts, frames, **given)
        request = Request(
            settings=settings, words=words, clip=clip, edit=edit, graphs=graphs,
            motion=motion_numbers(model, words.batch, values["motion_flow"], values["fps"]),
            order=read_order(settings, order, words.batch), callback=callback_on_step_end,
            generator=check_generator(generator, words.batch, self._execution_device),
        )  # fmt: skip
        made = self._made(request, output_type)
        return NovaOutput(frames=made) if return_dict else (made,)

    def stream(
        self,
        prompt: str | Sequence[str] | Sequence[tuple[int, str | Sequence[str]]] | None = None,
        **options: Any,
    ) -> Iterator[UInt8[np.ndarray, "*b n h w 3"]]:
        """Generate, and yield frames as soon as the latent frame that they come of is finished.

        Together they are those of a call, up to rounding; where the tokenizer is not `incremental`,
        as of the Open-Sora-Plan VAE, they come near, see `VAETokenizer.decode_next`. Given frames
        come first. A pipeline may be called, or stream again, while a stream waits; one that is
        offloaded has one thing done at a time.

        Args:
            prompt: as in a call.
            options: of a call, all but `output_type` and `return_dict`.

        Yields:
            uint8 [n, h, w, 3] of one text, n frames each time (of the released tokenizers 1, then
            4); [b, n, h, w, 3] of a list of texts, `prompt_embeds`, or several samples of a text.

        Raises:
            ValueError: as a call, before the first frame is asked for.

        Example:
            >>> from recipes.nova import from_pretrained
            >>> pipe = from_pretrained("moving-digits")
            >>> pipe.set_progress_bar_config(disable=True)
            >>> frames = pipe.stream("a seven moves up", num_frames=9, num_inference_steps=2)
            >>> [piece.shape for piece in frames]
            [(1, 64, 64, 3), (4, 64, 64, 3), (4, 64, 64, 3)]
        """
        for name in ("output_type", "return_dict"):
            if name in options:
                raise TypeError(f"stream() takes no {name}: it yields arrays of frames")
        return self(prompt, output_type="stream", return_dict=False, **options)[0]

    def _made(self, request: Request, output_type: str) -> Any:
        """Return frames, or an iterator of them, as `NovaOutput` says for an output type."""
        if output_type == "stream":
            return self._pieces(request)
        try:
            latents = torch.stack([*self._latents(request)], dim=2)
            self._wake(self.vae)
            return show(latents, VAETokenizer(self.vae), output_type, request.edit)
        finally:
            self.maybe_free_model_hooks()

    def _pieces(self, request: Request) -> Iterator[UInt8[np.ndarray, "*b n h w 3"]]:
        """Yield frames, latent frame by latent frame."""
        pixels, state, first = VAETokenizer(self.vae), None, 0
        try:
            with closing(self._latents(request)) as latents:
                for latent in latents:
                    self._wake(self.vae)
                    piece, state = pixels.decode_next(latent[:, :, None], state)
                    frames = frames_of(piece, request.edit, first)
                    first += frames.shape[1]
                    yield frames[0] if request.words.alone else frames
                    self._wake(self.transformer)
        finally:
            if not sys.is_finalizing():  # an interpreter that ends frees all
                self.maybe_free_model_hooks()

    def _latents(self, request: Request) -> Generator[Float[Tensor, "b c h w"], None, None]:
        """Yield latent frames, given ones first."""
        call = self._call(request)
        with self.progress_bar(total=call.sets) as bar:  # type: ignore[call-arg]

            def after(progress: Progress) -> None:
                bar.update()
                if request.callback is not None:
                    earlier = sum(map(len, call.frame_sizes[: progress.frame]))
                    told = {"tokens": progress.tokens, "progress": progress}
                    request.callback(self, earlier + progress.set + 1, progress.frame, told)

            yield from draw_frames(call, Monitor(call.sets, callback=after))

    @torch.no_grad()
    def _call(self, request: Request) -> Call:
        """Return what the network is asked for: states of the texts, latents of given frames."""
        words = request.words
        negatives = words.negatives if request.settings.plan.guidance.active else None
        timeline = [(frame, self._states(texts)) for frame, texts in words.timeline]
        negatives, others = self._states(negatives), self._states(words.others)
        given = self._given_latents(request)
        self._wake(self.transformer)
        if others is not None:
            timeline = [(0, mix(self.transformer, timeline[0][1], others, words.weight))]
        return make_call(
            request.settings, timeline, negatives, request.motion, order=request.order,
            copies=words.copies, generator=request.generator, graphs=request.graphs, **given,
        )  # fmt: skip

    def _given_latents(self, request: Request) -> dict[str, Tensor | None]:
        """Return what is given, drawn once from one generator: a context, or latents and `keep`."""
        if request.clip is None:
            return {"context": None}
        self._wake(self.vae)
        pixels, clip = VAETokenizer(self.vae), request.clip.to(self._execution_device)
        times, generator = request.words.batch // len(clip), request.generator
        if isinstance(generator, torch.Generator):
            context = pixels.encode(clip, generator=generator).repeat_interleave(times, dim=0)
        else:
            mean, deviation = (x.repeat_interleave(times, dim=0) for x in pixels.posterior(clip))
            noise = normal(*mean.shape, generator=generator, device=mean.device)
            context = mean + deviation * noise
        self.maybe_free_model_hooks()  # or an offloaded tokenizer would stay
        if request.edit is None:
            return {"context": context}
        missing = request.settings.plan.frames - context.shape[2]
        latents = functional.pad(context, (0, 0, 0, 0, 0, missing))
        return {"context": None, "latents": latents, "keep": request.edit.keep}

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder_or_hub_id: str | Path, **options: Any
    ) -> "NovaPipeline":
        """Load a pipeline; it is `nova.from_pretrained`, which says more."""
        from recipes._nova.files import from_pretrained

        return from_pretrained(folder_or_hub_id, **options)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        layout: str = "contar",
        max_shard_size: int | str | None = None,
    ) -> None:
        """Save to a folder.

        All is written beside its place and then moved in. Weights of a part that were there go, in
        one file or in shards; other files stay.

        Args:
            save_directory: made if it is not there.
            layout: "contar", or "released": with the names, files and keys of released folders,
                so that the official code reads it.
            max_shard_size: of the parts' files, as "5GB"; for "contar" only.

        Raises:
            ValueError: an unknown layout, or a network that official code cannot build.
            OSError: a file could not be written; the folder is as it was.
        """
        check_choice("layout", layout, ("contar", "released"))
        if layout == "released" and max_shard_size is not None:
            raise bad("max_shard_size", max_shard_size, "None for the released layout")
        from recipes._nova.files import save_pipeline

        options = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        save_pipeline(self, Path(save_directory), layout, **options)

    def _states(self, texts: Any) -> Any:
        """Return the states of texts on the device; given ones are only moved there."""
        if texts is None:
            return None
        model, device = self.transformer, self._execution_device
        sizes, dtype = model.sizes, model.begin.dtype
        if isinstance(texts, Tensor):
            return texts.to(device, dtype)
        if isinstance(texts[0], str) and not any(texts):
            texts = [torch.zeros(0, sizes.text_width) for _ in texts]
        elif isinstance(texts[0], str):
            self._wake(self.text_encoder)
            length = sizes.text_length
            texts = encode_texts(texts, self.tokenizer, self.text_encoder, length=length)
        return [states.to(device, dtype) for states in texts]

    @staticmethod
    def _wake(module: nn.Module) -> None:
        """Bring an offloaded part to the device; its own hook waits for a `forward`."""
        hook = getattr(module, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(module)
