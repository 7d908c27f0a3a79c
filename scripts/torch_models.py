"""The networks of Tapeline as PyTorch modules, with the same parameter names.

    net = ResNetCifar(depth=20, attention="efficient", attention_stages=(1, 2))
    net.load_state_dict(torch.load("model.pt"))       # from convert_checkpoint.py to-torch

Tensors are channels first here, as PyTorch has them. Formulas: lib/include/tapeline/resnet_cifar.h,
efficient_attention.h and non_local.h.
"""

import torch
from torch import nn
from torch.nn import functional as F


class EfficientAttention(nn.Module):
    """x + reprojection(attention(x)) for x [N, C, spatial...]."""

    def __init__(self, channels, key_channels, value_channels, heads=1, normalization="softmax"):
        super().__init__()
        self.heads = heads
        self.normalization = normalization
        self.keys = nn.Linear(channels, key_channels)
        self.queries = nn.Linear(channels, key_channels)
        self.values = nn.Linear(channels, value_channels)
        self.reprojection = nn.Linear(value_channels, channels)

    def forward(self, x):
        rows = x.flatten(2).transpose(1, 2)  # [N, n, C]
        n = rows.shape[1]

        def split(projected):  # [N, heads, n, channels of a head]
            return projected.unflatten(2, (self.heads, -1)).transpose(1, 2)

        keys, queries = split(self.keys(rows)), split(self.queries(rows))
        if self.normalization == "softmax":
            keys, queries = keys.softmax(dim=2), queries.softmax(dim=3)
        else:
            keys, queries = keys / n**0.5, queries / n**0.5
        context = keys.transpose(2, 3) @ split(self.values(rows))
        out = (queries @ context).transpose(1, 2).flatten(2)
        return x + self.reprojection(out).transpose(1, 2).reshape(x.shape)


class NonLocal(nn.Module):
    """The non-local block, embedded Gaussian without a scale."""

    def __init__(self, channels, key_channels, value_channels, heads=1):
        super().__init__()
        self.heads = heads
        self.keys = nn.Linear(channels, key_channels)
        self.queries = nn.Linear(channels, key_channels)
        self.values = nn.Linear(channels, value_channels)
        self.reprojection = nn.Linear(value_channels, channels)

    def forward(self, x):
        rows = x.flatten(2).transpose(1, 2)

        def split(projected):
            return projected.unflatten(2, (self.heads, -1)).transpose(1, 2)

        keys, queries = split(self.keys(rows)), split(self.queries(rows))
        weights = (queries @ keys.transpose(2, 3)).softmax(dim=3)
        out = (weights @ split(self.values(rows))).transpose(1, 2).flatten(2)
        return x + self.reprojection(out).transpose(1, 2).reshape(x.shape)


class ConvBatchNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn(self.conv(x))


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = ConvBatchNorm(inputs, outputs, 1, stride)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class Stage(nn.Module):
    def __init__(self, inputs, outputs, blocks, stride, attention):
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs if b == 0 else outputs, outputs, stride if b == 0 else 1)
            for b in range(blocks)
        )
        self.attention = attention if attention is not None else nn.Identity()

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.attention(x)


class ResNetCifar(nn.Module):
    """Images [N, input_channels, H, W] -> logits [N, classes]."""

    def __init__(
        self,
        input_channels=3,
        depth=20,
        width=16,
        classes=10,
        attention="none",
        attention_stages=(),
        heads=1,
        key_channels_divisor=2,
        normalization="softmax",
    ):
        super().__init__()
        self.stem = ConvBatchNorm(input_channels, width, 3, 1)
        stages = []
        for s in range(3):
            channels = width << s
            module = None
            if s in attention_stages and attention == "efficient":
                module = EfficientAttention(
                    channels, channels // key_channels_divisor, channels, heads, normalization
                )
            elif s in attention_stages and attention == "non_local":
                module = NonLocal(channels, channels // key_channels_divisor, channels, heads)
            stages.append(
                Stage(
                    channels if s == 0 else channels // 2,
                    channels,
                    (depth - 2) // 6,
                    1 if s == 0 else 2,
                    module,
                )
            )
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean(dim=(2, 3)))
