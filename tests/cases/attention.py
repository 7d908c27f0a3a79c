"""Attention over sequences, efficient attention, non-local blocks."""
import math

import numpy
import torch
import torch.nn.functional as F

from case import Op, Unsuitable


def one(y):
    return {"y": y}, {}


def draw_attention(draw, batch=None, heads=None, length=None, width=None, causal=None, scale=None):
    shape = [batch or draw.integer(1, 3), heads or draw.integer(1, 4),
             length or draw.integer(1, draw.one_of(20, 140)), width or draw.integer(1, 40)]
    scale = scale or draw.one_of(1.0, 1.0, 4.0)
    for name in "qkv":
        draw.tensor("inputs/" + name, *shape, scale=scale if name != "v" else 1.0)
    return {"causal": draw.flag() if causal is None else causal}


def attention(a, t):
    q, k, v = (t["inputs/" + name] for name in "qkv")
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if a["causal"]:
        n = q.shape[-2]
        later = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
        scores = scores.masked_fill(later, -math.inf)
    return one(torch.softmax(scores, dim=-1) @ v)


# ------------------------------------------------------------------ modules

def module(x, p, keys, values, heads, mix):
    """The projections, heads and residual that both modules share. p(name): a parameter; mix(k, q, v):
    [N, K/h, n], [N, K/h, n], [N, V/h, n] -> [N, V/h, n]; keys False: k and q are not projected."""
    flat = x.flatten(2)

    def project(name, source):
        return p(name + ".weight") @ source + p(name + ".bias")[:, None]
    k, q = (project("keys", flat), project("queries", flat)) if keys else (flat, flat)
    v = project("values", flat)
    out = torch.cat([mix(*parts) for parts in
                     zip(k.chunk(heads, 1), q.chunk(heads, 1), v.chunk(heads, 1))], dim=1)
    return x + project("reprojection", out).reshape(x.shape)


def efficient(x, p, a, key_channels, value_channels):
    n = x.flatten(2).shape[2]

    def mix(k, q, v):
        if a["normalization"] == "softmax":
            k, q = torch.softmax(k, dim=2), torch.softmax(q, dim=1)
        else:
            k, q = k / math.sqrt(n), q / math.sqrt(n)
        return (k @ v.transpose(1, 2)).transpose(1, 2) @ q
    return module(x, p, key_channels, value_channels, a["heads"], mix)


def non_local(x, p, a, key_channels, value_channels, margins=None):
    """margins, if given, receives how near a ReLU came to its kink."""
    n = x.flatten(2).shape[2]

    def mix(k, q, v):
        form = a["pairwise"]
        if form == "concatenation":
            both = p("pair.weight")
            first, second = both[:key_channels], both[key_channels:]
            scores = (first @ q)[:, :, None] + (second @ k)[:, None, :]
            if margins is not None:
                margins.append(float(scores.abs().min()))
            w = torch.relu(scores) / n
        else:
            scores = q.transpose(1, 2) @ k
            if form == "dot_product":
                w = scores / n
            else:
                scale = math.sqrt(k.shape[1]) if form == "embedded_gaussian_scaled" else 1.0
                w = torch.softmax(scores / scale, dim=2)
        return v @ w.transpose(1, 2)
    return module(x, p, a["pairwise"] != "gaussian", value_channels, a["heads"], mix)


def draw_module(draw, names, shape, key_channels, value_channels, scale):
    c = shape[1]
    draw.tensor("inputs/x", *shape)
    for name in names:
        rows = value_channels if name == "values" else key_channels
        draw.tensor("params/%s.weight" % name, rows, c,
                    scale=(scale if name != "values" else 1.0) / math.sqrt(c))
        draw.tensor("params/%s.bias" % name, rows, scale=0.5)
    draw.tensor("params/reprojection.weight", c, value_channels, scale=1 / math.sqrt(value_channels))
    draw.tensor("params/reprojection.bias", c, scale=0.5)


