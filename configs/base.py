"""Every field of a vlax config, with its default and one line that says what it is.

A config has three parts: `run` reaches every stage of a chain, `stage` is the stage that was asked for, `parents` are the
stages before it, by name. Stage files say only what differs from here.

    --config.run.seed=1     --config.stage.steps=100     --config.parents.stage1.steps=100
"""

from collections.abc import Callable

from ml_collections import ConfigDict

VARIANTS = ("embedded", "0.9b")


def check_variant(variant: str) -> str:
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; the variants are {', '.join(VARIANTS)}")
    return variant


def run(variant: str = "embedded") -> ConfigDict:
    """What all stages of a chain share."""
    r = ConfigDict()
    r.data_root = ""  # where relative paths of data sources start: a directory or gs://bucket/path
    r.quarantine = ""  # the doctor's lists of rows to leave out, several parted by commas (python -m vlax data doctor)
    r.allow_outside = False  # rows may name pictures outside their source's images folder and the data root
    r.exclude = ()  # suites whose pictures are kept out of training, beside those that a stage is scored on
    r.keep_near_duplicates = False  # train on pictures that look like an evaluation set's and have other names
    r.seed = 0  # initial parameters, data order, twins
    # attention mask kind: causal, image_bidirectional, prefix_lm, image_sees_prompt; "": run.model's, else image_bidirectional
    r.mask = ""
    r.templates = ""  # plain, instruct, chat, or a TOML file (vlax/text/templates.py); "": run.model's, else plain
    r.system = ""  # system prompt: what every prompt begins with; "": run.model's, or that of the templates file
    # pictures stand where their row's text has <image>, and not before it all; False: as in run.model, else first
    r.interleaved = False
    # parts that a picture larger than the tower's is shown in beside the whole; 0: as in run.model; -1: none
    r.tiles = 0
    r.dtype = "float32"  # compute dtype: float32 or bfloat16; what learns is always stored in float32
    # unroll; scan: one compiled body for all layers, which TPUs' compiler needs to be done soon; auto: scan on TPUs alone
    r.layers = "auto"
    # auto: xla, or cudnn where the GPU has it (tried at the run's shapes first); xla; cudnn
    r.attention = "auto"
    # what a layer computes again in the backward pass instead of keeping it: none, dots, attention, mlp, full; auto takes the
    # first of them that fits into the device by the plan
    r.remat = "auto"
    r.mesh = ConfigDict({"data": -1, "fsdp": 1, "tp": 1})  # devices by axis; -1: what the others leave
    r.zero1 = False  # ZeRO's first stage: moments and accumulators cut over `data`, where parameters are whole
    r.distributed = False  # several processes, found from the environment: TPU pods, SLURM, Open MPI, vlax launch, torchrun
    # or given: HOST:PORT of the first one, how many, which one this is; seconds that they are waited for
    r.hosts = ConfigDict({"coordinator": "", "count": 0, "index": -1, "timeout": 300.0})
    r.threads = 2  # threads that build batches
    r.prefetch = 8  # batches that they may build ahead
    r.image_cache_mb = 256  # host memory for resized pictures; beyond it they are decoded again
    r.keep = ConfigDict({"last": 2, "best": 1, "hours": 0.0})  # checkpoints a stage: newest, best, one every so many hours
    r.verify = True  # compare exports and checkpoints with their seals before they are read; False for huge remote stores
    r.grace_seconds = 30.0  # from SIGTERM on: what can't be saved within them is not begun
    r.watchdog_minutes = 1.5  # without a step (or 20 times the longest, twice the first) after which a run ends; 0: never
    r.log_every = 20  # updates between two log lines
    r.profile = ""  # START:STOP: a trace of the updates after START up to STOP, in WORKDIR/STAGE/profile (docs/trackers.md)
    r.peak_tflops = 0.0  # of one device, of which `mfu` is a share; 0: by the device's kind (vlax/training/peaks.py)
    r.tensorboard = True  # write TensorBoard event files
    r.trackers = ()  # where else to log: wandb, mlflow, trackio, tensorboard (docs/trackers.md)
    r.compilation_cache = "~/.cache/vlax/xla"  # compiled programs, kept between runs; "" switches it off
    r.tokenizer = ""  # directory or hub id; "": the pretrained decoder's, or a byte-level BPE trained on run.bpe_text
    r.bpe_vocab = 2000  # vocabulary of that BPE
    r.bpe_text = ConfigDict()  # its text, sources by name as in stage.mixture; {}: what the chain's first stage trains on
    r.vision = ""  # pretrained vision tower: a directory in Hugging Face layout, a hub id, or a vlax export
    r.decoder = ""  # pretrained decoder: likewise
    # a whole model to start from: a vlax export, a hub id, or a directory in the layout of LLaVA, PaliGemma, SmolVLM or Gemma 3
    r.model = ""
    r.image_size = 0  # pixels a side for a tower that has been trained; 0: its own. Position embeddings are resampled
    r.vocab_size = 0  # embedding rows for such a decoder; 0: its own. More make room for a pad token
    r.shapes = _shapes_0_9b() if variant == "0.9b" else _shapes_embedded()  # of what starts fresh
    if variant == "0.9b":
        r.dtype, r.templates = "bfloat16", "instruct"
        r.vision, r.decoder = "google/siglip-so400m-patch14-224", "Qwen/Qwen2.5-0.5B"
        r.threads, r.prefetch = 16, 16
        r.mesh = ConfigDict({"data": 1, "fsdp": -1, "tp": 1})  # parameters and state cut over all devices: fits a v5e-8
        r.exclude = ("coco_karpathy_test", "flickr30k_karpathy_test", "vqav2_val")
    return r


