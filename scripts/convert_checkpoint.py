#!/usr/bin/python3
"""Converts weights between PyTorch state dicts and Tapeline's checkpoints.

    convert_checkpoint.py to-torch model.h5 model.pt
    convert_checkpoint.py from-torch model.pt model.h5 [--set heads=4] [--like other.h5]

A state dict is what torch.save(module.state_dict(), FILE) writes, its entries named like the
parameters of `resnet_cifar` (scripts/torch_models.py has the module) or of a bare efficient
attention module (keys.weight, keys.bias, queries, values, reprojection; matrices or 1x1
convolutions). Only weights and running statistics are converted: a checkpoint's optimizer and
training state stay behind.

PyTorch keeps convolution kernels as [out, in, kh, kw], Tapeline as [out, kh, kw, in]. What a state
dict cannot tell is its architecture's other settings: these start from the library's defaults, and
--set names those that differ, or --like takes kind and settings from a checkpoint, and what pictures
the model takes, which the example programs predict and show_attention want to know.

Exit code 0, 1 if a file cannot be read, converted or written, 2 for wrong usage. Debian and Ubuntu:
apt-get install python3-torch python3-h5py. The format: docs/checkpoint-format.md.
"""

import argparse
import datetime
import hashlib
import os
import re
import struct
import sys

PROGRAM = "convert_checkpoint.py"
FORMAT, VERSION = "tapeline-checkpoint", 1
BLOCK_SIZE = 512


class ConversionError(Exception):
    """One line that says what is wrong."""


# ------------------------------------------------------------------ the file


