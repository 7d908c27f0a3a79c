"""Whole networks: the residual network for small images, and training it."""
import numpy
import torch
import torch.nn.functional as F

import attention
from case import Op, Unsuitable

MARGIN = 4e-6  # how near zero a ReLU's input may come: single precision must not take the other side


class Network:
    """The forward pass; parameters and buffers by name. `after` receives the running statistics."""

    def __init__(self, a, parameters, buffers, training):
        self.a, self.p, self.b, self.training, self.after = a, parameters, buffers, training, {}
        self.margin = numpy.inf

    def relu(self, x):
        self.margin = min(self.margin, float(x.detach().abs().min()))
        return torch.relu(x)

    def bn(self, name, x):
        rate, eps = self.a["bn_momentum"], self.a["bn_eps"]
        mean, var = self.b[name + ".running_mean"], self.b[name + ".running_var"]
        weight, bias = self.p[name + ".weight"], self.p[name + ".bias"]
        if not self.training:
            return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        mean, var = mean.clone(), var.clone()
        y = F.batch_norm(x, mean, var, weight, bias, True, rate, eps)
        self.after[name + ".running_mean"], self.after[name + ".running_var"] = mean, var
        return y

    def conv_bn(self, conv, bn, x, stride=1):
        weight = self.p[conv + ".weight"]
        return self.bn(bn, F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2))

    def block(self, name, x, stride):
        t = self.relu(self.conv_bn(name + ".conv1", name + ".bn1", x, stride))
        t = self.conv_bn(name + ".conv2", name + ".bn2", t)
        if name + ".shortcut.conv.weight" in self.p:
            x = self.conv_bn(name + ".shortcut.conv", name + ".shortcut.bn", x, stride)
        return self.relu(t + x)

    def attend(self, name, x):
        def p(parameter):
            return self.p[name + "." + parameter]
        channels = x.shape[1]
        keys = channels // self.a["key_channels_divisor"]
        if self.a["attention"] == "efficient":
            return attention.efficient(x, p, self.a, keys, channels)
        margins = []
        y = attention.non_local(x, p, self.a, keys, channels, margins)
        self.margin = min([self.margin] + margins)
        return y

    def forward(self, x):
        x = self.relu(self.conv_bn("stem.conv", "stem.bn", x))
        for s in range(3):
            for b in range(self.a["blocks_per_stage"]):
                x = self.block("stages.%d.blocks.%d" % (s, b), x, 2 if s > 0 and b == 0 else 1)
            if s in self.a.get("attention_stages", []):
                x = self.attend("stages.%d.attention" % s, x)
        return F.linear(x.mean(dim=(2, 3)), self.p["head.weight"], self.p["head.bias"])


# ------------------------------------------------------------------ drawing one

def draw_bn(draw, name, channels):
    draw.tensor("params/%s.weight" % name, channels, offset=1.0, scale=0.2)
    draw.tensor("params/%s.bias" % name, channels, scale=0.2)
    draw.tensor("buffers/%s.running_mean" % name, channels, scale=0.3)
    draw.put("buffers/%s.running_var" % name, draw.numpy.rand(channels) + 0.5)


def draw_conv_bn(draw, conv, bn, inputs, outputs, kernel):
    draw.tensor("params/%s.weight" % conv, outputs, inputs, kernel, kernel,
                scale=(2 / (inputs * kernel * kernel)) ** 0.5)
    draw_bn(draw, bn, outputs)


def draw_attention_module(draw, name, a, channels):
    keys = channels // a["key_channels_divisor"]
    rows = {"keys": keys, "queries": keys, "values": channels, "reprojection": channels}
    if a.get("pairwise") == "gaussian":
        del rows["keys"], rows["queries"]
    for part, count in rows.items():
        draw.tensor("params/%s.%s.weight" % (name, part), count, channels, scale=channels ** -0.5)
        draw.tensor("params/%s.%s.bias" % (name, part), count, scale=0.1)
    if a.get("pairwise") == "concatenation":
        draw.tensor("params/%s.pair.weight" % name, 2 * keys, scale=keys ** -0.5)


