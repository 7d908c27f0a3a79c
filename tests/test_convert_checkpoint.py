"""test_convert_checkpoint.py SOURCE EVALUATE TRAIN_CLASSIFIER - weights travel between PyTorch and
Tapeline without loss, and both compute the same from them: networks trained here are evaluated
there and the other way round. Exit code 77 where PyTorch or h5py are missing."""

import os
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy
    import torch
except ImportError as problem:
    print(f"skipped: {problem} (apt-get install python3-torch python3-h5py)")
    sys.exit(77)

SOURCE, EVALUATE, TRAIN = sys.argv[1:4]
sys.path.insert(0, os.path.join(SOURCE, "scripts"))
import convert_checkpoint as convert  # noqa: E402
import torch_models  # noqa: E402

TOLERANCE = 1e-5
checked = 0


def check(condition, text):
    global checked
    checked += 1
    if not condition:
        print(f"FAILED: {text}")
        sys.exit(1)


def run_converter(*arguments):
    """(exit code, stderr) of the script as a program."""
    done = subprocess.run(
        [sys.executable, os.path.join(SOURCE, "scripts/convert_checkpoint.py"), *arguments],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def tapeline_output(model_path, x, folder):
    """What our library makes of x [N, C, spatial...], channels first again where it has them."""
    given, made = os.path.join(folder, "x.h5"), os.path.join(folder, "y.h5")
    array = numpy.ascontiguousarray(numpy.moveaxis(x.numpy(), 1, -1))
    convert.write_checkpoint(given, {}, {"x": array}, {})
    subprocess.run([EVALUATE, model_path, given, made], check=True)
    with h5py.File(made, "r") as file:
        y = file["model/y"][...]
    return numpy.moveaxis(y, -1, 1) if y.ndim > 2 else y


def agree(ours, theirs, what):
    theirs = theirs.detach().numpy()
    check(ours.shape == theirs.shape, f"{what}: shapes {ours.shape} and {theirs.shape}")
    error = abs(ours - theirs).max() / max(1.0, abs(theirs).max())
    check(error <= TOLERANCE, f"{what}: they differ by {error:.2e}")
    check(abs(theirs).max() > 0.1, f"{what}: nothing but small numbers to compare")
    print(f"{what}: equal to {error:.1e}")


def train_in_torch(net, classes, steps=8):
    """A few steps of SGD on random images: weights and running statistics leave their start."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net.train()
    for _ in range(steps):
        images = torch.randn(16, 3, 13, 16)
        labels = torch.randint(0, classes, (16,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    net.eval()


def torch_to_tapeline(folder):
    variants = [
        ({"attention": "none"}, []),
        ({"attention": "efficient", "attention_stages": (1, 2), "heads": 4}, ["heads=4"]),
        (
            {"attention": "efficient", "attention_stages": (0,), "normalization": "scaling"},
            ["normalization=scaling"],
        ),
        ({"attention": "non_local", "attention_stages": (2,)}, ["attention=non_local"]),
    ]
    for config, settings in variants:
        net = torch_models.ResNetCifar(depth=14, width=8, classes=7, **config)
        train_in_torch(net, 7)
        state, model = os.path.join(folder, "net.pt"), os.path.join(folder, "net.h5")
        torch.save(net.state_dict(), state)
        options = [word for setting in settings for word in ("--set", setting)]
        code, message = run_converter("from-torch", state, model, *options)
        check(code == 0, message)
        x = torch.randn(5, 3, 15, 12)
        agree(tapeline_output(model, x, folder), net(x), f"trained in PyTorch, {config}")
        # and back, bit for bit
        code, message = run_converter("to-torch", model, state)
        check(code == 0, message)
        back = torch.load(state)
        for name, tensor in net.state_dict().items():
            same = name.endswith("num_batches_tracked") or torch.equal(back[name], tensor)
            check(same, f"{name} changed on the way there and back")


def tapeline_to_torch(folder):
    model, state = os.path.join(folder, "trained.h5"), os.path.join(folder, "trained.pt")
    subprocess.run(
        [TRAIN, "--dataset", "long-range", "--model", "resnet", "--depth", "8", "--width", "8"]
        + ["--attention", "efficient", "--attention-stages", "0,2", "--heads", "2"]
        + ["--train-images", "256", "--test-images", "64", "--batch-size", "32", "--epochs", "2"]
        + ["--checkpoint", model],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    code, message = run_converter("to-torch", model, state)
    check(code == 0, message)
    net = torch_models.ResNetCifar(
        depth=8, width=8, attention="efficient", attention_stages=(0, 2), heads=2
    )
    net.load_state_dict(torch.load(state))
    net.eval()
    x = torch.randn(6, 3, 32, 32)
    agree(tapeline_output(model, x, folder), net(x), "trained here")
    # --like: the settings of a checkpoint we have
    again = os.path.join(folder, "again.h5")
    code, message = run_converter("from-torch", state, again, "--like", model)
    check(code == 0, message)
    agree(tapeline_output(again, x, folder), net(x), "trained here, there and back")
    with h5py.File(model, "r") as first, h5py.File(again, "r") as second:
        told = dict(second["input"].attrs)
        check("mean_0" in told and told == dict(first["input"].attrs), "--like lost /input")


class ReferenceModule(torch.nn.Module):
    """Efficient attention as its authors store it: projections are 1x1 convolutions."""

    def __init__(self, channels, keys, values, heads):
        super().__init__()
        self.heads = heads
        self.keys = torch.nn.Conv2d(channels, keys, 1)
        self.queries = torch.nn.Conv2d(channels, keys, 1)
        self.values = torch.nn.Conv2d(channels, values, 1)
        self.reprojection = torch.nn.Conv2d(values, channels, 1)

    def forward(self, x):
        keys, queries, values = (
            projection(x).flatten(2).chunk(self.heads, dim=1)
            for projection in (self.keys, self.queries, self.values)
        )
        attended = [
            (k.softmax(dim=2) @ v.transpose(1, 2)).transpose(1, 2) @ q.softmax(dim=1)
            for k, q, v in zip(keys, queries, values)
        ]
        out = torch.cat(attended, dim=1)
        return x + self.reprojection(out.reshape(x.shape[0], -1, *x.shape[2:]))


def bare_module(folder):
    module = ReferenceModule(channels=12, keys=6, values=9, heads=3)
    state, model = os.path.join(folder, "module.pt"), os.path.join(folder, "module.h5")
    torch.save(module.state_dict(), state)
    code, message = run_converter("from-torch", state, model, "--set", "heads=3")
    check(code == 0, message)
    x = torch.randn(2, 12, 7, 5)
    agree(tapeline_output(model, x, folder), module(x), "a bare module")
    code, message = run_converter("to-torch", model, state, "--projections", "conv")
    check(code == 0, message)
    module.load_state_dict(torch.load(state))  # strict: names and shapes are those of the authors


def expect_failure(part, *arguments):
    code, message = run_converter(*arguments)
    check(code == 1 and part in message, f"expected '{part}', found exit code {code}, '{message}'")
    check(message.count("\n") == 1, f"more than one line: {message}")


def failures(folder):
    net = torch_models.ResNetCifar(depth=8, width=8)
    state, model = os.path.join(folder, "bad.pt"), os.path.join(folder, "bad.h5")
    weights = net.state_dict()
    del weights["stages.1.blocks.0.conv2.weight"]
    torch.save(weights, state)
    expect_failure("1 missing (stages.1.blocks.0.conv2.weight", "from-torch", state, model)
    weights = net.state_dict()
    weights["head.bias"] = torch.zeros(11)
    torch.save(weights, state)
    expect_failure("head.bias: expected shape [10], found [11]", "from-torch", state, model)
    weights = net.state_dict()
    weights["head.bias"][3] = float("nan")
    torch.save(weights, state)
    expect_failure("head.bias: it has a NaN", "from-torch", state, model)
    torch.save({"fc.weight": torch.zeros(2, 2)}, state)
    expect_failure("neither a resnet_cifar", "from-torch", state, model)
    torch.save(torch_models.ResNetCifar(depth=8, width=8).state_dict(), state)
    expect_failure("no such setting", "from-torch", state, model, "--set", "head=4")
    check(not os.path.exists(model), "a failed conversion left a file")
    expect_failure("No such file", "to-torch", os.path.join(folder, "none.h5"), state)
    code, message = run_converter("from-torch", state, model)
    check(code == 0, message)
    with open(model, "r+b") as file:
        file.seek(2000)
        file.write(b"damaged")
    expect_failure("damaged", "to-torch", model, state)
    code, _ = run_converter("from-torch", state)
    check(code == 2, f"wrong usage: expected exit code 2, found {code}")


def main():
    torch.manual_seed(1)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        with torch.enable_grad():
            torch_to_tapeline(folder)
        tapeline_to_torch(folder)
        bare_module(folder)
        failures(folder)
    print(f"{checked} passed, 0 failed")


main()