def write_checkpoint(path, config, arrays, axes, images=None):
    """Writes /model: `config` are its attributes, `arrays` and their `axes` go by dotted name.
    `images`, what pictures the model takes, become the attributes of /input."""
    import h5py

    temporary = f"{path}.tmp"
    try:
        with h5py.File(
            temporary, "w", userblock_size=BLOCK_SIZE, libver=("v108", "v108")
        ) as file:
            file.attrs["format"] = FORMAT
            file.attrs["version"] = VERSION
            file.attrs["library_version"] = PROGRAM
            now = datetime.datetime.now(datetime.timezone.utc)
            file.attrs["created"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
            model = file.create_group("model")
            for name, value in config.items():
                model.attrs[name] = value
            if images:
                file.create_group("input").attrs.update(images)
            for name, array in arrays.items():
                options = {}
                if array.ndim > 0:
                    options = {
                        "chunks": array.shape if array.nbytes <= 1 << 20 else True,
                        "compression": 2,
                        "shuffle": True,
                        "fletcher32": True,
                    }
                data = model.create_dataset(name.replace(".", "/"), data=array, **options)
                if name in axes:
                    data.attrs["axes"] = axes[name]
        seal(temporary)
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise ConversionError(f"{path}: {error}") from error


def seal(path):
    """Fills in the block in front of the HDF5 data: length and checksum."""
    with open(path, "r+b") as file:
        data = file.read()
        block = struct.pack(
            "<8sIIQ32s",
            b"\x89TLCK\r\n\x1a",
            1,
            BLOCK_SIZE,
            len(data),
            hashlib.sha256(data[BLOCK_SIZE:]).digest(),
        )
        block += b"\nTapeline checkpoint: HDF5 data from byte 512 on\n"
        file.seek(0)
        file.write(block.ljust(BLOCK_SIZE, b"\0"))


def verify(path):
    """Raises ConversionError unless the block in front says that the file is whole."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConversionError(f"{path}: {error.strerror}") from error
    if len(data) < BLOCK_SIZE or data[:8] != b"\x89TLCK\r\n\x1a":
        raise ConversionError(f"{path}: not a Tapeline checkpoint")
    length, digest = struct.unpack("<Q32s", data[16:56])
    if length != len(data):
        raise ConversionError(f"{path}: expected {length} bytes, found {len(data)}")
    if hashlib.sha256(data[BLOCK_SIZE:]).digest() != digest:
        raise ConversionError(f"{path}: damaged: its checksum is wrong")


def plain(attributes):
    return {name: v.item() if hasattr(v, "item") else v for name, v in attributes.items()}


def read_images(path):
    """The attributes of /input, if there are any."""
    import h5py

    verify(path)
    with h5py.File(path, "r") as file:
        return plain(file["input"].attrs) if "input" in file else {}


def read_checkpoint(path):
    """(attributes of /model, arrays by dotted name, axes by dotted name)"""
    import h5py

    verify(path)
    arrays, axes = {}, {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            dotted = name.replace("/", ".")
            arrays[dotted] = item[...]
            axes[dotted] = item.attrs.get("axes", "")

    with h5py.File(path, "r") as file:
        if "model" not in file:
            raise ConversionError(f"{path}: it holds no model")
        file["model"].visititems(visit)
        config = plain(file["model"].attrs)
    return config, arrays, axes


# ------------------------------------------------------------------ what a state dict is


def block_names(prefix, inputs, outputs, stride):
    """Names and PyTorch shapes of a residual block."""
    names = {}

    def conv_bn(conv, bn, channels_in, kernel):
        names[f"{prefix}.{conv}.weight"] = (outputs, channels_in, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            names[f"{prefix}.{bn}.{part}"] = (outputs,)

    conv_bn("conv1", "bn1", inputs, 3)
    conv_bn("conv2", "bn2", outputs, 3)
    if stride != 1 or inputs != outputs:
        conv_bn("shortcut.conv", "shortcut.bn", inputs, 1)
    return names


def attention_names(prefix, channels, keys, values, pairwise="embedded_gaussian"):
    names = {f"{prefix}values.weight": (values, channels), f"{prefix}values.bias": (values,)}
    if pairwise != "gaussian":
        for projection in ("keys", "queries"):
            names[f"{prefix}{projection}.weight"] = (keys, channels)
            names[f"{prefix}{projection}.bias"] = (keys,)
    if pairwise == "concatenation":
        names[f"{prefix}pair.weight"] = (2 * keys,)
    names[f"{prefix}reprojection.weight"] = (channels, values)
    names[f"{prefix}reprojection.bias"] = (channels,)
    return names


def resnet_names(config):
    """Names and PyTorch shapes of all tensors of a resnet_cifar."""
    width = config["width"]
    names = {"stem.conv.weight": (width, config["input_channels"], 3, 3)}
    for part in ("weight", "bias", "running_mean", "running_var"):
        names[f"stem.bn.{part}"] = (width,)
    inputs = width
    blocks = (config["depth"] - 2) // 6
    for stage in range(3):
        outputs = width << stage
        keys = outputs // config["key_channels_divisor"]
        for block in range(blocks):
            prefix = f"stages.{stage}.blocks.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            names.update(block_names(prefix, inputs, outputs, stride))
            inputs = outputs
            if config["attention_stages"] >> stage & 1 and config["attention_every_block"]:
                names.update(
                    attention_names(f"{prefix}.attention.", outputs, keys, outputs, config["pairwise"])
                )
        if config["attention_stages"] >> stage & 1 and not config["attention_every_block"]:
            names.update(
                attention_names(
                    f"stages.{stage}.attention.", outputs, keys, outputs, config["pairwise"]
                )
            )
    names["head.weight"] = (config["classes"], 4 * width)
    names["head.bias"] = (config["classes"],)
    return names


RESNET_DEFAULTS = {
    "kind": "resnet_cifar",
    "input_channels": 3,
    "depth": 20,
    "width": 16,
    "classes": 10,
    "attention": "none",
    "attention_stages": 0,
    "attention_every_block": 0,
    "heads": 1,
    "key_channels_divisor": 2,
    "normalization": "softmax",
    "pairwise": "embedded_gaussian",
    "use_scale": 0,
    "implementation": "tiled",
    "batch_norm_momentum": 0.1,
    "batch_norm_epsilon": 1e-5,
}
MODULE_DEFAULTS = {
    "kind": "efficient_attention",
    "in_channels": 0,
    "key_channels": 0,
    "value_channels": 0,
    "heads": 1,
    "normalization": "softmax",
}


def infer_resnet(tensors):
    """What names and shapes tell about a resnet_cifar."""
    config = dict(RESNET_DEFAULTS)
    stem, head = tensors["stem.conv.weight"].shape, tensors["head.weight"].shape
    config["width"], config["input_channels"] = stem[0], stem[1]
    config["classes"] = head[0]
    blocks = {
        int(match.group(1))
        for match in (re.match(r"stages\.0\.blocks\.(\d+)\.", name) for name in tensors)
        if match
    }
    config["depth"] = 6 * len(blocks) + 2
    for name, tensor in tensors.items():
        match = re.match(r"stages\.(\d+)\.(blocks\.\d+\.)?attention\.(.*)", name)
        if not match:
            continue
        config["attention_stages"] |= 1 << int(match.group(1))
        config["attention_every_block"] = int(match.group(2) is not None)
        if config["attention"] == "none":
            config["attention"] = "efficient"
        if match.group(3) == "keys.weight":
            config["key_channels_divisor"] = tensor.shape[1] // max(tensor.shape[0], 1)
        elif match.group(3) == "pair.weight":
            config["attention"], config["pairwise"] = "non_local", "concatenation"
    return config


def infer_module(tensors):
    config = dict(MODULE_DEFAULTS)
    config["key_channels"], config["in_channels"] = tensors["keys.weight"].shape[:2]
    config["value_channels"] = tensors["values.weight"].shape[0]
    return config


def infer(tensors):
    if "stem.conv.weight" in tensors and "head.weight" in tensors:
        return infer_resnet(tensors)
    if "keys.weight" in tensors and "values.weight" in tensors:
        return infer_module(tensors)
    raise ConversionError(
        "the state dict is neither a resnet_cifar (stem.conv.weight, ..., head.weight) nor an "
        "efficient attention module (keys.weight, values.weight, ...); --like names a checkpoint "
        "of its kind"
    )


def expected_names(config):
    """Names and shapes, as matrices where PyTorch may have 1x1 convolutions; None if unknown."""
    if config.get("kind") == "resnet_cifar":
        return resnet_names(config)
    if config.get("kind") == "efficient_attention":
        return attention_names(
            "", config["in_channels"], config["key_channels"], config["value_channels"]
        )
    return None


# ------------------------------------------------------------------ the two directions


def is_projection(name):
    return re.search(r"(^|\.)(keys|queries|values|reprojection)\.weight$", name) is not None


def drop_unit_kernel(name, array):
    """1x1 convolutions of attention modules become matrices."""
    if is_projection(name) and array.ndim > 2 and all(k == 1 for k in array.shape[2:]):
        return array.reshape(array.shape[:2])
    return array


def compare(expected, found):
    """Raises ConversionError with the first name or shape that does not fit."""
    missing = sorted(set(expected) - set(found))
    surplus = sorted(set(found) - set(expected))
    if missing or surplus:
        parts = [f"{len(missing)} missing ({missing[0]}, ...)"] if missing else []
        parts += [f"{len(surplus)} unexpected ({surplus[0]}, ...)"] if surplus else []
        raise ConversionError("the state dict's entries do not fit: " + ", ".join(parts))
    for name, shape in expected.items():
        if tuple(found[name].shape) != tuple(shape):
            raise ConversionError(
                f"{name}: expected shape {list(shape)}, found {list(found[name].shape)}"
            )


def from_torch(source, target, settings, like):
    import numpy
    import torch

    try:
        loaded = torch.load(source, map_location="cpu")
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ConversionError(f"{source}: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, dict):
        raise ConversionError(f"{source}: expected a state dict, found {type(loaded).__name__}")
    tensors = {}
    for name, tensor in loaded.items():
        if not torch.is_tensor(tensor):
            raise ConversionError(f"{source}: {name}: expected a tensor")
        if not name.endswith(".num_batches_tracked"):
            tensors[name] = drop_unit_kernel(name, tensor.detach().float().numpy())
    if like is not None:
        config, _, _ = read_checkpoint(like)
    else:
        config = infer(tensors)
    for name, value in settings.items():
        if name not in config:
            raise ConversionError(f"--set {name}: {config['kind']} has no such setting")
        config[name] = type(config[name])(value)
    if config.get("attention") == "none":
        config["attention_stages"] = 0
    expected = expected_names(config)
    if expected is None:  # another kind, known from --like
        _, arrays, axes = read_checkpoint(like)
        expected = {name: to_torch_layout(array, axes[name]).shape for name, array in arrays.items()}
    compare(expected, tensors)
    arrays, axes = {}, {}
    for name in expected:
        array = tensors[name]
        if not numpy.isfinite(array).all():
            raise ConversionError(f"{name}: it has a NaN or an infinity")
        if array.ndim in (2, 4):
            axes[name] = "out in" if array.ndim == 2 else "out kh kw in"
        if array.ndim == 4:
            array = array.transpose(0, 2, 3, 1)
        arrays[name] = numpy.ascontiguousarray(array, dtype=numpy.float32)
    write_checkpoint(target, config, arrays, axes, read_images(like) if like else None)
    shown = ", ".join(f"{name} {value}" for name, value in config.items() if name != "kind")
    print(f"{target}: {config['kind']}, {len(arrays)} tensors; {shown}")


def to_torch_layout(array, axes):
    return array.transpose(0, 3, 1, 2) if axes == "out kh kw in" else array


def to_torch(source, target, projections):
    import numpy
    import torch

    config, arrays, axes = read_checkpoint(source)
    state = {}
    for name, array in arrays.items():
        array = to_torch_layout(array, axes[name])
        if projections == "conv" and is_projection(name):
            array = array.reshape(array.shape + (1, 1))
        state[name] = torch.from_numpy(numpy.ascontiguousarray(array, dtype=numpy.float32))
        if name.endswith(".running_var"):  # PyTorch's batch norm counts its steps
            counter = name[: -len("running_var")] + "num_batches_tracked"
            state[counter] = torch.zeros((), dtype=torch.int64)
    try:
        torch.save(state, target)
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"{target}: {error}") from error
    print(f"{target}: {config.get('kind', 'model')}, {len(arrays)} tensors")


# ------------------------------------------------------------------ the program


def parse_setting(text):
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found '{text}'")
    return name, value


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    directions = parser.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    towards = directions.add_parser("to-torch", help="a checkpoint becomes a state dict")
    towards.add_argument("source", metavar="MODEL.h5")
    towards.add_argument("target", metavar="MODEL.pt")
    towards.add_argument(
        "--projections",
        choices=("linear", "conv"),
        default="linear",
        help="weights of attention's projections as [out, in] or [out, in, 1, 1]",
    )
    back = directions.add_parser("from-torch", help="a state dict becomes a checkpoint")
    back.add_argument("source", metavar="MODEL.pt")
    back.add_argument("target", metavar="MODEL.h5")
    back.add_argument(
        "--set",
        dest="settings",
        metavar="NAME=VALUE",
        type=parse_setting,
        action="append",
        default=[],
        help="a setting that the weights do not tell: heads=4, attention=non_local, ...",
    )
    back.add_argument("--like", metavar="OTHER.h5", help="take kind, settings and /input from it")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    try:
        if options.direction == "to-torch":
            to_torch(options.source, options.target, options.projections)
        else:
            from_torch(options.source, options.target, dict(options.settings), options.like)
    except ImportError as error:
        print(
            f"{PROGRAM}: {error}; apt-get install python3-torch python3-h5py, and run it with "
            "/usr/bin/python3",
            file=sys.stderr,
        )
        return 1
    except (ConversionError, ValueError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
