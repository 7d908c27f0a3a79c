#include <tapeline/version.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *tl_version(void) {
    return TEXT(TL_VERSION_MAJOR) "." TEXT(TL_VERSION_MINOR) "." TEXT(TL_VERSION_PATCH);
}

int tl_version_number(void) {
    return TL_VERSION_NUMBER;
}
