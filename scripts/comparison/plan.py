"""What is run, in each mode. A run is one command; its result depends on nothing else."""
import dataclasses
import os
import re

MIB = 1 << 20
GIB = 1 << 30
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def slug(text):
    """A name for files."""
    return re.sub(r"[^\w.-]+", "-", re.sub(r"[=,]", "", text))


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run. `group` and `kind` say what it is compared with; `metric`, a column of its
    log, is what it is judged by."""
    part: str
    group: str
    kind: str
    seed: int
    program: str
    arguments: tuple
    metric: str
    cap: int = 0  # seconds after which it is stopped and taken as it is; 0: none

    @property
    def key(self):
        return slug(f"{self.part}-{self.group}-{self.kind}-seed{self.seed}")

    @property
    def command(self):
        return " ".join([self.program, *self.arguments, "--seed", str(self.seed)])


@dataclasses.dataclass(frozen=True)
class Resource:
    """One attention module on inputs of one size."""
    setting: str
    size: str
    channels: int
    batch: int
    module: str  # efficient, tiled, materialized
    flop_cap: float  # of a training step; beyond it nothing is measured
    memory_limit: str

    @property
    def key(self):
        return slug(f"resources-{self.setting}-{self.size}-{self.module}")

    @property
    def arguments(self):
        return ("--size", self.size, "--channels", str(self.channels), "--batch", str(self.batch),
                "--memory-limit", self.memory_limit, "--module", self.module)

    @property
    def command(self):
        return " ".join(["attention_cost", *self.arguments, "--measure"])


@dataclasses.dataclass
class Plan:
    name: str
    resources: list
    runs: list
    margins: dict  # of claim 1, in percentage points, by group
    seed_note: str
    data_note: str
    classifier_images: tuple  # of attention maps: how they are read, and where


MODULES = ("efficient", "tiled", "materialized")
KINDS = {"baseline": ("--attention", "none"), "non-local": ("--attention", "non-local"),
         "efficient": ("--attention", "efficient")}
PAPER_SETTING = "d = d_v = 64, d_k = 32"


def resources(sizes, flop_cap, memory_limit):
    wanted = [(PAPER_SETTING, size, 64, 1) for size in sizes]
    wanted += [("ResNet-20, stage 1, batch 128", "16x16", 32, 128),
               ("ResNet-20, stage 2, batch 128", "8x8", 64, 128)]
    return [Resource(setting, size, channels, batch, module, flop_cap, memory_limit)
            for setting, size, channels, batch in wanted for module in MODULES]


def each(part, group, kinds, seeds, program, arguments, metric, caps=None):
    """Runs of all kinds (name -> arguments) with all seeds; seeds go round first, so that every
    kind has a row early."""
    return [Run(part, group, kind, seed, program, tuple(arguments) + tuple(own), metric,
                (caps or {}).get(kind, 0))
            for seed in seeds for kind, own in kinds.items()]


def non_local(implementation):
    return ("--attention", "non-local", "--implementation", implementation)


def claim1(group, seeds, arguments):
    """All kinds; and one epoch of the materialized block, for what it costs: its map, and so its
    accuracy, is that of the tiled one but for rounding."""
    runs = each("claim1", group, KINDS, seeds, "train_classifier", arguments, "test_accuracy")
    return runs + each("costs", group,
                       {"non-local materialized": non_local("materialized")}, seeds[:1],
                       "train_classifier", arguments + ("--stop-after", "1"), "test_accuracy")


def claim2(depth, counts, places, images, epochs, budget, seeds):
    """Modules of every kind under one memory budget; `places` says where so many of them go."""
    kinds = {"baseline, 0": ("--attention", "none")}
    for name, own in (("efficient", ("--attention", "efficient")), ("tiled", non_local("tiled")),
                      ("materialized", non_local("materialized"))):
        for count in counts:
            kinds[f"{name}, {count}"] = own + ("--attention-blocks", places[count])
    return each("claim2", "dense", kinds, seeds, "train_dense",
                ("--image-size", "32", "--depth", str(depth), "--train-images", str(images),
                 "--epochs", str(epochs), "--memory-limit", budget), "test_iou")


def claim3(sizes, epochs, budget, seeds, cap):
    runs = []
    for size in sizes:
        kinds = {"baseline": KINDS["baseline"], "efficient": ("--attention", "efficient"),
                 "non-local tiled": non_local("tiled"),
                 "non-local materialized": non_local("materialized")}
        slow = {kind: cap for kind in kinds if kind.startswith("non-local")}
        arguments = ("--image-size", str(size), "--heads", "4", "--batch-size", "4",
                     "--train-images", "400", "--test-images", "100", "--epochs", str(epochs),
                     "--memory-limit", budget)
        runs += each("claim3", f"{size}x{size}", kinds, seeds, "train_dense", arguments, "test_iou",
                     slow)
    return runs


def ablations(images, epochs, depths, seeds):
    base = ("--image-size", "32", "--train-images", str(images), "--epochs", str(epochs))
    efficient = ("--attention", "efficient")
    wide = efficient + ("--width", "64", "--key-divisor", "1")
    runs = each("ablations", "normalization",
                {name: efficient + ("--normalization", name) for name in ("softmax", "scaling")},
                seeds, "train_dense", base, "test_iou")
    runs += each("ablations", "heads", {str(h): wide + ("--heads", str(h)) for h in (1, 8, 32)},
                 seeds, "train_dense", base, "test_iou")
    runs += each("ablations", "key channels",
                 {str(32 // d): efficient + ("--key-divisor", str(d)) for d in (1, 2, 4, 8)},
                 seeds, "train_dense", base, "test_iou")
    for depth in depths:
        runs += each("ablations", f"depth {depth}",
                     {"baseline": ("--attention", "none"), "efficient": efficient},
                     seeds, "train_dense", base + ("--depth", str(depth)), "test_iou")
    return runs


def stereo(pairs, test_pairs, epochs, seeds):
    kinds = {"baseline": ("--attention", "none")}
    for place in ("features", "volume", "both"):
        kinds[f"efficient, {place}"] = ("--attention", "efficient", "--attention-places", place)
    return each("stereo", "pairs", kinds, seeds, "train_stereo",
                ("--train-pairs", str(pairs), "--test-pairs", str(test_pairs), "--epochs",
                 str(epochs), "--clip-norm", "5"), "test_end_point_error")


SQUARES = ("16x16", "32x32", "64x64", "128x128", "256x256", "512x512", "1024x1024")


def quick():
    runs = []
    if os.path.isdir(FASHION_MNIST):
        runs += claim1("Fashion-MNIST", (1, 2, 3),
                       ("--dataset", "fashion-mnist", "--depth", "8", "--width", "8",
                        "--no-augmentation", "--lr", "0.1", "--epochs", "2"))
        margins, images = {"Fashion-MNIST": 1.0}, ("fashion-mnist", FASHION_MNIST)
        note = "claim 1 on Fashion-MNIST, two epochs"
    else:
        runs += claim1("long-range", (1, 2, 3),
                       ("--dataset", "long-range", "--heads", "4", "--train-images", "3200",
                        "--test-images", "1000", "--batch-size", "64", "--epochs", "2"))
        margins, images = {"long-range": 1.0}, ("none", "")
        note = "claim 1 on long-range, for Debian's dataset-fashion-mnist is not installed"
    runs += claim2(8, (1, 3), {1: "1", 3: "0,1,2"}, 1600, 3, "192M", (1,))
    runs += claim3((32, 64), 10, "256M", (1,), 25)
    runs += ablations(1600, 4, (6, 8), (1,))
    runs += stereo(400, 100, 3, (1, 2))
    return Plan("quick", resources(SQUARES + ("8x28x28",), 4e11, "4G"), runs, margins,
                "3 seeds for claim 1, 2 for stereo, 1 elsewhere", note, images)


def full(cifar):
    """`cifar` is where CIFAR-10 lies; commands say DIR, which the runner fills in."""
    runs = claim1("CIFAR-10", (1, 2, 3, 4, 5),
                  ("--dataset", "cifar10", "--data-dir", "DIR", "--epochs", "5"))
    runs += claim1("long-range", (1, 2, 3, 4, 5),
                   ("--dataset", "long-range", "--width", "16", "--heads", "4",
                    "--train-images", "12800", "--test-images", "2000", "--batch-size", "32",
                    "--epochs", "5"))
    seeds = (1, 2, 3)
    runs += claim2(16, (1, 5, 7), {1: "3", 5: "1,2,3,4,5", 7: "0,1,2,3,4,5,6"}, 1600, 4, "320M",
                   seeds)
    runs += claim3((32, 64, 128), 15, "1G", seeds, 40)
    runs += ablations(1600, 6, (6, 10, 14), seeds)
    runs += stereo(1000, 200, 4, seeds)
    return Plan("full", resources(SQUARES + ("16x56x56",), 4e12, "12G"), runs,
                {"CIFAR-10": 0.5, "long-range": 1.0},
                "5 seeds for claim 1, 3 elsewhere",
                "claim 1 on CIFAR-10 and on long-range", ("cifar10", cifar))
