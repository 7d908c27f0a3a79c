/* conv1d, conv2d, conv3d and conv_transpose2d against central differences. */
#include "gradients/gradient_check.h"

static tl_tensor *conv1d(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv1d(tape, in[0], in[1], in[2], user);
}

static tl_tensor *conv2d(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv2d(tape, in[0], in[1], in[2], user);
}

static tl_tensor *conv3d(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv3d(tape, in[0], in[1], in[2], user);
}

static tl_tensor *conv_transpose2d(tl_tape *tape, tl_tensor *const *in, const void *user) {
    return tl_conv_transpose2d(tape, in[0], in[1], in[2], user);
}

static const gradient_problem problems[] = {
    {.name = "conv1d",
     .forward = conv1d,
     .user = &(tl_conv1d_config){.stride = 2, .padding = 3, .dilation = 2, .groups = 2},
     .input_count = 3,
     .inputs = {{"x", 3, {2, 13, 6}, 0, 0, false, 0, 0, false},
                {"weight", 3, {4, 5, 3}, 0, 0, false, 0, 0, false},
                {"bias", 1, {4}, 0, 0, false, 0, 0, false}}},
    {.name = "conv2d winograd, 2x2",
     .forward = conv2d,
     .user = &(tl_conv2d_config){.padding = {1, 1}},
     .input_count = 3,
     .inputs = {{"x", 4, {2, 7, 6, 16}, 0, 0, false, 0, 0, false},
                {"weight", 4, {16, 3, 3, 16}, 0, 0, false, 0, 0, false},
                {"bias", 1, {16}, 0, 0, false, 0, 0, false}}},
    {.name = "conv2d winograd, 4x4",
     .forward = conv2d,
     .user = &(tl_conv2d_config){.padding = {1, 1}},
     .input_count = 3,
     .inputs = {{"x", 4, {6, 7, 8, 16}, 0, 0, false, 0, 0, false},
                {"weight", 4, {16, 3, 3, 16}, 0, 0, false, 0, 0, false},
                {"bias", 1, {16}, 0, 0, false, 0, 0, false}}},
    {.name = "conv2d winograd, stride 2",
     .forward = conv2d,
     .user = &(tl_conv2d_config){.stride = {2, 2}, .padding = {1, 1}},
     .input_count = 3,
     .inputs = {{"x", 4, {16, 15, 16, 32}, 0, 0, false, 0, 0, false},
                {"weight", 4, {32, 3, 3, 32}, 0, 0, false, 0, 0, false},
                {"bias", 1, {32}, 0, 0, false, 0, 0, false}}},
    {.name = "conv2d stride 2",
     .forward = conv2d,
     .user = &(tl_conv2d_config){.stride = {2, 2}, .padding = {1, 1}},
     .input_count = 3,
     .inputs = {{"x", 4, {2, 7, 6, 5}, 0, 0, false, 0, 0, false},
                {"weight", 4, {3, 3, 3, 5}, 0, 0, false, 0, 0, false},
                {"bias", 1, {3}, 0, 0, false, 0, 0, false}}},
    {.name = "conv3d",
     .forward = conv3d,
     .user = &(tl_conv3d_config){.stride = {1, 2, 1}, .padding = {0, 1, 1}},
     .input_count = 3,
     .inputs = {{"x", 5, {1, 4, 5, 3, 2}, 0, 0, false, 0, 0, false},
                {"weight", 5, {3, 2, 3, 3, 2}, 0, 0, false, 0, 0, false},
                {"bias", 1, {3}, 0, 0, false, 0, 0, false}}},
    {.name = "conv_transpose2d",
     .forward = conv_transpose2d,
     .user =
         &(tl_conv_transpose2d_config){
             .stride = {2, 1}, .padding = {1, 0}, .output_padding = {1, 0}, .groups = 2},
     .input_count = 3,
     .inputs = {{"x", 4, {2, 3, 4, 4}, 0, 0, false, 0, 0, false},
                {"weight", 4, {4, 3, 3, 3}, 0, 0, false, 0, 0, false},
                {"bias", 1, {6}, 0, 0, false, 0, 0, false}}},
};

START_TEST(convolutions) {
    check_gradients(&problems[_i]);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("gradients of convolutions", &test_case);
    tcase_add_loop_test(test_case, convolutions, 0, sizeof problems / sizeof problems[0]);
    return run_suite(suite);
}
