#include "common/interrupt.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t requested;

static void handle(int number) {
    requested = 1;
    /* a second signal meets the default: the program ends */
    (void)signal(number, SIG_DFL);
}

void interrupt_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    (void)sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

bool interrupt_requested(void) {
    return requested != 0;
}
