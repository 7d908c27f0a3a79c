"""Arithmetic, reductions, shapes, products, activations, softmax, losses, embedding."""
import numpy
import torch
import torch.nn.functional as F

from case import Op, Unsuitable


def one(y):
    return {"y": y}, {}


# ------------------------------------------------------------------ arithmetic

def draw_arithmetic(draw, a=None, b=None):
    if a is None:
        shape = draw.shape(draw.integer(0, 5), 9)
        a, b = [[1 if draw.flag(0.3) else n for n in shape][draw.integer(0, len(shape)):]
                if draw.flag(0.6) else shape for _ in range(2)]
    draw.tensor("inputs/a", *a)
    b = draw.normal(*b)
    draw.put("inputs/b", numpy.where(abs(b) < 0.3, numpy.sign(b) * 0.3 + b, b))
    return {}


def arithmetic(function):
    return Op(draw_arithmetic, lambda arguments, t: one(function(t["inputs/a"], t["inputs/b"])),
              chosen=[{"a": [5, 1, 3], "b": [4, 1]}, {"a": [7], "b": [2, 3, 7]},
                      {"a": [9, 11], "b": [9, 11]}])


# ------------------------------------------------------------------ reductions and shapes

def draw_reduction(draw, shape=None, dims=None, keepdim=None):
    shape = draw.shape(draw.integer(1, 5), 13) if shape is None else shape
    if dims is None:
        dims = [int(d) for d in draw.numpy.permutation(len(shape))[:draw.integer(1, len(shape))]]
    draw.tensor("inputs/x", *shape, offset=draw.one_of(0, 0, 3))
    return {"dims": dims, "keepdim": draw.flag() if keepdim is None else keepdim}


def reduction(function):
    return Op(draw_reduction, lambda a, t: one(function(t["inputs/x"], dim=tuple(a["dims"]),
                                                        keepdim=bool(a["keepdim"]))),
              chosen=[{"shape": [3, 5, 7], "dims": [2, 0], "keepdim": 0},
                      {"shape": [2, 9, 4, 3], "dims": [1], "keepdim": 1},
                      {"shape": [6, 11], "dims": [0, 1], "keepdim": 0}])


def draw_reshape(draw, shape=None, to=None):
    if shape is None:
        factors = [draw.integer(1, 5) for _ in range(draw.integer(0, 5))]
        shape, to = regroup(draw, factors), regroup(draw, factors)
    draw.tensor("inputs/x", *shape)
    return {"shape": to}


def regroup(draw, factors):
    shape = []
    for factor in factors:
        if shape and draw.flag():
            shape[-1] *= factor
        else:
            shape.append(factor)
    while len(shape) < 5 and draw.flag(0.3):
        shape.insert(draw.integer(0, len(shape)), 1)
    return shape


def draw_permute(draw, shape=None, dims=None):
    shape = draw.shape(draw.integer(1, 5), 11) if shape is None else shape
    draw.tensor("inputs/x", *shape)
    return {"dims": [int(d) for d in draw.numpy.permutation(len(shape))] if dims is None else dims}


def draw_concat(draw, shapes=None, dim=None):
    if shapes is None:
        shape = draw.shape(draw.integer(1, 5), 7)
        dim = draw.integer(0, len(shape) - 1)
        shapes = []
        for _ in range(draw.integer(1, 7)):
            shape[dim] = draw.integer(1, 17)
            shapes.append(list(shape))
    for i, shape in enumerate(shapes):
        draw.tensor("inputs/x%d" % i, *shape)
    return {"count": len(shapes), "dim": dim}


def concat(a, t):
    return one(torch.cat([t["inputs/x%d" % i] for i in range(a["count"])], dim=a["dim"]))


def draw_slice(draw, shape=None, starts=None, stops=None, steps=None):
    if shape is None:
        shape = draw.shape(draw.integer(1, 5), 11)
        starts = [draw.integer(0, n - 1) for n in shape]
        stops = [n if draw.flag() else start + 1 + draw.integer(0, n - start - 1)
                 for n, start in zip(shape, starts)]
        steps = [draw.integer(1, 4) for _ in shape]
    draw.tensor("inputs/x", *shape)
    return {"starts": starts, "stops": stops, "steps": steps}


def take_slice(a, t):
    return one(t["inputs/x"][tuple(slice(*s) for s in zip(a["starts"], a["stops"], a["steps"]))])


# ------------------------------------------------------------------ products

def draw_matmul(draw, batch=None, m=None, k=None, p=None):
    if batch is None:
        batch = draw.shape(draw.one_of(0, 0, 1, 2, 3), 4)
        m, k, p = draw.shape(3, draw.one_of(5, 40, 130))
    draw.tensor("inputs/a", *batch, m, k)
    draw.tensor("inputs/b", *batch, k, p)
    return {}


