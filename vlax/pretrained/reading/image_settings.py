"""Image preprocessing as a checkpoint's image processor does it, in Pillow; normalisation happens on the device.

Read from preprocessor_config.json, or from the image processor inside processor_config.json, which composite processors write.
"""

from pathlib import Path

from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.storage.hub import read_json


def load_preprocess(directory: Path, default: Preprocess) -> Preprocess:
    """The directory's image processor, or `default` where it has none. VlaxError for a step that is not implemented."""
    file = directory / "preprocessor_config.json"
    if not file.is_file():
        file = directory / "processor_config.json"
    values = read_json(file) if file.is_file() else {}
    values = values.get("image_processor", values)
    if "size" not in values and "image_mean" not in values:
        return default  # a tokenizer's processor, or nothing
    mean, std = tuple(values.get("image_mean") or default.mean), tuple(values.get("image_std") or default.std)
    if not values.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # The device divides by 255; another factor is folded into mean and std.
    scale = 255 * (values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0)
    if abs(scale - 1) > 1e-6:
        mean, std = tuple(x / scale for x in mean), tuple(x / scale for x in std)
    size, mode, edge = _geometry(values, default, file)
    return Preprocess(size, mode, edge, values.get("resample", default.resample), mean, std)


def _geometry(values: dict, default: Preprocess, file: Path) -> tuple[int, str, int]:
    """(size, mode, edge)"""

    def square(value):
        if isinstance(value, int):
            return value
        if value["height"] != value["width"]:
            raise VlaxError(f"{file}: images of {value['height']} x {value['width']} are not square, which is not implemented")
        return value["height"]

    if str(values.get("image_processor_type")).startswith(("Idefics3", "SmolVLM")):  # which show the tower squares alone
        return (values.get("max_image_size") or {}).get("longest_edge", default.size), "squash", 0
    if str(values.get("image_processor_type")).startswith("LlavaOnevision"):  # pictures as it shows several of them
        side = square(values.get("size") or default.size)
        return side, "pad", side
    size = values.get("size") or default.size  # NaFlex's has none: its pictures keep their shape there
    shortest = size.get("shortest_edge") if isinstance(size, dict) else size if values.get("do_center_crop") else None
    pad = "pad" if values.get("do_pad") else "crop"
    if not values.get("do_resize", True) or (isinstance(size, dict) and not ({"shortest_edge", "height"} & size.keys())):
        raise VlaxError(f"{file}: do_resize with size {size} is not implemented; give a height and width, or a shortest_edge")
    if shortest is None:
        if values.get("do_center_crop") and square(values["crop_size"]) != square(size):
            raise VlaxError(f"{file}: a crop of {values['crop_size']} after a resize to {size} is not implemented")
        return square(size), "squash", 0
    if not values.get("do_center_crop"):
        raise VlaxError(f"{file}: size {size} without do_center_crop keeps the image's shape, which is not implemented")
    crop = square(values.get("crop_size", shortest))
    if crop > shortest:
        raise VlaxError(f"{file}: crop_size {crop} is larger than the resized edge {shortest}, which is not implemented")
    return crop, pad, shortest
