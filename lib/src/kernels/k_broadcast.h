/* k_broadcast.h - elementwise arithmetic on two operands of which either may be repeated.
 *
 * An operand is a dense array seen through strides: stride 0 repeats it along that dimension. The
 * caller merges dimensions that walk alike and drops those of extent 1, so that the innermost
 * loop is as long as it can be; that loop has a form for each of: both walk, one stands still,
 * both stand still. Reads each operand and writes the result once.
 */
#ifndef TL_K_BROADCAST_H
#define TL_K_BROADCAST_H

typedef enum tl_arithmetic { TL_ADD, TL_SUBTRACT, TL_MULTIPLY, TL_DIVIDE } tl_arithmetic;

enum { TL_BROADCAST_RANK = 8 };

typedef struct tl_broadcast {
    int rank;
    int64_t extents[TL_BROADCAST_RANK]; /* of the result, which is dense */
    int64_t a_strides[TL_BROADCAST_RANK];
    int64_t b_strides[TL_BROADCAST_RANK]; /* innermost strides are 0 or 1 */
} tl_broadcast;

typedef struct tl_broadcast_kernels {
    /* y = a op b, or y += a op b if `accumulate`. y may be an operand that is not repeated. */
    void (*apply)(int threads, tl_arithmetic operation, const tl_broadcast *shape, const tl_real *a,
                  const tl_real *b, bool accumulate, tl_real *y);
} tl_broadcast_kernels;

TL_DECLARE_KERNELS(tl_broadcast_kernels);

#endif
