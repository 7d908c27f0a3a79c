#!/usr/bin/python3
"""Writes the small parity cases beside this file (python3-torch, python3-h5py).

    generate.py [OP...]        only these operations; default: all

Values are those of PyTorch in double precision; inputs are rounded to single precision first.
The seed of a case is its name, so cases do not depend on each other.
"""
import os
import sys
import zlib

import h5py
import numpy
import torch

FOLDER = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)


def text(value):
    return numpy.array(value.encode(), dtype="S%d" % len(value))


class Case:
    """One file: give it tensors, then finish() with the outputs."""

    def __init__(self, op, name, rtol=1e-5, atol=1e-6, **arguments):
        self.op, self.name, self.rtol, self.atol, self.arguments = op, name, rtol, atol, arguments
        self.random = numpy.random.RandomState(zlib.crc32(name.encode()))
        self.groups = {}

    def put(self, group, name, value, kind):
        self.groups.setdefault(group, {})[name] = numpy.asarray(value, dtype=kind)

    def tensor(self, group, name, *shape, scale=1.0):
        value = (scale * self.random.randn(*shape)).astype(numpy.float32)
        self.put(group, name, value, "<f4")
        return torch.tensor(value.astype(numpy.float64), requires_grad=group != "buffers")

    def finish(self, leaves, outputs, buffers_after=None):
        """leaves: {"inputs/x": tensor}; outputs: {"y": tensor}."""
        total = 0
        for name, y in outputs.items():
            g = numpy.asarray(self.random.randn(*y.shape), dtype=numpy.float32)
            self.put("grad_outputs", name, g, "<f4")
            self.put("outputs", name, y.detach().numpy(), "<f8")
            total = total + (torch.tensor(g.astype(numpy.float64)) * y).sum()
        total.backward()
        for path, leaf in leaves.items():
            group, name = path.split("/")
            self.put("grads/" + group, name, leaf.grad.numpy(), "<f8")
        for name, value in (buffers_after or {}).items():
            self.put("buffers_after", name, value.detach().numpy(), "<f8")
        self.write()

    def write(self):
        with h5py.File(os.path.join(FOLDER, self.name + ".h5"), "w", libver="earliest") as f:
            f.attrs["schema"] = text("tapeline-parity")
            f.attrs["version"] = numpy.int32(1)
            f.attrs["op"] = text(self.op)
            f.attrs["rtol"] = numpy.float64(self.rtol)
            f.attrs["atol"] = numpy.float64(self.atol)
            arguments = f.create_group("args")
            for name, value in self.arguments.items():
                if isinstance(value, str):
                    arguments.attrs[name] = text(value)
                elif isinstance(value, float):
                    arguments.attrs[name] = numpy.float64(value)
                else:
                    arguments.attrs[name] = numpy.asarray(value, dtype="<i8")
            for group, members in self.groups.items():
                for name, value in members.items():
                    f.create_dataset(group + "/" + name, data=value)


def matmul():
    for a_shape, b_shape in [((5, 19), (19, 3)), ((3, 2, 4, 7), (3, 2, 7, 5)), ((1, 40), (40, 21))]:
        size = "x".join(map(str, a_shape)) + "_" + "x".join(map(str, b_shape))
        c = Case("matmul", "matmul_" + size)
        a, b = c.tensor("inputs", "a", *a_shape), c.tensor("inputs", "b", *b_shape)
        c.finish({"inputs/a": a, "inputs/b": b}, {"y": a @ b})


def linear():
    for shape, out, bias in [((4, 9), 6, 1), ((2, 5, 3, 8), 11, 1), ((1, 23), 1, 0)]:
        c = Case("linear", "linear_%s_to%d" % ("x".join(map(str, shape)), out), bias=bias)
        x = c.tensor("inputs", "x", *shape)
        weight = c.tensor("params", "weight", out, shape[-1])
        leaves = {"inputs/x": x, "params/weight": weight}
        b = None
        if bias:
            b = leaves["params/bias"] = c.tensor("params", "bias", out)
        c.finish(leaves, {"y": torch.nn.functional.linear(x, weight, b)})


OPS = {"matmul": matmul, "linear": linear}

if __name__ == "__main__":
    for op in sys.argv[1:] or OPS:
        OPS[op]()
