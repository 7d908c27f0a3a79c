// A C++ program of another project: the gradient of sum(x x), which is 2 x. Exit code 0 if it is.
#include <cstdio>
#include <memory>
#include <vector>

#include <tapeline/tapeline.h>

int main() {
    const std::unique_ptr<tl_tape, void (*)(tl_tape *)> tape(tl_tape_create(nullptr), tl_tape_free);
    if (tape == nullptr || tl_version_number() != TL_VERSION_NUMBER) {
        std::fprintf(stderr, "consumer: no tape, or a library of another version\n");
        return 1;
    }
    std::vector<tl_real> values = {1, -2, 3};
    tl_array array = {};
    array.rank = 1;
    array.shape[0] = 3;
    array.data = values.data();
    tl_tensor *x = tl_input_with_grad(tape.get(), &array);
    tl_tensor *sum = tl_sum(tape.get(), tl_mul(tape.get(), x, x), 0, nullptr, false);
    if (tl_backward(tape.get(), sum) != TL_OK) {
        std::fprintf(stderr, "consumer: %s\n", tl_tape_error(tape.get())->message);
        return 1;
    }
    const tl_real *gradient = tl_tensor_grad(x);
    std::printf("tapeline %s: the gradient is %g %g %g\n", tl_version(), double(gradient[0]),
                double(gradient[1]), double(gradient[2]));
    return gradient[0] == 2 && gradient[1] == -4 && gradient[2] == 6 ? 0 : 1;
}
