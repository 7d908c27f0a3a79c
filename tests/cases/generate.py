#!/usr/bin/python3
"""Writes parity cases (needs python3-torch and python3-h5py).

    generate.py [OP...]                             the small set beside this file, or those ops
    generate.py --random N FOLDER [SEED [OP...]]    N cases an op with random shapes and arguments

Expected values are PyTorch's in double precision, or follow the definitions of the format where
PyTorch has no such operation; inputs are rounded to single precision first. The name of a case is its
seed, so cases do not depend on each other.
"""
import os
import sys

import torch

import attention
import basic
import case
import layers
import network
import updates

FAMILIES = (basic, layers, attention, network, updates)
OPS = {name: op for family in FAMILIES for name, op in family.OPS.items()}


def small_set(ops):
    folder = os.path.dirname(os.path.abspath(__file__))
    for op_name in ops:
        for index, chosen in enumerate(OPS[op_name].chosen):
            name = "%s_%d" % (op_name, index)
            case.make(os.path.join(folder, name + ".h5"), name, op_name, OPS[op_name], chosen)


def random_set(count, folder, seed, ops):
    os.makedirs(folder, exist_ok=True)
    for op_name in ops:
        for index in range(count):
            name = "%s_s%s_%d" % (op_name, seed, index)
            case.make(os.path.join(folder, name + ".h5"), name, op_name, OPS[op_name])


def main(arguments):
    torch.set_num_threads(1)
    if arguments[:1] == ["--random"]:
        seed, ops = (arguments[3:4] or ["0"])[0], arguments[4:]
        random_set(int(arguments[1]), arguments[2], seed, ops or OPS)
    else:
        small_set(arguments or OPS)


if __name__ == "__main__":
    main(sys.argv[1:])
