"""One case of the parity format: its tensors, the tolerance, the file.

An operation is a pair of functions. draw(random) makes the arguments and the given tensors;
compute(arguments, tensors) returns the outputs and, where there are any, the buffers afterwards. It
is called twice: with double precision for the expected values, with single precision to learn what
rounding does. The tolerance is such that single precision stays below an eighth of it.
"""
import zlib

import h5py
import numpy
import torch

GIVEN = ("inputs", "params", "buffers", "grads_per_step", "batches")
COMPRESS_FROM = 2048  # values; below that a chunk costs more than it saves
LARGEST_RTOL = 2e-4  # a case whose rounding is amplified beyond this says nothing


class Unsuitable(Exception):
    """The numbers drawn lie too near a jump of the function; draw others."""


class Draw:
    """Random numbers and the tensors made of them; the name of the case is the seed."""

    def __init__(self, name):
        self.numpy = numpy.random.RandomState(zlib.crc32(name.encode()))
        self.tensors = {}

    def integer(self, low, high):
        """low ... high, both included; small numbers are the more likely."""
        return low + int((high - low + 1) * self.numpy.rand() ** 1.5)

    def one_of(self, *choices):
        return choices[self.numpy.randint(len(choices))]

    def flag(self, probability=0.5):
        return int(self.numpy.rand() < probability)

    def shape(self, rank, largest=17, smallest=1):
        return [self.integer(smallest, largest) for _ in range(rank)]

    def normal(self, *shape, scale=1.0, offset=0.0):
        return numpy.asarray(offset + scale * self.numpy.randn(*shape))

    def put(self, path, values):
        kind = numpy.int32 if numpy.asarray(values).dtype.kind == "i" else numpy.float32
        self.tensors[path] = numpy.asarray(values, dtype=kind)

    def tensor(self, path, *shape, scale=1.0, offset=0.0):
        self.put(path, self.normal(*shape, scale=scale, offset=offset))


def round_up(value):
    """To 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 0.0
    power = 10.0 ** numpy.floor(numpy.log10(value))
    for digit in (1.0, 2.0, 5.0, 10.0):
        if digit * power >= value * (1 - 1e-9):
            return float("%.0e" % (digit * power))
    raise AssertionError


def tensors_of(given, kind):
    """Torch tensors of the given arrays; gradients are wanted of inputs and params."""
    result = {}
    for path, values in given.items():
        tensor = torch.tensor(values)
        if values.dtype.kind == "f":
            tensor = tensor.to(kind)
            tensor.requires_grad_(path.split("/")[0] in ("inputs", "params"))
        result[path] = tensor
    return result


def expected_values(op, arguments, given, cotangents, kind):
    """{path: values} of all that a case expects, computed with numbers of that kind."""
    tensors = tensors_of(given, kind)
    outputs, after = op.compute(arguments, tensors)
    expected = {"outputs/" + name: y.detach() for name, y in outputs.items()}
    expected.update({path: y.detach() for path, y in after.items()})
    if op.differentiable:
        total = sum((torch.tensor(g).to(kind) * outputs[name]).sum()
                    for name, g in cotangents.items())
        leaves = {path: t for path, t in tensors.items() if t.requires_grad}
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for (path, leaf), grad in zip(leaves.items(), grads):
            grad = torch.zeros_like(leaf) if grad is None else grad
            expected["grads/" + path] = grad
    return {path: y.to(kind).numpy() for path, y in expected.items()}


def tolerance(op, double, single):
    """(rtol, atol): single precision is within an eighth, and atol is small beside every tensor that
    is not zero but for rounding."""
    sizes = {path: float(abs(want).max()) for path, want in double.items()}
    largest = max(sizes.values())
    zero = [path for path in sizes if sizes[path] <= 1e-9 * largest]
    present = [size for path, size in sizes.items() if path not in zero]
    atol = round_up(op.atol * (largest if zero else min(present))) if present else 1e-12
    rtol = op.rtol
    for path, want in double.items():
        error = float(abs(single[path].astype(numpy.float64) - want).max())
        if not numpy.isfinite(error):
            raise Unsuitable("single precision overflows")
        if path in zero:
            atol = max(atol, round_up(16 * error))
    for path, want in double.items():
        error = float(abs(single[path].astype(numpy.float64) - want).max())
        while 8 * error > atol + rtol * sizes[path]:
            rtol = round_up(1.01 * rtol)
    if rtol > LARGEST_RTOL:
        raise Unsuitable("single precision is too far off")
    return rtol, atol


def text(value):
    return numpy.array(value.encode(), dtype="S%d" % max(len(value), 1))


def argument(value):
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return numpy.float64(value)
    return numpy.asarray(value, dtype="<i8")


def create_file(path):
    """Without times inside, so that the same case is the same bytes."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(path.encode(), h5py.h5f.ACC_TRUNC, creation, access))


