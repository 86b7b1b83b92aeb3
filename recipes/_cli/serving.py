"""The command line of the page."""

from pathlib import Path

from recipes._cli.pipes import Loading, Options


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    frames: int | None = None,
    waiting: int = 32,
    loading: Options[Loading] = Loading(),
) -> None:
    """Open a page in which to type a sentence and watch the frames appear, set by set.

    It takes visitors one after the other, keeps nothing of theirs, and asks no other server for
    anything. Only this machine sees it unless `--host` says otherwise.

    Args:
        host: address to listen at; "0.0.0.0" is every one of this machine, for all who reach it.
        port: to listen at.
        frames: of a video at most; four times the model's own if left out.
        waiting: visitors that may wait for their turn.
        loading: of the model.
    """
    from contar._errors import check_count, check_size

    check_count("waiting", waiting)
    check_size("port", port, 1, 2**16 - 1)
    if frames is not None:
        check_count("frames", frames)
    try:
        from recipes._serve.page import serve as open_page
    except ImportError as error:
        raise ImportError('gradio is not installed (pip install "contar[web]")') from error
    from recipes._serve.making import Maker
    from recipes._serve.wish import bounds_of

    pipe = loading.load()
    examples, remark = (), None
    if loading.model == "moving-digits":
        from recipes.moving_digits import PROMPTS, left_open

        examples, remark = PROMPTS[:4], left_open
    maker = Maker(pipe, bounds_of(pipe, frames=frames), remark)
    name = Path(loading.model).name
    open_page(maker, name=name, examples=examples, host=host, port=port, waiting=waiting)