def draw_network(draw, a):
    inputs = 3
    draw_conv_bn(draw, "stem.conv", "stem.bn", inputs, a["width"], 3)
    inputs = a["width"]
    for s in range(3):
        channels = a["width"] << s
        for b in range(a["blocks_per_stage"]):
            name = "stages.%d.blocks.%d" % (s, b)
            draw_conv_bn(draw, name + ".conv1", name + ".bn1", inputs, channels, 3)
            draw_conv_bn(draw, name + ".conv2", name + ".bn2", channels, channels, 3)
            if inputs != channels:
                draw_conv_bn(draw, name + ".shortcut.conv", name + ".shortcut.bn", inputs, channels,
                             1)
            inputs = channels
        if s in a.get("attention_stages", []):
            draw_attention_module(draw, "stages.%d.attention" % s, a, channels)
    draw.tensor("params/head.weight", a["classes"], inputs, scale=inputs ** -0.5)
    draw.tensor("params/head.bias", a["classes"], scale=0.1)


def draw_config(draw, given):
    width = given.get("width", draw.one_of(4, 5, 6, 8, 8, 12, 16))
    a = {"blocks_per_stage": draw.one_of(1, 1, 1, 2, 3, 4), "width": width,
         "classes": draw.integer(2, 20), "attention": draw.one_of("none", "efficient", "non_local"),
         "bn_momentum": draw.one_of(0.1, 0.1, 0.3, 0.01, 1.0), "bn_eps": draw.one_of(1e-5, 1e-3)}
    a.update(given)
    if a["attention"] == "none":
        return a
    a.setdefault("attention_stages", sorted(int(s) for s in
                                            draw.numpy.permutation(3)[:draw.integer(1, 3)]))
    channels = [width << s for s in a["attention_stages"]]
    a.setdefault("key_channels_divisor", draw.one_of(*[d for d in (1, 2, 4, 8)
                                                       if all(c % d == 0 for c in channels)]))
    keys = [c // a["key_channels_divisor"] for c in channels]
    heads = [h for h in (1, 2, 3, 4) if all(k % h == 0 for k in keys + channels)]
    if a["attention"] == "efficient":
        a.setdefault("normalization", draw.one_of("softmax", "scaling"))
    else:
        a.setdefault("pairwise", draw.one_of(*attention.PAIRWISE))
    single = a.get("pairwise") in ("gaussian", "concatenation")
    a.setdefault("heads", 1 if single else draw.one_of(*heads))
    return a


def draw_resnet(draw, n=None, size=None, **given):
    a = draw_config(draw, given)
    a.setdefault("training", draw.flag(0.8))
    n = n or draw.integer(1, 3)
    size = size or [draw.integer(5, 12), draw.integer(5, 12)]
    if a["training"] and n * ((size[0] + 3) // 4) * ((size[1] + 3) // 4) < 8:
        raise Unsuitable("too few values for a variance")
    draw_network(draw, a)
    draw.tensor("inputs/x", n, 3, *size)
    draw.put("buffers/labels", draw.numpy.randint(a["classes"], size=n))
    return a


def parts(t, group):
    return {path[len(group) + 1:]: value for path, value in t.items()
            if path.startswith(group + "/")}


def resnet(a, t):
    net = Network(a, parts(t, "params"), parts(t, "buffers"), bool(a["training"]))
    logits = net.forward(t["inputs/x"])
    if net.margin < MARGIN:
        raise Unsuitable("at the kink of a ReLU")
    loss = F.cross_entropy(logits, t["buffers/labels"].long())
    return ({"logits": logits, "loss": loss},
            {"buffers_after/" + name: value for name, value in net.after.items()})


def draw_training(draw, n=None, size=None, steps=None, **given):
    extra = {"kind": "sgd", "lr": given.pop("lr", draw.one_of(0.05, 0.02, 0.1)),
             "momentum": given.pop("momentum", draw.one_of(0.9, 0.9, 0.0, 0.5)),
             "weight_decay": given.pop("weight_decay", draw.one_of(5e-4, 0.0, 0.01)),
             "steps": steps or draw.integer(1, 8)}
    a = draw_config(draw, given)
    if a.get("pairwise") == "concatenation" and "pairwise" not in given:
        raise Unsuitable("too many kinks")
    n = n or draw.integer(2, 4)
    size = size or [draw.integer(6, 10), draw.integer(6, 10)]
    draw_network(draw, a)
    draw.tensor("batches/x", extra["steps"], n, 3, *size)
    draw.put("batches/labels", draw.numpy.randint(a["classes"], size=(extra["steps"], n)))
    return dict(a, **extra)


def training(a, t):
    params = {name: p.detach().clone().requires_grad_() for name, p in parts(t, "params").items()}
    buffers = parts(t, "buffers")
    momentum = {}
    losses = []
    for step in range(a["steps"]):
        net = Network(a, params, buffers, True)
        logits = net.forward(t["batches/x"][step])
        if net.margin < 2 * MARGIN * (1 + step):
            raise Unsuitable("at the kink of a ReLU")
        loss = F.cross_entropy(logits, t["batches/labels"][step].long())
        losses.append(loss.detach())
        grads = torch.autograd.grad(loss, list(params.values()))
        buffers = dict(buffers, **net.after)
        with torch.no_grad():
            for (name, p), g in zip(params.items(), grads):
                g = g + a["weight_decay"] * p
                if a["momentum"] != 0:
                    g = momentum[name] = g + a["momentum"] * momentum[name] if step else g
                p -= a["lr"] * g
    after = {"params_after/" + name: p for name, p in params.items()}
    after.update({"buffers_after/" + name: b for name, b in buffers.items()})
    return {"loss": torch.stack(losses)}, after


OPS = {
    "resnet_cifar": Op(draw_resnet, resnet, cotangents=["loss"], rtol=5e-5, chosen=[
        {"n": 2, "size": [7, 9], "width": 2, "blocks_per_stage": 2, "classes": 3,
         "attention": "none", "training": 1},
        {"n": 1, "size": [6, 5], "width": 2, "blocks_per_stage": 1, "classes": 5,
         "attention": "efficient", "normalization": "scaling", "attention_stages": [1, 2],
         "heads": 2, "key_channels_divisor": 2, "training": 0},
        {"n": 3, "size": [8, 6], "width": 2, "blocks_per_stage": 1, "classes": 2,
         "attention": "non_local", "pairwise": "embedded_gaussian_scaled",
         "attention_stages": [1], "heads": 2, "key_channels_divisor": 2, "training": 1},
        {"n": 2, "size": [8, 8], "width": 2, "blocks_per_stage": 1, "classes": 4,
         "attention": "non_local", "pairwise": "gaussian", "attention_stages": [2],
         "key_channels_divisor": 1, "training": 1},
        {"n": 2, "size": [8, 8], "width": 2, "blocks_per_stage": 1, "classes": 4,
         "attention": "non_local", "pairwise": "concatenation", "attention_stages": [2],
         "key_channels_divisor": 2, "training": 1}]),
    "training": Op(draw_training, training, differentiable=False, rtol=5e-5, chosen=[
        {"n": 3, "size": [6, 7], "steps": 3, "width": 2, "blocks_per_stage": 1, "classes": 4,
         "attention": "efficient", "normalization": "softmax", "attention_stages": [1],
         "heads": 2, "key_channels_divisor": 2},
        {"n": 2, "size": [8, 8], "steps": 4, "width": 2, "blocks_per_stage": 1, "classes": 3,
         "attention": "none", "momentum": 0.0, "weight_decay": 0.0}]),
}