def draw_extents(draw, shape, keys, values, heads):
    """Any shape, channels and heads that fit; what is given stays."""
    heads = heads or draw.one_of(1, 1, 2, 3, 4, 8)
    keys = keys or heads * draw.integer(1, max(1, draw.one_of(8, 40) // heads))
    values = values or heads * draw.integer(1, max(1, draw.one_of(8, 40) // heads))
    if shape is None:
        rank = draw.one_of(1, 2, 2, 3)
        largest = {1: draw.one_of(70, 400), 2: 16, 3: 6}[rank]
        shape = [draw.integer(1, 3), draw.integer(1, draw.one_of(8, 40)),
                 *[draw.integer(1, largest) for _ in range(rank)]]
    return shape, keys, values, heads


def draw_efficient(draw, shape=None, keys=None, values=None, heads=None, normalization=None,
                   scale=None):
    shape, keys, values, heads = draw_extents(draw, shape, keys, values, heads)
    scale = scale or draw.one_of(1.0, 1.0, 1.0, 25.0, 60.0)
    normalization = normalization or draw.one_of("softmax", "scaling")
    draw_module(draw, ("keys", "queries", "values"), shape, keys, values,
                scale if normalization == "softmax" else 1.0)
    return {"key_channels": keys, "value_channels": values, "heads": heads,
            "normalization": normalization}


def compute_efficient(a, t):
    return one(efficient(t["inputs/x"], lambda name: t["params/" + name], a, a["key_channels"],
                         a["value_channels"]))


PAIRWISE = ("embedded_gaussian", "embedded_gaussian_scaled", "dot_product", "gaussian",
            "concatenation")


def draw_non_local(draw, shape=None, keys=None, values=None, heads=None, pairwise=None, scale=None):
    pairwise = pairwise or draw.one_of(*PAIRWISE)
    if pairwise in ("gaussian", "concatenation"):
        heads = 1
    shape, keys, values, heads = draw_extents(draw, shape, keys, values, heads)
    positions = int(numpy.prod(shape[2:]))
    if positions > (130 if pairwise == "concatenation" else 500):
        raise Unsuitable("too many pairs")
    names = ("values",) if pairwise == "gaussian" else ("keys", "queries", "values")
    keys = shape[1] if pairwise == "gaussian" else keys
    draw_module(draw, names, shape, keys, values, scale or draw.one_of(0.5, 1.0, 1.0, 2.5))
    if pairwise == "concatenation":
        draw.tensor("params/pair.weight", 2 * keys, scale=1 / math.sqrt(keys))
    return {"key_channels": keys, "value_channels": values, "heads": heads, "pairwise": pairwise}


def compute_non_local(a, t):
    margins = []
    y = non_local(t["inputs/x"], lambda name: t["params/" + name], a, a["key_channels"],
                  a["value_channels"], margins)
    if margins and min(margins) < 5e-6:
        raise Unsuitable("at the kink of a ReLU")
    return one(y)


OPS = {
    "attention": Op(draw_attention, attention, chosen=[
        {"batch": 2, "heads": 3, "length": 9, "width": 5, "causal": 1},
        {"batch": 1, "heads": 1, "length": 35, "width": 4, "causal": 0},
        {"batch": 1, "heads": 2, "length": 1, "width": 9, "causal": 1},
        {"batch": 1, "heads": 2, "length": 11, "width": 6, "causal": 1, "scale": 8.0}]),
    "efficient_attention": Op(draw_efficient, compute_efficient, chosen=[
        {"shape": [2, 6, 5, 7], "keys": 4, "values": 10, "heads": 2, "normalization": "softmax"},
        {"shape": [1, 9, 31], "keys": 3, "values": 3, "heads": 3, "normalization": "scaling"},
        {"shape": [1, 5, 2, 3, 4], "keys": 2, "values": 7, "heads": 1, "normalization": "softmax",
         "scale": 40.0},
        {"shape": [3, 8, 1], "keys": 8, "values": 4, "heads": 4, "normalization": "softmax"},
        {"shape": [1, 11, 6, 6], "keys": 6, "values": 12, "heads": 6, "normalization": "scaling"}]),
    "non_local": Op(draw_non_local, compute_non_local, chosen=[
        {"shape": [2, 5, 4, 5], "keys": 6, "values": 4, "heads": 2, "pairwise": "embedded_gaussian"},
        {"shape": [1, 7, 19], "keys": 4, "values": 8, "heads": 4,
         "pairwise": "embedded_gaussian_scaled"},
        {"shape": [1, 3, 2, 3, 4], "keys": 9, "values": 6, "heads": 3, "pairwise": "dot_product"},
        {"shape": [2, 6, 17], "values": 9, "pairwise": "gaussian"},
        {"shape": [1, 4, 5, 3], "keys": 5, "values": 3, "pairwise": "concatenation"},
        {"shape": [3, 4, 1, 1], "keys": 2, "values": 2, "pairwise": "concatenation"},
        {"shape": [1, 4, 5, 4], "keys": 4, "values": 4, "heads": 2, "pairwise": "embedded_gaussian",
         "scale": 5.0}]),
}
