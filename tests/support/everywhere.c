#include "support/everywhere.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void compute_on(const char *what, const char *isa, int threads, everywhere_function compute,
                const void *user, tl_real *out) {
    tl_context *context = context_with(threads, isa);
    tl_tape *tape = tl_tape_create(context);
    ck_assert_ptr_nonnull(tape);
    compute(tape, user, out);
    ck_assert_msg(tl_tape_status(tape) == TL_OK, "%s: %s", what, tl_tape_error(tape)->message);
    tl_tape_free(tape);
    tl_context_free(context);
}

void check_everywhere(const char *what, everywhere_function compute, const void *user, int parts,
                      const expected *expected_parts, double rtol, double atol) {
    int64_t total = 0;
    for (int i = 0; i < parts; i++) {
        total += expected_parts[i].count;
    }
    tl_real *one = malloc((size_t)total * sizeof *one);
    tl_real *more = malloc((size_t)total * sizeof *more);
    ck_assert(one != NULL && more != NULL);
    for (int isa = 0; isa < 3; isa++) {
        if (!isa_available(all_isas[isa])) {
            continue;
        }
        compute_on(what, all_isas[isa], 1, compute, user, one);
        const tl_real *got = one;
        for (int i = 0; i < parts; i++) {
            char name[256];
            (void)snprintf(name, sizeof name, "%s: %s on %s", what, expected_parts[i].name,
                           all_isas[isa]);
            assert_close(name, expected_parts[i].count, got, expected_parts[i].want, rtol, atol);
            got += expected_parts[i].count;
        }
        for (int threads = 2; threads <= 3; threads++) {
            compute_on(what, all_isas[isa], threads, compute, user, more);
            assert_same_bits(what, total, one, more);
        }
    }
    free(one);
    free(more);
}

void append_values(tl_real **out, tl_tensor *tensor) {
    ck_assert_ptr_nonnull(tensor);
    const int64_t count = tl_tensor_size(tensor);
    memcpy(*out, tl_tensor_data(tensor), (size_t)count * sizeof **out);
    *out += count;
}

void append_grad(tl_real **out, const tl_tensor *tensor) {
    ck_assert_ptr_nonnull(tensor);
    const int64_t count = tl_tensor_size(tensor);
    if (tl_tensor_grad(tensor) != NULL) {
        memcpy(*out, tl_tensor_grad(tensor), (size_t)count * sizeof **out);
    } else {
        memset(*out, 0, (size_t)count * sizeof **out);
    }
    *out += count;
}
