"""The commands whose options are a recipe's; read when they are asked for, as recipes take seconds.

They are `contar compare` and those of `contar train`.
"""

from collections.abc import Callable
from pathlib import Path

from contar._errors import bad
from recipes import clips, moving_digits
from recipes._cli.pipes import Options
from recipes.compare import Comparison
from recipes.compare import compare as run_comparison
from recipes.moving_digits import MovingDigitsRecipe


def compare(out: Path, comparison: Options[Comparison] = Comparison()) -> None:
    """Train variants on one task at one budget; write a table, a plot and every run to OUT.

    Args:
        out: folder of the results; one of the same comparison is gone on with.
        comparison: what is compared, and at which budget.
    """
    run_comparison(comparison, out)
    print((out / "table.md").read_text())


def digits(
    out: Path,
    recipe: Options[MovingDigitsRecipe] = MovingDigitsRecipe(),
    resume: bool = False,
    smoke: bool = False,
) -> None:
    """Go the road from handwriting to a pipeline in OUT/model, stage by stage.

    Args:
        out: folder of the run.
        recipe: of all stages.
        resume: go on where the run in `out` ended.
        smoke: in a minute, to see that the road holds; what it makes is noise. It has its own
            numbers, and takes no others.
    """
    if smoke and recipe != MovingDigitsRecipe():
        raise bad("smoke", "numbers of the recipe as well", "one or the other")
    _say(moving_digits.run(moving_digits.smoke() if smoke else recipe, out, resume=resume))


def cached(out: Path, recipe: Options[clips.CachedRecipe], resume: bool = False) -> None:
    """Train a model on with a cache of one's own clips, to a pipeline in OUT/model.

    Args:
        out: folder of the run.
        recipe: of the training.
        resume: go on where the run in `out` ended.
    """
    _say(clips.train_cached(recipe, out, resume=resume))


def tokenizer(
    out: Path,
    recipe: Options[clips.TokenizerRecipe],
    resume: bool = False,
) -> None:
    """Train a model's tokenizer on with one's own clips; train its network next.

    Args:
        out: folder of the run.
        recipe: of the training.
        resume: go on where the run in `out` ended.
    """
    model = clips.train_tokenizer(recipe, out, resume=resume)
    print(f"next: contar cache {recipe.folder} --model {model} --out CACHE")


def head(
    out: Path,
    recipe: Options[clips.HeadRecipe],
    resume: bool = False,
) -> None:
    """Teach a model a head that draws a token in a pass or two, to a pipeline in OUT/model.

    Args:
        out: folder of the run.
        recipe: of the training.
        resume: go on where the run in `out` ended.
    """
    _say(clips.train_fast_head(recipe, out, resume=resume))


TRAIN: dict[str, Callable[..., None]] = {
    "moving-digits": digits,
    "tokenizer": tokenizer,
    "cached": cached,
    "head": head,
}


def _say(model: Path) -> None:
    print(f'a pipeline: contar generate "..." --model {model}')
