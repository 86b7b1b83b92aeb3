"""What our networks and autoencoders share: how diffusers' methods save and load them."""

from pathlib import Path
from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin

from contar._building import build_for
from contar._files import apart, check_finite, read_json, read_weights
from contar._saving import written_beside
from contar.cpu import speed_up


class Model(ModelMixin, ConfigMixin):
    """A model of diffusers, saved with exactly one set of weights and loaded with care."""

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:  # type: ignore[override]
        """Save as diffusers does, whose options it takes.

        The files are written beside their place and then moved in; weights that were there go, in
        one file or in shards.

        Raises:
            OSError: a file could not be written; the folder is as it was.
        """
        folder = Path(save_directory)
        if options.get("push_to_hub"):
            options.setdefault("repo_id", folder.name)
        hook: Any = self.register_state_dict_post_hook(_untie)
        try:
            with written_beside(folder) as beside:
                super().save_pretrained(str(beside), **options)
        finally:
            hook.remove()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:  # type: ignore[override]
        """Load as diffusers does, whose options it takes, with faster layers on a CPU.

        Raises:
            ValueError: sizes of a model far larger than its weights, or NaN or infinite weights.
        """
        folder = Path(pretrained_model_name_or_path, options.get("subfolder") or "")
        if (folder / "config.json").is_file() and not options.get("variant"):
            config = read_json(folder / "config.json")
            sizes = {"name": f"{folder.name}/config.json", "sizes": config}
            build_for(read_weights(folder), lambda: cls.from_config(config), **sizes)  # type: ignore[arg-type]
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        check_finite(cls.__name__, model.state_dict())
        speed_up(model)
        return loaded


def _untie(model: Model, state: dict[str, Any], prefix: str, metadata: object) -> None:
    """Have weights of two names in a file twice, so that it holds them all."""
    state.update(apart(state))
