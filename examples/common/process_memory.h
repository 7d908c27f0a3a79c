/* process_memory.h - the memory of this process, as the system counts it. */
#ifndef EXAMPLE_PROCESS_MEMORY_H
#define EXAMPLE_PROCESS_MEMORY_H

/* Resident bytes now, and the most there ever were (Linux: VmRSS and VmHWM); 0 where the system
 * does not say. */
double process_memory_now(void);
double process_memory_peak(void);

#endif
