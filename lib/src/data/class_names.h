/* class_names.h - the names of the classes of well-known datasets, in the order of their labels. */
#ifndef TL_CLASS_NAMES_H
#define TL_CLASS_NAMES_H

extern const char *const tl_class_names_cifar10[10];
extern const char *const tl_class_names_cifar100[100];
extern const char *const tl_class_names_digits[10];
extern const char *const tl_class_names_fashion[10];

#endif
