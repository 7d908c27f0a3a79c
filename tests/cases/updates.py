"""Optimizers, learning-rate schedules, gradient clipping: the formulas of the format, step by step."""
import math

import numpy
import torch

from case import Op, Unsuitable

SHAPES = ([3, 5], [7], [1], [2, 3, 2, 2], [33], [4, 1, 9], [])


# ------------------------------------------------------------------ optimizers

def draw_optimizer(draw, kind=None, count=None, steps=None, **given):
    kind = kind or draw.one_of("sgd", "sgd", "adam", "adamw", "rmsprop")
    steps = steps or draw.integer(1, 20)
    decay = draw.one_of(0.0, 0.0, 0.1, 5e-4)
    if kind == "sgd":
        momentum = draw.one_of(0.0, 0.9, 0.5, 0.99)
        nesterov = draw.flag(0.3) if momentum else 0
        a = {"lr": draw.one_of(0.1, 0.01, 0.5), "momentum": momentum, "weight_decay": decay,
             "dampening": draw.one_of(0.0, 0.3, 0.9) if momentum and not nesterov else 0.0,
             "nesterov": nesterov}
    elif kind == "rmsprop":
        a = {"lr": draw.one_of(0.01, 0.001), "alpha": draw.one_of(0.99, 0.9, 0.5, 0.0),
             "eps": draw.one_of(1e-8, 1e-3, 0.1), "weight_decay": decay,
             "momentum": draw.one_of(0.0, 0.9), "centered": 0}
    else:
        a = {"lr": draw.one_of(0.01, 0.001, 0.05), "beta1": draw.one_of(0.9, 0.5, 0.0),
             "beta2": draw.one_of(0.999, 0.99, 0.9), "eps": draw.one_of(1e-8, 1e-3),
             "weight_decay": decay, "amsgrad": 0}
    a.update(given)
    for i in range(count or draw.integer(1, 12)):
        shape = draw.one_of(*SHAPES)
        draw.tensor("params/p%d" % i, *shape)
        draw.tensor("grads_per_step/p%d" % i, steps, *shape, scale=draw.one_of(1.0, 0.1, 0.01))
        if draw.flag(0.1):
            draw.put("grads_per_step/p%d" % i, numpy.zeros([steps] + shape))
    return dict(a, kind=kind, steps=steps)


def update_of(a, state, p, g, t):
    """The new p; `state` is a dictionary of this parameter's own."""
    kind, decay = a["kind"], a["weight_decay"]
    if kind == "adamw":
        p = p - a["lr"] * decay * p
    else:
        g = g + decay * p
    if kind == "sgd":
        if a["momentum"] != 0:
            state["buf"] = g if t == 1 else a["momentum"] * state["buf"] + (1 - a["dampening"]) * g
            g = g + a["momentum"] * state["buf"] if a["nesterov"] else state["buf"]
        return p - a["lr"] * g
    if kind == "rmsprop":
        state["v"] = a["alpha"] * state.get("v", 0) + (1 - a["alpha"]) * g ** 2
        d = g / (torch.sqrt(state["v"]) + a["eps"])
        if a["momentum"] > 0:
            d = state["buf"] = a["momentum"] * state.get("buf", 0) + d
        return p - a["lr"] * d
    state["m"] = a["beta1"] * state.get("m", 0) + (1 - a["beta1"]) * g
    state["v"] = a["beta2"] * state.get("v", 0) + (1 - a["beta2"]) * g ** 2
    m, v = state["m"] / (1 - a["beta1"] ** t), state["v"] / (1 - a["beta2"] ** t)
    return p - a["lr"] * m / (torch.sqrt(v) + a["eps"])


def optimizer(a, t):
    after = {}
    i = 0
    while "params/p%d" % i in t:
        p, state, history = t["params/p%d" % i].detach(), {}, []
        for step in range(a["steps"]):
            p = update_of(a, state, p, t["grads_per_step/p%d" % i][step], step + 1)
            history.append(p)
        after["params_per_step/p%d" % i] = torch.stack(history)
        i += 1
    return {}, after


# ------------------------------------------------------------------ schedules

