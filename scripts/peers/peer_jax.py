"""Matrix products, convolutions and attention in JAX, compiled by XLA."""
import re

from peer import Missing, serve


def start(threads, compiled):
    import os
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    import jax
    import jax.numpy as jnp
    from jax import lax

    def values(shape, seed):
        return jax.random.uniform(jax.random.PRNGKey(seed), shape)

    def ready(function, *arguments):
        compiled_function = jax.jit(function)
        return lambda: jax.block_until_ready(compiled_function(*arguments))

    def attention(kind, batch, positions, channels, keys, outputs, heads):
        weights = [values((channels, size), seed) * 0.1 for seed, size in
                   enumerate((keys, keys, outputs))] + [values((outputs, channels), 3) * 0.1]
        biases = [jnp.zeros(size) for size in (keys, keys, outputs, channels)]

        def forward(x, weights, biases):
            q, k, v = ((x @ w + b).reshape(batch, positions, heads, -1).swapaxes(1, 2)
                       for w, b in zip(weights[:3], biases[:3]))
            if kind == "efficient":
                out = jax.nn.softmax(q, 3) @ (jax.nn.softmax(k, 2).swapaxes(2, 3) @ v)
            else:
                out = jax.nn.softmax(q @ k.swapaxes(2, 3), 3) @ v
            out = out.swapaxes(1, 2).reshape(batch, positions, -1)
            return x + out @ weights[3] + biases[3]

        def both_ways(x, weights, biases, dy):
            y, back = jax.vjp(forward, x, weights, biases)
            return y, back(dy)

        x = values((batch, positions, channels), 4)
        return ready(both_ways, x, weights, biases, values(x.shape, 5))

    def convolution(direction, batch, size, inputs, outputs, kernel, stride):
        padding = (kernel - 1) // 2
        x = values((batch, size, size, inputs), 1)
        w = values((kernel, kernel, inputs, outputs), 2)

        def forward(x, w):
            return lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2,
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))

        dy = values(jax.eval_shape(forward, x, w).shape, 3)
        if direction == "forward":
            return ready(forward, x, w)
        if direction == "backward_input":
            return ready(lambda x, w, dy: jax.vjp(lambda x: forward(x, w), x)[1](dy), x, w, dy)
        return ready(lambda x, w, dy: jax.vjp(lambda w: forward(x, w), w)[1](dy), x, w, dy)

    def prepare(case):
        if m := re.fullmatch(r"gemm/(\d+)x(\d+)x(\d+)", case):
            rows, columns, inner = map(int, m.groups())
            return {"jit": ready(jnp.matmul, values((rows, inner), 1), values((inner, columns), 2))}
        if m := re.fullmatch(r"conv2d/(\w+)/b=(\d+),hw=(\d+),ci=(\d+),co=(\d+),k=(\d+),s=(\d+)",
                             case):
            return {"jit": convolution(m[1], *map(int, m.groups()[1:]))}
        if m := re.fullmatch(r"(efficient_attention|non_local/\w+)"
                             r"/b=(\d+),n=(\d+),c=(\d+),k=(\d+),v=(\d+),h=(\d+)", case):
            kind = "efficient" if m[1].startswith("efficient") else "non_local"
            return {"jit": attention(kind, *map(int, m.groups()[1:]))}
        raise Missing("not written for JAX")

    return f"JAX {jax.__version__}", prepare


if __name__ == "__main__":
    serve(start)
