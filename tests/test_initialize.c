/* Initial values: moments, bounds, the same seed. */
#include "support/support.h"

#include <math.h>

enum { N = 40000 };

typedef struct moments {
    double mean, deviation, largest;
} moments;

static moments moments_of(tl_tensor *tensor) {
    moments m = {0};
    const tl_real *values = tl_tensor_data(tensor);
    for (int i = 0; i < N; i++) {
        m.mean += (double)values[i] / N;
        m.largest = fmax(m.largest, fabs((double)values[i]));
    }
    for (int i = 0; i < N; i++) {
        const double d = (double)values[i] - m.mean;
        m.deviation += d * d / N;
    }
    m.deviation = sqrt(m.deviation);
    return m;
}

static void check_moments(const char *name, tl_tensor *tensor, double mean, double deviation,
                          double bound) {
    const moments m = moments_of(tensor);
    ck_assert_msg(fabs(m.mean - mean) < 0.02 * deviation, "%s: mean %g", name, m.mean);
    ck_assert_msg(fabs(m.deviation - deviation) < 0.02 * deviation, "%s: deviation %g, not %g",
                  name, m.deviation, deviation);
    ck_assert_msg(m.largest <= bound, "%s: largest %g over %g", name, m.largest, bound);
}

START_TEST(distributions) {
    tl_context *context = context_with(1, NULL);
    tl_tensor *t = tl_tensor_create(context, 1, (int64_t[]){N}, true, NULL);
    tl_random random = tl_random_create(1, TL_RANDOM_INITIALIZE, 0);
    tl_initialize_he_normal(t, 50, &random);
    check_moments("he_normal", t, 0.0, 0.2, 6 * 0.2);
    tl_initialize_he_uniform(t, 50, &random);
    check_moments("he_uniform", t, 0.0, 0.2, sqrt(6.0 / 50) * 1.0001);
    tl_initialize_xavier_normal(t, 30, 20, &random);
    check_moments("xavier_normal", t, 0.0, 0.2, 6 * 0.2);
    tl_initialize_xavier_uniform(t, 30, 20, &random);
    check_moments("xavier_uniform", t, 0.0, 0.2, sqrt(6.0 / 50) * 1.0001);
    tl_initialize_normal(t, 3.0, 0.5, &random);
    check_moments("normal", t, 3.0, 0.5, 3.0 + 6 * 0.5);
    tl_initialize_uniform(t, 1.0, 3.0, &random);
    check_moments("uniform", t, 2.0, 2.0 / sqrt(12.0), 3.0);
    tl_initialize_constant(t, 0.25);
    ck_assert(tl_tensor_data(t)[0] == (tl_real)0.25 && tl_tensor_data(t)[N - 1] == (tl_real)0.25);
    tl_tensor_free(t);
    tl_context_free(context);
}
END_TEST

START_TEST(same_seed_same_values) {
    tl_context *context = context_with(1, NULL);
    tl_tensor *a = tl_tensor_create(context, 1, (int64_t[]){N}, true, NULL);
    tl_tensor *b = tl_tensor_create(context, 1, (int64_t[]){N}, true, NULL);
    tl_random first = tl_random_create(9, TL_RANDOM_INITIALIZE, 0);
    tl_random second = first;
    tl_initialize_he_normal(a, 10, &first);
    tl_initialize_he_normal(b, 10, &second);
    assert_same_bits("he_normal", N, tl_tensor_data(a), tl_tensor_data(b));
    tl_initialize_he_normal(b, 10, &second);
    ck_assert(tl_tensor_data(a)[0] != tl_tensor_data(b)[0]);
    tl_tensor_free(a);
    tl_tensor_free(b);
    tl_context_free(context);
}
END_TEST

int main(void) {
    TCase *test_case;
    Suite *suite = suite_with_case("initialize", &test_case);
    tcase_add_test(test_case, distributions);
    tcase_add_test(test_case, same_seed_same_values);
    return run_suite(suite);
}
