/* parity_run.h - carries out one case. */
#ifndef PARITY_RUN_H
#define PARITY_RUN_H

#include "parity.h"

typedef struct parity_result {
    bool ok;
    double worst;      /* error over tolerance */
    char problem[512]; /* why it failed, "" if only by the numbers */
} parity_result;

parity_result parity_run_one(const parity_adapter *adapter, parity_case *c, bool verbose);

#endif
