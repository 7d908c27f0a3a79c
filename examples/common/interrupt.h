/* interrupt.h - a clean stop on Ctrl-C: the first asks, the second ends the program at once. */
#ifndef EXAMPLE_INTERRUPT_H
#define EXAMPLE_INTERRUPT_H

#include <stdbool.h>

/* Catches SIGINT and SIGTERM. */
void interrupt_install(void);
bool interrupt_requested(void);

#endif
