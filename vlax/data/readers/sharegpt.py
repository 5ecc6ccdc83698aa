"""ShareGPT-style conversations: `messages` of roles and contents, `images` as a list.

    [{"messages": [{"role": "user", "content": "<image>Who is he?"}, {"role": "assistant", "content": "Thomas Muller."},
                   {"role": "user", "content": "Why is he on the ground?"}, {"role": "assistant", "content": "He slides."}],
      "images": ["data/1.jpg"]}]
    ->  Row(id="row#0", image_id="data/1.jpg", task="chat",
            turns=(Turn("Who is he?", "Thomas Muller."), Turn("Why is he on the ground?", "He slides.")), ...)

`conversations` with `from` and `value` are read as well. Other names are given by `columns`, whose keys are those that a
`dataset_info.json` has under "columns" and "tags":

    columns={"messages": "dialogue", "images": "pictures", "role_tag": "speaker", "content_tag": "says",
             "user_tag": "visitor", "assistant_tag": "guide"}
"""

from vlax.data.readers.llava import Conversations

SHAPE = 'ShareGPT rows are {"messages": [{"role": "user", "content"}, {"role": "assistant", "content"}, ...], "images": [FILE]}'


class ShareGpt(Conversations):
    """One row a conversation, with loss on every answer; all that `Conversations` says holds."""

    kind, shape = "sharegpt", SHAPE
