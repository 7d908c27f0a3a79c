"""Convolution, pooling, upsampling, normalisation."""
import numpy
import torch
import torch.nn.functional as F

from case import Op, Unsuitable

LARGEST = 60000  # values of x, of the output or of the weight


def one(y):
    return {"y": y}, {}


def check_size(*shape):
    if numpy.prod([float(n) for n in shape]) > LARGEST:
        raise Unsuitable("too large")


# ------------------------------------------------------------------ convolution

def draw_convolution(draw, dimensions, **given):
    """given: any of n, c, o, groups, size, kernel, stride, padding, dilation, bias."""
    largest = {1: 40, 2: 19, 3: 9}[dimensions]
    groups = given.get("groups", draw.one_of(1, 1, 1, draw.integer(2, 6)))
    width = draw.one_of(3, 3, 9, 17, 33)
    c = given.get("c", groups * draw.integer(1, max(1, width // groups)))
    o = given.get("o", groups * draw.integer(1, max(1, width // groups)))
    same = draw.flag(0.4)  # the common case: 3 x 3, padding 1, stride 1 or 2
    a = {"stride": [draw.integer(1, 2 if same else 4)] * dimensions if draw.flag() else
                   [draw.integer(1, 3) for _ in range(dimensions)],
         "padding": [1] * dimensions if same else [draw.integer(0, 4) for _ in range(dimensions)],
         "dilation": [1] * dimensions if same or draw.flag(0.6) else
                     [draw.integer(1, 3) for _ in range(dimensions)],
         "groups": groups, "bias": draw.flag()}
    kernel = given.get("kernel", [3] * dimensions if same else
                       [draw.integer(1, 7) for _ in range(dimensions)])
    size = given.get("size", [draw.integer(1, largest) for _ in range(dimensions)])
    a.update({k: v for k, v in given.items() if k in a})
    for i in range(dimensions):
        if size[i] + 2 * a["padding"][i] < a["dilation"][i] * (kernel[i] - 1) + 1:
            raise Unsuitable("the kernel does not fit")
    n = given.get("n", draw.integer(1, 3))
    check_size(n, c, *size)
    check_size(o, c // groups, *kernel)
    check_size(n, o, *[s + 2 * p for s, p in zip(size, a["padding"])])
    draw.tensor("inputs/x", n, c, *size)
    draw.tensor("params/weight", o, c // groups, *kernel, scale=draw.one_of(1.0, 0.2))
    if a["bias"]:
        draw.tensor("params/bias", o)
    return a


def convolution(dimensions, chosen):
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dimensions]

    def compute(a, t):
        return one(function(t["inputs/x"], t["params/weight"], t.get("params/bias"),
                            stride=a["stride"], padding=a["padding"], dilation=a["dilation"],
                            groups=a["groups"]))
    return Op(lambda draw, **given: draw_convolution(draw, dimensions, **given), compute,
              chosen=chosen)


def plain(**changes):
    base = {"n": 2, "groups": 1, "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1],
            "kernel": [3, 3], "bias": 1}
    return dict(base, **changes)


def draw_transpose(draw, **given):
    groups = given.get("groups", draw.one_of(1, 1, draw.integer(2, 4)))
    c = given.get("c", groups * draw.integer(1, max(1, 12 // groups)))
    per_group = given.get("per_group", draw.integer(1, 9))
    a = {"stride": draw.shape(2, 4), "padding": [draw.integer(0, 3) for _ in range(2)],
         "output_padding": [0, 0],
         "dilation": [1, 1] if draw.flag(0.6) else draw.shape(2, 3),
         "groups": groups, "bias": draw.flag()}
    a.update({k: v for k, v in given.items() if k in a})
    if "output_padding" not in given:
        a["output_padding"] = [draw.integer(0, max(s, d) - 1)
                               for s, d in zip(a["stride"], a["dilation"])]
    kernel, size = given.get("kernel", draw.shape(2, 5)), given.get("size", draw.shape(2, 9))
    for i in range(2):
        if (size[i] - 1) * a["stride"][i] - 2 * a["padding"][i] + a["output_padding"][i] + \
                a["dilation"][i] * (kernel[i] - 1) + 1 < 1:
            raise Unsuitable("nothing comes out")
    n = given.get("n", draw.integer(1, 3))
    draw.tensor("inputs/x", n, c, *size)
    draw.tensor("params/weight", c, per_group, *kernel)
    if a["bias"]:
        draw.tensor("params/bias", per_group * groups)
    return a


def transpose(a, t):
    return one(F.conv_transpose2d(t["inputs/x"], t["params/weight"], t.get("params/bias"),
                                  stride=a["stride"], padding=a["padding"],
                                  output_padding=a["output_padding"], dilation=a["dilation"],
                                  groups=a["groups"]))


# ------------------------------------------------------------------ pooling, upsampling

def draw_pool(draw, distinct, shape=None, kernel=None, stride=None, padding=None):
    shape = shape or [draw.integer(1, 3), draw.integer(1, 20), *draw.shape(2, 17)]
    kernel = kernel or [draw.integer(1, 5) for _ in range(2)]
    stride = stride or (list(kernel) if draw.flag(0.4) else draw.shape(2, 4))
    padding = padding or [draw.integer(0, k // 2) for k in kernel]
    if any(n + 2 * p < k for n, p, k in zip(shape[2:], padding, kernel)):
        raise Unsuitable("the window does not fit")
    if distinct:
        values = draw.numpy.permutation(int(numpy.prod(shape))) * 0.01 - 3
        draw.put("inputs/x", values.reshape(shape))
    else:
        draw.tensor("inputs/x", *shape)
    return {"kernel": kernel, "stride": stride, "padding": padding}


def draw_average(draw, count_include_pad=None, **given):
    a = draw_pool(draw, False, **given)
    a["count_include_pad"] = draw.flag() if count_include_pad is None else count_include_pad
    return a


POOLS = [{"shape": [2, 3, 7, 9], "kernel": [3, 2], "stride": [2, 3], "padding": [1, 1]},
         {"shape": [1, 17, 5, 6], "kernel": [2, 2], "stride": [2, 2], "padding": [0, 0]}]


def draw_global(draw, shape=None):
    draw.tensor("inputs/x", *(shape or [draw.integer(1, 4), draw.integer(1, 40), *draw.shape(2, 17)]))
    return {"output_size": [1, 1]}


def draw_upsample(draw, shape=None, mode=None, scale=None):
    draw.tensor("inputs/x", *(shape or [draw.integer(1, 3), draw.integer(1, 20), *draw.shape(2, 9)]))
    return {"mode": mode or draw.one_of("nearest", "bilinear"),
            "scale": scale or draw.integer(1, 5)}


def upsample(a, t):
    corners = {} if a["mode"] == "nearest" else {"align_corners": False}
    return one(F.interpolate(t["inputs/x"], scale_factor=a["scale"], mode=a["mode"], **corners))


# ------------------------------------------------------------------ normalisation

def positions(draw, rank):
    largest = {0: 1, 1: 40, 2: 13, 3: 6}[rank]
    return [draw.integer(1, largest) for _ in range(rank)]


def draw_values(draw, shape):
    """Ordinary values, small ones, or an offset that is large beside them."""
    kind = draw.one_of("plain", "plain", "small", "offset")
    draw.tensor("inputs/x", *shape, scale=1e-3 if kind == "small" else 1.0,
                offset=draw.one_of(30.0, 300.0) if kind == "offset" else 0.0)


def draw_affine(draw, shape):
    draw.tensor("params/weight", *shape, offset=1.0, scale=0.5)
    draw.tensor("params/bias", *shape)


def draw_batch_norm(draw, shape=None, training=None, momentum=None, eps=None):
    shape = shape or [draw.integer(1, 6), draw.integer(1, 40), *positions(draw, draw.integer(0, 3))]
    training = draw.flag(0.7) if training is None else training
    if training and numpy.prod(shape) // shape[1] < 2:
        raise Unsuitable("one value has no variance")
    draw_values(draw, shape)
    draw_affine(draw, shape[1:2])
    draw.tensor("buffers/running_mean", shape[1])
    draw.put("buffers/running_var", draw.numpy.rand(shape[1]) + 0.5)
    return {"training": training,
            "momentum": draw.one_of(0.1, 0.1, 0.3, 0.01, 1.0, 0.0) if momentum is None else momentum,
            "eps": eps or draw.one_of(1e-5, 1e-5, 1e-3, 0.1)}


def batch_norm(a, t):
    x, mean, var = t["inputs/x"], t["buffers/running_mean"], t["buffers/running_var"]
    after, rate = {}, a["momentum"]
    if a["training"]:
        dims = [d for d in range(x.dim()) if d != 1]
        count = x.numel() // x.shape[1]
        old_mean, old_var = mean, var
        mean, var = x.mean(dim=dims), x.var(dim=dims, unbiased=False)
        after = {"buffers_after/running_mean": (1 - rate) * old_mean + rate * mean,
                 "buffers_after/running_var": (1 - rate) * old_var + rate * var * count / (count - 1)}
    y = F.batch_norm(x, None if a["training"] else mean, None if a["training"] else var,
                     t["params/weight"], t["params/bias"], bool(a["training"]), 0.0, a["eps"])
    return {"y": y}, after


def draw_layer_norm(draw, shape=None, dims=None, affine=None, eps=None):
    shape = shape or draw.shape(draw.integer(1, 4), draw.one_of(7, 20))
    over = shape[-(dims or draw.integer(1, len(shape))):]
    if numpy.prod(over) < 2:
        raise Unsuitable("one value has no variance")
    draw_values(draw, shape)
    affine = draw.flag(0.7) if affine is None else affine
    if affine:
        draw_affine(draw, over)
    return {"normalized_shape": over, "affine": affine, "eps": eps or draw.one_of(1e-5, 1e-5, 1e-3)}


def draw_group_norm(draw, shape=None, groups=None, affine=None, eps=None):
    groups = groups or draw.integer(1, 6)
    shape = shape or [draw.integer(1, 3), groups * draw.integer(1, 6),
                      *positions(draw, draw.integer(0, 3))]
    if numpy.prod(shape) // shape[0] // groups < 2:
        raise Unsuitable("one value has no variance")
    draw_values(draw, shape)
    affine = draw.flag(0.7) if affine is None else affine
    if affine:
        draw_affine(draw, shape[1:2])
    return {"groups": groups, "affine": affine, "eps": eps or draw.one_of(1e-5, 1e-5, 1e-3)}


OPS = {
    "conv1d": convolution(1, [
        {"n": 2, "c": 4, "o": 6, "groups": 2, "size": [19], "kernel": [4], "stride": [3],
         "padding": [2], "dilation": [2], "bias": 1},
        {"n": 1, "c": 3, "o": 5, "groups": 1, "size": [2], "kernel": [5], "stride": [1],
         "padding": [4], "dilation": [1], "bias": 0}]),
    "conv2d": convolution(2, [
        plain(n=1, c=16, o=16, size=[4, 6], bias=0), plain(c=5, o=7, size=[9, 7], stride=[2, 2]),
        plain(c=6, o=9, groups=3, size=[7, 10], kernel=[2, 5], stride=[3, 1], padding=[0, 4],
              dilation=[2, 1]),
        plain(n=1, c=12, o=12, groups=12, size=[6, 5]),
        plain(n=1, c=2, o=3, size=[2, 1], kernel=[5, 6], padding=[2, 3], bias=0),
        plain(n=3, c=17, o=8, size=[4, 5], kernel=[1, 1], padding=[0, 0]),
        plain(n=1, c=8, o=8, size=[6, 6], input_scale=1e4)]),
    "conv3d": convolution(3, [
        {"n": 1, "c": 4, "o": 2, "groups": 2, "size": [4, 3, 5], "kernel": [2, 3, 1],
         "stride": [1, 2, 2], "padding": [1, 0, 2], "dilation": [2, 1, 1], "bias": 1}]),
    "conv_transpose2d": Op(draw_transpose, transpose, chosen=[
        {"n": 2, "c": 4, "per_group": 3, "groups": 2, "size": [3, 4], "kernel": [3, 2],
         "stride": [2, 3], "padding": [1, 0], "output_padding": [1, 2], "dilation": [1, 2],
         "bias": 1},
        {"n": 1, "c": 3, "per_group": 5, "groups": 1, "size": [5, 1], "kernel": [1, 4],
         "stride": [1, 2], "padding": [0, 1], "output_padding": [0, 0], "dilation": [1, 1],
         "bias": 0}]),
    "max_pool2d": Op(lambda draw, **given: draw_pool(draw, True, **given),
                     lambda a, t: one(F.max_pool2d(t["inputs/x"], a["kernel"], a["stride"],
                                                   a["padding"])), chosen=POOLS),
    "avg_pool2d": Op(draw_average,
                     lambda a, t: one(F.avg_pool2d(t["inputs/x"], a["kernel"], a["stride"],
                                                   a["padding"], False,
                                                   bool(a["count_include_pad"]))),
                     chosen=[dict(pool, count_include_pad=c) for c in (0, 1) for pool in POOLS]),
    "adaptive_avg_pool2d": Op(draw_global,
                              lambda a, t: one(F.adaptive_avg_pool2d(t["inputs/x"], 1)),
                              chosen=[{"shape": [3, 5, 6, 7]}, {"shape": [1, 18, 1, 3]}]),
    "upsample": Op(draw_upsample, upsample,
                   chosen=[{"shape": [2, 3, 4, 5], "mode": "nearest", "scale": 3},
                           {"shape": [1, 9, 3, 2], "mode": "bilinear", "scale": 3},
                           {"shape": [2, 2, 1, 4], "mode": "bilinear", "scale": 2}]),
    "batch_norm": Op(draw_batch_norm, batch_norm,
                     chosen=[{"shape": [3, 10, 4, 3], "training": 1},
                             {"shape": [5, 3], "training": 1, "momentum": 1.0},
                             {"shape": [2, 9, 5], "training": 0, "eps": 1e-3},
                             {"shape": [1, 2, 2, 3, 2], "training": 1, "momentum": 0.0},
                             {"shape": [4, 3, 5], "training": 1, "input_scale": 1e4}]),
    "layer_norm": Op(draw_layer_norm,
                     lambda a, t: one(F.layer_norm(t["inputs/x"], a["normalized_shape"],
                                                   t.get("params/weight"), t.get("params/bias"),
                                                   a["eps"])),
                     chosen=[{"shape": [3, 4, 11], "dims": 1, "affine": 1},
                             {"shape": [2, 3, 5], "dims": 2, "affine": 0},
                             {"shape": [19], "dims": 1, "affine": 1, "eps": 1e-3},
                             {"shape": [4, 13], "dims": 1, "affine": 1, "input_scale": 1e4}]),
    "group_norm": Op(draw_group_norm,
                     lambda a, t: one(F.group_norm(t["inputs/x"], a["groups"],
                                                   t.get("params/weight"), t.get("params/bias"),
                                                   a["eps"])),
                     chosen=[{"shape": [2, 6, 3, 5], "groups": 3, "affine": 1},
                             {"shape": [1, 4, 7], "groups": 4, "affine": 0},
                             {"shape": [3, 8], "groups": 2, "affine": 1}]),
}