def draw_linear(draw, leading=None, inputs=None, outputs=None, bias=None):
    if leading is None:
        leading = draw.shape(draw.integer(0, 4), 9)
        inputs, outputs = draw.shape(2, draw.one_of(5, 40, 130))
        bias = draw.flag()
    draw.tensor("inputs/x", *leading, inputs)
    draw.tensor("params/weight", outputs, inputs)
    if bias:
        draw.tensor("params/bias", outputs)
    return {"bias": bias}


# ------------------------------------------------------------------ activations

EXTREME = (1e-20, 1e-4, 1.0, 10.0, 30.0, 88.0, 200.0)  # scales


def activation(function, names=(), ranges=(), edge=None, chosen=()):
    """names: the arguments; ranges: of each the choices; edge(arguments): where y jumps."""
    def draw(d, shape=None, extreme=None, **given):
        a = {name: given.get(name, float(d.one_of(*choices)))
             for name, choices in zip(names, ranges)}
        shape = d.shape(d.integer(1, 5), 9) if shape is None else shape
        x = d.normal(*shape, scale=d.one_of(1.0, 1.0, 4.0) if numpy.prod(shape) > 8 else 1.0)
        if extreme or (extreme is None and d.flag(0.25)):
            x = numpy.concatenate([[-1000, -100, -1, 0, 1, 100, 1000],
                                   d.one_of(*EXTREME) * d.numpy.randn(d.integer(1, 30))])
        d.put("inputs/x", x)
        if edge is not None and (abs(edge(a, d.tensors["inputs/x"])) < 1e-3).any():
            raise Unsuitable("at the threshold")
        return a

    return Op(draw, lambda a, t: one(function(t["inputs/x"], **a)), chosen=chosen or (
        {"shape": [3, 2, 7], "extreme": 0}, {"shape": [], "extreme": 1}))


# ------------------------------------------------------------------ softmax, losses, embedding

def draw_softmax(draw, shape=None, dim=None, scale=None):
    shape = draw.shape(draw.integer(1, 5), draw.one_of(9, 9, 40)) if shape is None else shape
    if numpy.prod(shape) > 20000:
        raise Unsuitable("too large")
    draw.tensor("inputs/x", *shape, scale=scale or draw.one_of(1.0, 1.0, 10.0, 1000.0))
    return {"dim": draw.integer(0, len(shape) - 1) if dim is None else dim}


SOFTMAX = [{"shape": [5, 11], "dim": 1}, {"shape": [3, 7, 5], "dim": 1, "scale": 1000.0},
           {"shape": [4, 2, 3], "dim": 0}]


def draw_cross_entropy(draw, n=None, classes=None, e=None, scale=None):
    n = n or draw.integer(1, 65)
    classes = classes or draw.integer(1, 130)
    draw.tensor("inputs/logits", n, classes, scale=scale or draw.one_of(1.0, 1.0, 80.0, 300.0))
    draw.put("buffers/labels", draw.numpy.randint(classes, size=n))
    e = draw.one_of(0.0, 0.0, 0.1, 0.2, 0.5, 1.0) if e is None else e
    return {"label_smoothing": e, "reduction": "mean"}


def cross_entropy(a, t):
    p = F.log_softmax(t["inputs/logits"], dim=1)
    e, classes = a["label_smoothing"], p.shape[1]
    picked = p[torch.arange(p.shape[0]), t["buffers/labels"].long()]
    return {"loss": (-(1 - e) * picked - e / classes * p.sum(dim=1)).mean()}, {}


def loss(function, names=(), ranges=(), probabilities=False):
    def draw(d, shape=None, scale=None, **given):
        a = {name: given.get(name, float(d.one_of(*choices)))
             for name, choices in zip(names, ranges)}
        shape = d.shape(d.integer(0, 5), 9) if shape is None else shape
        d.tensor("inputs/x", *shape, scale=scale or d.one_of(1.0, 1.0, 30.0))
        target = d.numpy.rand(*shape) if probabilities else d.normal(*shape)
        if probabilities and d.flag(0.3):
            target = numpy.round(target)
        d.put("buffers/target", target)
        return dict(a, reduction="mean")

    def compute(a, t):
        return {"loss": function(t["inputs/x"], t["buffers/target"],
                                 **{name: a[name] for name in names})}, {}
    return Op(draw, compute, chosen=[{"shape": [13]}, {"shape": [3, 2, 5], "scale": 30.0},
                                     {"shape": [1, 1]}])


