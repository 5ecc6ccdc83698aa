"""The first batches of a stage as the model will see them: `train.py --config=... --inspect`. Nothing is trained.

    row 1  coco-captions_train:6636#1  (caption)
      picture  flickr8k_dev/images/3636418958_f038130bb2.jpg, 224 x 224 -> 48 x 48 pixels (squash), 36 image tokens
      tokens   <bos>│caption│:│« A│ gym│n│ast│ v│a│ul│ts│ through│ the│ air│ .│<eos>»
      loss                   ^ ^^^ ^^^^ ^ ^^^ ^^ ^ ^^ ^^ ^^^^^^^^ ^^^^ ^^^^ ^^
      length   3 of prompt + 13 supervised + 16 pads

What is supervised stands between « and », or is coloured on a terminal; ^ is under each position where a loss falls: its target
is the next token. Below the rows: how full the batch is, and what was checked of it. WORKDIR/STAGE/inspect.png has the pictures
and the attention mask. `python -m vlax data preview` does the like for a file, without a config.
"""

import shutil

from etils import epath
from ml_collections import ConfigDict

from vlax.params import distributed
from vlax.printing import in_colour
from vlax.training import console, guess, stages
from vlax.training.inspect import examples, figure, rendered
from vlax.training.session import build


def run(config: ConfigDict, workdir: str, batches: int = 1) -> None:
    """Prints the first `batches` batches of the asked-for stage and writes its inspect.png; the first process only.

    A batch is what one call of the train step takes. Works before and after training, and before that of the parent stages.
    VlaxError for whatever the config has wrong, as in training; what is wrong with a batch is printed.
    """
    plan, waiting = stages.resolved(stages.chain(guess.settled(config, workdir), epath.Path(workdir)))
    session = build(plan)
    if not distributed.is_main():
        return
    colours = in_colour()
    width = shutil.get_terminal_size((120, 24)).columns
    print("\n".join(rendered.head(session, waiting)))
    console.print_lengths(session)
    path = plan.directory / "inspect.png"
    for step in range(min(batches, len(session.batches))):
        batch = examples.flat(session.batches[step])
        rows = examples.examples(batch)
        print("\n".join(rendered.described(session, step, batch, rows, colours, width)))
        if step == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                figure.draw(session, batch, rows).save(file, format="PNG", optimize=True)
    print(f"\npictures and attention mask: {path}", flush=True)
