/* real.h - the element type of tensors.
 *
 * float, or double when the library was compiled with TL_REAL_DOUBLE (as the gradient checks do).
 * A program must be compiled with the same setting as the library it links. */
#ifndef TL_REAL_H
#define TL_REAL_H

#ifdef TL_REAL_DOUBLE
typedef double tl_real;
#else
typedef float tl_real;
#endif

#endif