def draw_embedding(draw, rows=None, width=None, shape=None):
    rows, width = rows or draw.integer(1, 40), width or draw.integer(1, 40)
    shape = draw.shape(draw.integer(0, 4), 9) if shape is None else shape
    draw.tensor("params/weight", rows, width)
    draw.put("buffers/indices", draw.numpy.randint(rows, size=shape).astype(numpy.int32))
    return {}


OPS = {
    "add": arithmetic(torch.add),
    "sub": arithmetic(torch.sub),
    "mul": arithmetic(torch.mul),
    "div": arithmetic(torch.div),
    "sum": reduction(torch.sum),
    "mean": reduction(torch.mean),
    "reshape": Op(draw_reshape, lambda a, t: one(t["inputs/x"].reshape(a["shape"])),
                  chosen=[{"shape": [4, 6, 5], "to": [2, 12, 5]}, {"shape": [9], "to": [3, 1, 3]}]),
    "permute": Op(draw_permute, lambda a, t: one(t["inputs/x"].permute(a["dims"])),
                  chosen=[{"shape": [2, 5, 3, 4], "dims": [2, 0, 3, 1]},
                          {"shape": [3, 1, 2, 4, 2], "dims": [4, 3, 2, 1, 0]}]),
    "concat": Op(draw_concat, concat,
                 chosen=[{"shapes": [[2, 3, 4], [2, 1, 4], [2, 5, 4]], "dim": 1},
                         {"shapes": [[3, 2]], "dim": 0}]),
    "slice": Op(draw_slice, take_slice,
                chosen=[{"shape": [9, 10], "starts": [1, 0], "stops": [8, 10], "steps": [3, 4]},
                        {"shape": [3, 5, 4, 6], "starts": [2, 0, 1, 3], "stops": [3, 5, 3, 4],
                         "steps": [1, 2, 1, 1]}]),
    "matmul": Op(draw_matmul, lambda a, t: one(t["inputs/a"] @ t["inputs/b"]),
                 chosen=[{"batch": [], "m": 5, "k": 19, "p": 3},
                         {"batch": [3, 2], "m": 4, "k": 7, "p": 5},
                         {"batch": [], "m": 1, "k": 40, "p": 21}]),
    "linear": Op(draw_linear, lambda a, t: one(F.linear(t["inputs/x"], t["params/weight"],
                                                        t.get("params/bias"))),
                 chosen=[{"leading": [4], "inputs": 9, "outputs": 6, "bias": 1},
                         {"leading": [2, 5, 3], "inputs": 8, "outputs": 11, "bias": 1},
                         {"leading": [], "inputs": 23, "outputs": 1, "bias": 0},
                         {"leading": [5], "inputs": 12, "outputs": 3, "bias": 1,
                          "input_scale": 1e4}]),
    "relu": activation(torch.relu),
    "leaky_relu": activation(F.leaky_relu, ["negative_slope"], [(0.01, 0.2, 0.0, 1.0, 0.3)]),
    "gelu": activation(F.gelu),
    "gelu_tanh": activation(lambda x: F.gelu(x, approximate="tanh")),
    "silu": activation(F.silu),
    "sigmoid": activation(torch.sigmoid),
    "tanh": activation(torch.tanh),
    "elu": activation(F.elu, ["alpha"], [(1.0, 0.5, 1.7, 0.1)]),
    "softplus": activation(F.softplus, ["beta", "threshold"],
                           [(1.0, 2.0, 0.5, 5.0), (20.0, 20.0, 5.0, 1.0)],
                           edge=lambda a, x: a["beta"] * x - a["threshold"]),
    "softmax": Op(draw_softmax, lambda a, t: one(F.softmax(t["inputs/x"], dim=a["dim"])),
                  chosen=SOFTMAX),
    "log_softmax": Op(draw_softmax, lambda a, t: one(F.log_softmax(t["inputs/x"], dim=a["dim"])),
                      chosen=SOFTMAX),
    "cross_entropy": Op(draw_cross_entropy, cross_entropy,
                        chosen=[{"n": 5, "classes": 7, "e": 0.0}, {"n": 1, "classes": 12, "e": 0.2},
                                {"n": 9, "classes": 4, "e": 0.1, "scale": 300.0},
                                {"n": 6, "classes": 5, "e": 0.0, "scale": 80.0}]),
    "mse_loss": loss(F.mse_loss),
    "smooth_l1_loss": loss(F.smooth_l1_loss, ["beta"], [(1.0, 0.3, 0.05, 4.0)]),
    "bce_with_logits": loss(F.binary_cross_entropy_with_logits, probabilities=True),
    "embedding": Op(draw_embedding,
                    lambda a, t: one(F.embedding(t["buffers/indices"].long(), t["params/weight"])),
                    chosen=[{"rows": 7, "width": 5, "shape": [3, 4]},
                            {"rows": 3, "width": 1, "shape": [11]}]),
}
