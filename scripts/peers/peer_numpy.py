"""Matrix products through NumPy: its BLAS."""
import re

from peer import Missing, serve


def start(threads, compiled):
    import numpy

    def prepare(case):
        m = re.fullmatch(r"gemm/(\d+)x(\d+)x(\d+)", case)
        if not m:
            raise Missing("NumPy only multiplies matrices")
        rows, columns, inner = map(int, m.groups())
        a = numpy.random.rand(rows, inner).astype(numpy.float32)
        b = numpy.random.rand(inner, columns).astype(numpy.float32)
        out = numpy.empty((rows, columns), numpy.float32)
        return {"matmul": lambda: numpy.matmul(a, b, out=out)}

    with open("/proc/self/maps") as maps:
        blas = {m[0] for m in re.finditer(r"lib(?:scipy_)?openblas[^/\s]*", maps.read())}
    return f"NumPy {numpy.__version__} ({', '.join(sorted(blas)) or 'BLAS unknown'})", prepare


if __name__ == "__main__":
    serve(start)
