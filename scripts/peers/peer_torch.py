"""The cases of the benchmark in PyTorch, in the layouts that it may be fastest in."""
import re

from peer import Missing, serve


def start(threads, compiled):
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(1)

    class Attention(nn.Module):
        """An attention module on [N, C, H, W]: 'efficient', 'non_local' or 'sdpa'."""

        def __init__(self, kind, channels, keys, values, heads=1):
            super().__init__()
            self.kind, self.heads = kind, heads
            self.queries = nn.Conv2d(channels, keys, 1)
            self.keys = nn.Conv2d(channels, keys, 1)
            self.values = nn.Conv2d(channels, values, 1)
            self.reprojection = nn.Conv2d(values, channels, 1)

        def forward(self, x):
            n, _, height, width = x.shape
            shape = (n, self.heads, -1, height * width)
            q = self.queries(x).reshape(shape)  # [n, heads, d, positions]
            k = self.keys(x).reshape(shape)
            v = self.values(x).reshape(shape)
            if self.kind == "efficient":
                context = k.softmax(3) @ v.transpose(2, 3)
                out = context.transpose(2, 3) @ q.softmax(2)
            elif self.kind == "sdpa":
                q, k, v = (t.transpose(2, 3) for t in (q, k, v))
                out = F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(2, 3)
            else:
                weights = (q.transpose(2, 3) @ k).softmax(3)
                out = v @ weights.transpose(2, 3)
            return x + self.reprojection(out.reshape(n, -1, height, width))

    class RowAttention(nn.Module):
        """The same on rows [N, positions, C]."""

        def __init__(self, kind, channels, keys, values, heads=1):
            super().__init__()
            self.kind, self.heads = kind, heads
            self.queries = nn.Linear(channels, keys)
            self.keys = nn.Linear(channels, keys)
            self.values = nn.Linear(channels, values)
            self.reprojection = nn.Linear(values, channels)

        def forward(self, x):
            n, positions, _ = x.shape
            q, k, v = (layer(x).view(n, positions, self.heads, -1).transpose(1, 2)
                       for layer in (self.queries, self.keys, self.values))
            if self.kind == "efficient":
                out = q.softmax(3) @ (k.softmax(2).transpose(2, 3) @ v)
            elif self.kind == "sdpa":
                out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
            else:
                out = (q @ k.transpose(2, 3)).softmax(3) @ v
            return x + self.reprojection(out.transpose(1, 2).reshape(n, positions, -1))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x):
            h = F.relu(self.bn1(self.conv1(x)), inplace=True)
            return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x), inplace=True)

    def resnet20(attention):
        layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
        inputs = 16
        for stage in range(3):
            channels = 16 << stage
            for block in range(3):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Block(inputs, channels, stride))
                inputs = channels
            if attention != "none" and stage > 0:
                layers.append(Attention(attention, channels, channels // 2, channels))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def small_cnn():
        return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(inplace=True), nn.Conv2d(32, 32, 3),
                             nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten(),
                             nn.Linear(32 * 12 * 12, 128), nn.ReLU(inplace=True), nn.Dropout(0.2),
                             nn.Linear(128, 10))

    def training_step(net, optimizer, images, labels):
        def run():
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return run

    def steps(make, make_optimizer, shape, only=None):
        runs = {}
        for layout in ("channels_last", "contiguous"):
            if only not in (None, layout):
                continue
            where = getattr(torch, layout + "_format" if layout == "contiguous" else layout)
            images = torch.rand(shape).contiguous(memory_format=where)
            labels = torch.arange(shape[0]) % 10
            net = make().to(memory_format=where)
            runs[layout] = training_step(net, make_optimizer(net), images, labels)
            if compiled and layout == "channels_last":
                net = make().to(memory_format=where)
                runs["+compile"] = training_step(torch.compile(net), make_optimizer(net), images,
                                                 labels)
        return runs

    def sgd(net):
        return torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)

    def attention_runs(kind, batch, positions, channels, keys, values, heads):
        def both_ways(module, x):
            dy = torch.rand_like(x)
            x.requires_grad_()

            def run():
                x.grad = None
                module.zero_grad(set_to_none=True)
                module(x).backward(dy)
            return run

        sizes = (channels, keys, values, heads)
        rows = torch.rand(batch, positions, channels)
        side = int(positions ** 0.5)
        planes = torch.rand(batch, channels, side, positions // side)
        runs = {"rows": both_ways(RowAttention(kind, *sizes), rows)}
        if positions < 16384 or kind == "efficient":
            runs["planes"] = both_ways(Attention(kind, *sizes), planes)
        if kind == "non_local" and hasattr(F, "scaled_dot_product_attention"):
            runs["+sdpa"] = both_ways(RowAttention("sdpa", *sizes), rows.clone())
        if compiled:
            runs["+compile"] = both_ways(torch.compile(RowAttention(kind, *sizes)), rows.clone())
        return runs

    def conv_runs(direction, batch, size, inputs, outputs, kernel, stride):
        runs = {}
        for layout in ("channels_last", "contiguous"):
            where = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            x = torch.rand(batch, inputs, size, size).contiguous(memory_format=where)
            w = torch.rand(outputs, inputs, kernel, kernel).contiguous(memory_format=where)
            padding = (kernel - 1) // 2
            with torch.no_grad():
                dy = torch.rand_like(F.conv2d(x, w, None, stride, padding))
            common = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)

            def run(x=x, w=w, dy=dy, padding=padding):
                with torch.no_grad():
                    if direction == "forward":
                        F.conv2d(x, w, None, stride, padding)
                    else:
                        mask = [direction == "backward_input", direction == "backward_weight",
                                False]
                        torch.ops.aten.convolution_backward(dy, x, w, None, *common, mask)
            runs[layout] = run
        return runs

    def prepare(case):
        if m := re.fullmatch(r"gemm/(\d+)x(\d+)x(\d+)", case):
            rows, columns, inner = map(int, m.groups())
            a, b = torch.rand(rows, inner), torch.rand(inner, columns)
            out = torch.empty(rows, columns)
            return {"mm": lambda: torch.mm(a, b, out=out)}
        if m := re.fullmatch(r"conv2d/(\w+)/b=(\d+),hw=(\d+),ci=(\d+),co=(\d+),k=(\d+),s=(\d+)",
                             case):
            return conv_runs(m[1], *map(int, m.groups()[1:]))
        sizes = r"/b=(\d+),n=(\d+),c=(\d+),k=(\d+),v=(\d+),h=(\d+)"
        if m := re.fullmatch("efficient_attention" + sizes, case):
            return attention_runs("efficient", *map(int, m.groups()))
        if m := re.fullmatch("non_local/(?:tiled|materialized)" + sizes, case):
            return attention_runs("non_local", *map(int, m.groups()))
        if m := re.fullmatch("resnet20_step/(none|efficient|non_local)", case):
            return steps(lambda: resnet20(m[1]), sgd, (128, 3, 32, 32))
        if case == "small_cnn_step":
            return steps(small_cnn, lambda net: torch.optim.RMSprop(net.parameters(), 0.01),
                         (64, 1, 28, 28))
        raise Missing("not written for PyTorch")

    return f"PyTorch {torch.__version__}", prepare


if __name__ == "__main__":
    serve(start)