def _shapes_embedded() -> ConfigDict:
    return ConfigDict({
        "vision": {"image_size": 32, "patch_size": 8, "width": 96, "layers": 4, "heads": 4, "mlp_dim": 256},
        "projector": {"kind": "mlp", "pixel_shuffle": 1},
        # vocab_size 0: the tokenizer's own
        "decoder": {"vocab_size": 0, "width": 96, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 24, "mlp_dim": 256,
                    "qkv_bias": True, "rope_theta": 10_000.0, "tied": True},
        # the throw-away decoder of the captioner in which stage 0 trains the vision tower
        "captioner": {"width": 96, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 24, "mlp_dim": 256},
    })  # fmt: skip


def _shapes_0_9b() -> ConfigDict:
    return ConfigDict({
        "vision": {"image_size": 224, "patch_size": 14, "width": 1152, "layers": 27, "heads": 16, "mlp_dim": 4304},
        "projector": {"kind": "mlp", "pixel_shuffle": 1},
        "decoder": {"vocab_size": 151_936, "width": 896, "layers": 24, "heads": 14, "kv_heads": 2, "head_dim": 64,
                    "mlp_dim": 4864, "qkv_bias": True, "rope_theta": 1_000_000.0, "tied": True},
        "captioner": {"width": 896, "layers": 2, "heads": 14, "kv_heads": 2, "head_dim": 64, "mlp_dim": 4864},
    })  # fmt: skip