def draw_schedule(draw, kind=None, steps=None, **given):
    kind = kind or draw.one_of("step", "multistep", "cosine", "warmup_cosine", "one_cycle")
    base = draw.one_of(0.1, 0.4, 1.0, 0.003)
    length = draw.integer(2, 60)
    a = {}
    if kind == "step":
        a = {"step_size": draw.integer(1, 9), "gamma": draw.one_of(0.1, 0.5, 0.97, 1.0)}
    elif kind == "multistep":
        marks = numpy.unique(draw.numpy.randint(1, length + 3, size=draw.integer(1, 6)))
        a = {"milestones": [int(m) for m in marks], "gamma": draw.one_of(0.1, 0.2, 0.5)}
    elif kind == "cosine":
        a = {"t_max": draw.integer(1, 40), "eta_min": draw.one_of(0.0, 0.01 * base, base)}
    elif kind == "warmup_cosine":
        total = draw.integer(2, 60)
        a = {"warmup_steps": draw.integer(0, total - 1), "total_steps": total,
             "start_factor": draw.one_of(0.1, 0.0, 1.0, 0.25),
             "eta_min": draw.one_of(0.0, 0.01 * base)}
    else:
        a = {"total_steps": length, "max_lr": base,
             "pct_start": draw.one_of(0.3, 0.45, 0.1, 0.5, 0.9, 0.25, 0.0, 1.0),
             "div_factor": draw.one_of(25.0, 10.0, 1.0, 4.0),
             "final_div_factor": draw.one_of(1e4, 100.0, 1.0)}
        steps = steps or length
    a.update(given)
    return dict(a, kind=kind, base_lr=base, steps=steps or length)


def rate(a, t):
    base = a["base_lr"]
    if a["kind"] == "step":
        return base * a["gamma"] ** (t // a["step_size"])
    if a["kind"] == "multistep":
        return base * a["gamma"] ** sum(m <= t for m in a["milestones"])
    if a["kind"] == "cosine":
        return a["eta_min"] + (base - a["eta_min"]) * (1 + math.cos(math.pi * t / a["t_max"])) / 2
    if a["kind"] == "warmup_cosine":
        w, s = a["warmup_steps"], a["total_steps"]
        if t < w:
            return base * (a["start_factor"] + (1 - a["start_factor"]) * t / w)
        return a["eta_min"] + (base - a["eta_min"]) * (
            1 + math.cos(math.pi * (t - w) / (s - w))) / 2
    s = a["total_steps"]
    first = a["max_lr"] / a["div_factor"]
    last = first / a["final_div_factor"]
    e = a["pct_start"] * s - 1
    if e == 0:
        raise Unsuitable("a rise of no steps")

    def anneal(x, y, f):
        return y + (x - y) * (1 + math.cos(math.pi * f)) / 2
    return anneal(first, a["max_lr"], t / e) if t <= e else \
        anneal(a["max_lr"], last, (t - e) / (s - 1 - e))


def schedule(a, t):
    return {"lr": torch.tensor([rate(a, step) for step in range(a["steps"])],
                               dtype=torch.float64)}, {}


# ------------------------------------------------------------------ clipping

def draw_clip(draw, count=None, max_norm=None, scale=None):
    count = count or draw.integer(1, 20)
    scale = draw.one_of(1.0, 1e-3, 100.0, 1e-9, 1e12) if scale is None else scale
    for i in range(count):
        draw.tensor("inputs/g%d" % i, *draw.one_of(*SHAPES),
                    scale=scale * draw.one_of(1.0, 1.0, 0.0))
    return {"count": count, "norm_type": 2.0,
            "max_norm": max_norm or draw.one_of(1.0, 0.1, 5.0, 1e-5, 50.0)}


def clip(a, t):
    grads = [t["inputs/g%d" % i].detach() for i in range(a["count"])]
    total = torch.sqrt(sum((g.double() ** 2).sum() for g in grads)).to(grads[0].dtype)
    factor = torch.clamp(a["max_norm"] / (total + 1e-6), max=1.0)
    outputs = {"g%d" % i: g * factor for i, g in enumerate(grads)}
    return dict(outputs, total_norm=total), {}


OPS = {
    "optimizer": Op(draw_optimizer, optimizer, differentiable=False, rtol=5e-6, atol=5e-7, chosen=[
        {"kind": "sgd", "count": 2, "steps": 5, "momentum": 0.9, "nesterov": 1, "dampening": 0.0},
        {"kind": "sgd", "count": 2, "steps": 5, "momentum": 0.8, "nesterov": 0, "dampening": 0.4,
         "weight_decay": 0.01},
        {"kind": "adam", "count": 3, "steps": 6, "beta1": 0.0},
        {"kind": "adamw", "count": 2, "steps": 4, "weight_decay": 0.1},
        {"kind": "rmsprop", "count": 2, "steps": 5, "momentum": 0.9, "weight_decay": 0.1}]),
    "lr_schedule": Op(draw_schedule, schedule, differentiable=False, rtol=2e-6, atol=1e-7, chosen=[
        {"kind": "step"}, {"kind": "multistep", "milestones": [4], "steps": 9},
        {"kind": "cosine", "t_max": 6, "steps": 15},
        {"kind": "warmup_cosine", "warmup_steps": 0, "total_steps": 8, "steps": 11},
        {"kind": "one_cycle", "total_steps": 9, "pct_start": 0.4, "steps": 9}]),
    "clip_grad_norm": Op(draw_clip, clip, differentiable=False, atol=5e-7, chosen=[
        {"count": 4, "max_norm": 0.5, "scale": 1.0}, {"count": 2, "max_norm": 1.0, "scale": 0.0}]),
}
