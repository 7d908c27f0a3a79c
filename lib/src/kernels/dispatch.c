#include "kernels/kernels.h"

#include <string.h>

/* The families of one instruction set. A new family gets a line here and in kernels.h. */
/* clang-format off */
#define TL_KERNELS_OF(isa_) { \
    .isa = #isa_, \
    .activation = &tl_activation_kernels_##isa_, \
    .attention_map = &tl_attention_map_kernels_##isa_, \
    .broadcast = &tl_broadcast_kernels_##isa_, \
    .channel_norm = &tl_channel_norm_kernels_##isa_, \
    .conv = &tl_conv_kernels_##isa_, \
    .copy = &tl_copy_kernels_##isa_, \
    .cost_volume = &tl_cost_volume_kernels_##isa_, \
    .dropout = &tl_dropout_kernels_##isa_, \
    .efficient_attention = &tl_efficient_attention_kernels_##isa_, \
    .embedding = &tl_embedding_kernels_##isa_, \
    .gemm = &tl_gemm_kernels_##isa_, \
    .layer_norm = &tl_layer_norm_kernels_##isa_, \
    .linear_attention = &tl_linear_attention_kernels_##isa_, \
    .loss = &tl_loss_kernels_##isa_, \
    .optimizer = &tl_optimizer_kernels_##isa_, \
    .pooling = &tl_pooling_kernels_##isa_, \
    .reduce = &tl_reduce_kernels_##isa_, \
    .softmax = &tl_softmax_kernels_##isa_, \
    .tiled_attention = &tl_tiled_attention_kernels_##isa_, \
    .upsample = &tl_upsample_kernels_##isa_, \
    .vector = &tl_vector_kernels_##isa_, \
}
/* clang-format on */

static const tl_kernels kernels_baseline = TL_KERNELS_OF(baseline);

#if defined(__x86_64__) && !defined(TL_BASELINE_ONLY)
#define SEVERAL_ISAS
static const tl_kernels kernels_avx2 = TL_KERNELS_OF(avx2);
static const tl_kernels kernels_avx512 = TL_KERNELS_OF(avx512);

static bool cpu_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool cpu_has_avx512(void) {
#ifdef TL_EMULATE_AVX512
    return cpu_has_avx2();
#else
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
#endif
}
#endif

const tl_kernels *tl_kernels_select(const char *isa, const char **reason) {
    const bool best = isa == NULL || isa[0] == '\0' || strcmp(isa, "auto") == 0;
    *reason = "";
#ifdef SEVERAL_ISAS
#ifdef TL_EMULATE_AVX512
    /* emulation is for tests: it must be asked for by name */
    const bool prefer_avx512 = false;
#else
    const bool prefer_avx512 = true;
#endif
    if (best) {
        if (prefer_avx512 && cpu_has_avx512()) {
            return &kernels_avx512;
        }
        return cpu_has_avx2() ? &kernels_avx2 : &kernels_baseline;
    }
    if (strcmp(isa, "avx512") == 0) {
        *reason = "this CPU lacks AVX-512 (F, DQ, BW, VL)";
        return cpu_has_avx512() ? &kernels_avx512 : NULL;
    }
    if (strcmp(isa, "avx2") == 0) {
        *reason = "this CPU lacks AVX2 or FMA";
        return cpu_has_avx2() ? &kernels_avx2 : NULL;
    }
#endif
    if (best || strcmp(isa, "baseline") == 0) {
        return &kernels_baseline;
    }
    *reason = "expected one of: auto, baseline, avx2, avx512";
    return NULL;
}