def stage(name: str) -> ConfigDict:
    """What belongs to one stage."""
    s = ConfigDict()
    s.name = name
    # where each part comes from: a parent stage's name, "model" (run.model), "pretrained" (run.vision, run.decoder) or "fresh".
    # A part that is not named does not exist: {decoder: ...} alone is a language model without eyes.
    s.init = ConfigDict({"vision": "fresh", "projector": "fresh", "decoder": "fresh"})
    s.backbone = ""  # vision or decoder: also written in Hugging Face layout (WORKDIR/STAGE/hf), for the next stage to import
    s.captioner = False  # use run.shapes.captioner in place of run.shapes.decoder
    s.trainable = ConfigDict({"projector": "^projector/"})  # group: regular expression over parameter paths
    s.learning_rate = ConfigDict({"projector": 1e-3})  # group: peak learning rate
    # low-rank adapters on the decoder, as one more trainable group (trainable.lora = "/lora_[ab]$"); rank 0: none.
    s.lora = ConfigDict({"rank": 0, "alpha": 16.0, "targets": ("q", "v")})
    s.quantise = ""  # hold what is frozen of both transformers' matrices in few bits: int8, nf4 (models/quantised.py)
    s.mask = ""  # mask kind of this stage; "": run.mask
    s.mixture = (
        ConfigDict()
    )  # training sources by name: {kind, ..., and one of weight, epochs, tokens: data/batches/mixture.py}
    # own data in place of mixture, validation and suites: files or folders, several parted by commas (training/guess.py)
    s.data = ""
    # of them, where it is not found: what rows are (caption, describe), the folder of the pictures, the split
    s.data_is = ConfigDict({"task": "", "images": "", "split": ""})
    s.tune = ""  # of the decoder, with stage.data: lora, or full; "": by the memory there is
    s.epoch_of = ""  # the source whose pass is an epoch, to which weights refer; "": the only one
    s.epochs = 1.0  # length in epochs, used when steps is 0; with stage.data 0 is a guess, as of batch_size and text_length
    s.steps = 0  # length in optimizer updates
    s.batch_size = 64  # rows an update, over all devices and micro-batches
    s.accumulate = 1  # micro-batches an update
    s.accumulation = "multisteps"  # optax.MultiSteps, or scan: one compiled step over all micro-batches
    s.text_length = 40  # T: prompt and answer tokens; longer rows follow overlong
    s.overlong = "drop"  # drop: leave the row out and count it; cut: cut the answer's end
    s.buckets = ()  # static text lengths, such as (32, 64, 128), the last one text_length: rows of like length share a batch
    s.images = 1  # pictures that a row may have; rows of more are bad rows. Every row takes as many slots in the sequence
    s.packing = 0  # rows that may share a batch row of text_length tokens, each with its image; 0: one a batch row
    s.plan_window = 32  # batches within which buckets and packing arrange rows
    s.drop_budget = 0.001  # share of the rows that may turn out bad (besides quarantined ones) before the run stops
    s.augment = ()  # of training pictures: flip, shift, crop, colour; vlax/data/batches/augment.py says where each is left out
    s.warmup = 0.03  # share of the updates
    s.final_learning_rate = 0.0  # at the cosine's end, as a share of the peak
    s.clip = 1.0  # global gradient norm; 0: off
    s.weight_decay = 0.0  # AdamW, on matrices
    s.beta2 = 0.98  # stages are short: 0.999 would average over more updates than some of them have
    s.bf16_momentum = False  # AdamW's first moment in bfloat16: 2 bytes a parameter that learns less (training/optimizer.py)
    s.eval_every = 0  # updates between two validations, each with a checkpoint; 0: at the end only
    s.eval_batches = 8  # batches of held-out loss a source
    s.validation = ConfigDict()  # held-out sources for the loss, as in mixture
    s.generate_samples = 64  # rows of each suite's validation set that are decoded and scored at every validation
    # by name: the suites that eval.py runs and, on their validation sets, training (vlax/suites/protocol.py)
    s.suites = ConfigDict()
    s.select = "last"  # which state is exported and evaluated: last, or best (on validation loss)
    s.reference = ""  # JSON with reference curves to draw under this run's
    return s


def config(variant: str, asked: ConfigDict, parents: dict[str, ConfigDict]) -> ConfigDict:
    """The whole: {run, stage, parents, variant}."""
    return ConfigDict({"run": run(variant), "stage": asked, "parents": parents, "variant": variant})


def of_shapes(made: ConfigDict) -> ConfigDict:
    """The config with the tokenizer that all of vlax's own stages share, whichever is the first: one of the text of shapes."""
    made.run.bpe_text = {"text": {"kind": "scenes", "split": "train", "style": "text", "size": 4000}}
    made.run.bpe_vocab = 400
    return made


def chain(own: Callable[[str], ConfigDict], before: Callable[[str], dict[str, ConfigDict]]) -> tuple[Callable, Callable]:
    """(stages, get_config) of a stage's file: {name: stage} of a variant, those `before` first, and what --config asks for."""

    def stages(variant: str) -> dict[str, ConfigDict]:
        made = own(variant)
        return {**before(variant), made.name: made}

    def get_config(variant: str = "embedded") -> ConfigDict:
        parents = stages(check_variant(variant))
        _, asked = parents.popitem()
        return of_shapes(config(variant, asked, parents))

    return stages, get_config
