"""The section of a model card that says how to run an export, in the words of its layout."""

from collections.abc import Mapping

from vlax.models.vlm import VLMConfig
from vlax.pretrained.writing.whole import Written
from vlax.text.prompts import TEMPLATES

VISION = """\
vlax: `vlax.pretrained.reading.loader.load_vision(DIR)`. transformers: `AutoModel.from_pretrained(DIR)`; the features are its
`{features}` without class token and registers."""

DECODER = """\
vlax: `vlax.pretrained.reading.loader.load_decoder(DIR)`. transformers: `AutoModelForCausalLM.from_pretrained(DIR)`."""

APART = """\
No stock class of transformers computes this model. One that is given these weights all the same goes wrong here:

{obstacles}

So the parts lie apart: `vision/` and `decoder/` are checkpoints of stock classes, `projector.safetensors` holds matrices as
torch lays them ([out,in]) and `projector.json` its settings and the mask. vlax reads them together:

    from vlax.pretrained.writing.whole import load_apart
    config, params = load_apart(DIR)"""

WHOLE = """\
    pip install transformers=={transformers} torch pillow
    python generate.py picture.png {example}

{stock}

With vlax:

    from vlax.pretrained.reading.loader import load_vlm
    config, params, report = load_vlm(DIR)"""

STOCK = {
    "causal": "`LlavaForConditionalGeneration` computes this model. For its processor the text is `{text}`, and "
    "`add_special_tokens=False` keeps that order.",
    "image_bidirectional": "`LlavaForConditionalGeneration.generate` by itself masks image tokens causally, which is another "
    "model than the one that was trained. Use `generate.py`: it passes the mask in.",
    "prefix_lm": "`PaliGemmaForConditionalGeneration` computes this model, given `token_type_ids` of 0 for image and prompt. "
    "Its processor puts a newline after the prompt, which this model never saw: use `generate.py`.",
}


def run_section(c: VLMConfig, written: Written, tokens, templates: str, versions: Mapping[str, str]) -> str:
    """Commands and code for transformers and for vlax, and the layout of a prompt.

    tokens: the tokenizer; templates: the name of the prompts of training; versions: {"transformers": ...}.
    """
    if written.layout == "vision":
        return VISION.format(features="last_hidden_state" if c.tower.vision.post_norm else "hidden_states[-1]")
    if written.layout == "decoder":
        return DECODER
    if written.layout == "apart":
        text = APART.format(obstacles="\n".join(f"- {obstacle}" for obstacle in written.obstacles))
    else:
        # A prompt of several lines cannot be typed in one: the example is a raw string of bash.
        example = "$" + repr(TEMPLATES[templates]["caption"]) if "\n" in TEMPLATES[templates]["caption"] else (
            f'"{TEMPLATES[templates]["caption"]}"'
        )  # fmt: skip
        stock = STOCK[c.mask].format(text=f'"<image>{tokens.bos_token or ""}" + prompt')
        text = WHOLE.format(transformers=versions["transformers"], example=example, stock=stock)
    return text + "\n\n" + prompt_order(tokens.bos_token, templates)


def prompt_order(bos: str | None, templates: str) -> str:
    """What a sequence is made of, and the prompts of training."""
    prompts = "\n".join(f"    {text!r}" for text in TEMPLATES[templates].values())
    return (
        f"A sequence is the image tokens, then {f'`{bos}`, then ' if bos else ''}the text: nothing precedes the image. "
        f"An answer follows its prompt after one space. The prompts of training:\n\n{prompts}"
    )