def create_group(file, name):
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(file.id, name.encode(), gcpl=creation))


def write(path, op_name, rtol, atol, arguments, given, cotangents, expected):
    datasets = {p: (v, "<i4" if v.dtype.kind == "i" else "<f4") for p, v in given.items()}
    datasets.update({"grad_outputs/" + n: (g, "<f4") for n, g in cotangents.items()})
    datasets.update({p: (v, "<f8") for p, v in expected.items()})
    with create_file(path) as file:
        file.attrs["schema"] = text("tapeline-parity")
        file.attrs["version"] = numpy.int32(1)
        file.attrs["op"] = text(op_name)
        file.attrs["rtol"] = numpy.float64(rtol)
        file.attrs["atol"] = numpy.float64(atol)
        group = create_group(file, "args")
        for name, value in arguments.items():
            group.attrs[name] = argument(value)
        for name, (values, kind) in datasets.items():
            folder, name = name.rsplit("/", 1)
            for i in range(folder.count("/") + 1):
                parent = "/".join(folder.split("/")[:i + 1])
                if parent not in file:
                    create_group(file, parent)
            large = values.size >= COMPRESS_FROM
            file[folder].create_dataset(name, data=values.astype(kind), track_times=False,
                                **({"compression": "gzip", "shuffle": True} if large else {}))


def make(path, name, op_name, op, chosen=None):
    """Draws, computes and writes one case; draws again while the numbers are unsuitable. `chosen`:
    what to give draw instead of leaving everything to chance; its "input_scale" multiplies inputs."""
    chosen = dict(chosen or {})
    input_scale = numpy.float32(chosen.pop("input_scale", 1))
    for attempt in range(200):
        draw = Draw("%s/%d" % (name, attempt))
        try:
            arguments = op.draw(draw, **chosen)
            given = {tensor: values * input_scale if tensor.startswith("inputs/") else values
                     for tensor, values in draw.tensors.items()}
            outputs = op.compute(arguments, tensors_of(given, torch.float64))[0]
            cotangents = {}
            if op.differentiable:
                for output in op.cotangents or outputs:
                    g = numpy.float32(1) if op.cotangents else draw.normal(*outputs[output].shape)
                    cotangents[output] = numpy.asarray(g, dtype=numpy.float32)
            double = expected_values(op, arguments, given, cotangents, torch.float64)
            single = expected_values(op, arguments, given, cotangents, torch.float32)
            if not all(numpy.isfinite(v).all() for v in double.values()):
                raise Unsuitable("not finite")
            rtol, atol = tolerance(op, double, single)
        except Unsuitable:
            continue
        write(path, op_name, rtol, atol, arguments, given, cotangents, double)
        return
    raise SystemExit("%s: no suitable numbers found" % name)


class Op:
    def __init__(self, draw, compute, differentiable=True, cotangents=None, rtol=2e-5, atol=1e-6,
                 chosen=()):
        self.draw, self.compute, self.differentiable = draw, compute, differentiable
        self.cotangents = cotangents  # only these outputs have one, of 1
        self.rtol, self.atol = rtol, atol
        self.chosen = chosen  # keyword arguments for draw: the small set
