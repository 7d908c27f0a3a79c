#include "parity_case.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const groups[] = {
    "inputs",       "params",        "buffers", "grad_outputs",   "outputs",         "grads/inputs",
    "grads/params", "buffers_after", "batches", "grads_per_step", "params_per_step", "params_after",
};

parity_tensor *parity_find(const parity_case *c, const char *group, const char *name) {
    for (int i = 0; i < c->tensor_count; i++) {
        if (strcmp(c->tensors[i].group, group) == 0 && strcmp(c->tensors[i].name, name) == 0) {
            return &c->tensors[i];
        }
    }
    return NULL;
}

const parity_argument *parity_argument_find(const parity_case *c, const char *name) {
    for (int i = 0; i < c->argument_count; i++) {
        if (strcmp(c->arguments[i].name, name) == 0) {
            return &c->arguments[i];
        }
    }
    return NULL;
}

void parity_case_clear(parity_case *c) {
    for (int i = 0; i < c->tensor_count; i++) {
        free(c->tensors[i].values);
    }
    free(c->tensors);
    free(c->arguments);
    *c = (parity_case){0};
}

/* A fixed-length string attribute that is not null-terminated. */
static bool read_text(hid_t attribute, char text[PARITY_NAME_SIZE]) {
    const hid_t type = H5Aget_type(attribute);
    const size_t size = H5Tget_size(type);
    bool ok = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
              size < PARITY_NAME_SIZE;
    memset(text, 0, PARITY_NAME_SIZE);
    if (ok) {
        const hid_t memory_type = H5Tcopy(H5T_C_S1);
        H5Tset_size(memory_type, size);
        H5Tset_strpad(memory_type, H5T_STR_NULLPAD);
        ok = H5Aread(attribute, memory_type, text) >= 0;
        H5Tclose(memory_type);
    }
    H5Tclose(type);
    return ok;
}

static bool read_root(hid_t file, const char *name, bool is_text, void *value) {
    const hid_t attribute = H5Aexists(file, name) > 0 ? H5Aopen(file, name, H5P_DEFAULT) : -1;
    if (attribute < 0) {
        return false;
    }
    bool ok;
    if (is_text) {
        ok = read_text(attribute, value);
    } else {
        const hid_t space = H5Aget_space(attribute);
        ok = H5Sget_simple_extent_npoints(space) == 1 &&
             H5Aread(attribute, H5T_NATIVE_DOUBLE, value) >= 0;
        H5Sclose(space);
    }
    H5Aclose(attribute);
    return ok;
}

static herr_t read_argument(hid_t group, const char *name, const H5A_info_t *info, void *user) {
    (void)info;
    parity_case *c = user;
    parity_argument *grown =
        realloc(c->arguments, (size_t)(c->argument_count + 1) * sizeof *c->arguments);
    if (grown == NULL) {
        return -1;
    }
    c->arguments = grown;
    parity_argument *argument = &c->arguments[c->argument_count];
    memset(argument, 0, sizeof *argument);
    snprintf(argument->name, sizeof argument->name, "%s", name);
    const hid_t attribute = H5Aopen(group, name, H5P_DEFAULT);
    const hid_t type = H5Aget_type(attribute);
    const hid_t space = H5Aget_space(attribute);
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    bool ok = count >= 0 && count <= PARITY_MAX_INTS;
    if (ok && H5Tget_class(type) == H5T_STRING) {
        ok = read_text(attribute, argument->text);
    } else if (ok && H5Tget_class(type) == H5T_FLOAT) {
        ok = count == 1 && H5Aread(attribute, H5T_NATIVE_DOUBLE, &argument->number) >= 0;
    } else if (ok) {
        ok = H5Aread(attribute, H5T_NATIVE_INT64, argument->ints) >= 0;
        argument->count = (int)count;
        argument->number = (double)argument->ints[0];
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    c->argument_count++;
    return ok ? 0 : -1;
}

typedef struct reading {
    parity_case *c;
    const char *group;
} reading;

static bool read_shape(hid_t dataset, parity_tensor *tensor) {
    hsize_t extents[H5S_MAX_RANK];
    const hid_t space = H5Dget_space(dataset);
    const int rank = H5Sget_simple_extent_dims(space, extents, NULL);
    H5Sclose(space);
    if (rank < 0 || rank > PARITY_MAX_RANK) {
        return false;
    }
    tensor->rank = rank;
    tensor->size = 1;
    for (int i = 0; i < rank; i++) {
        if (extents[i] < 1 || extents[i] > (hsize_t)(1 << 28) / (hsize_t)tensor->size) {
            return false;
        }
        tensor->shape[i] = (int64_t)extents[i];
        tensor->size *= tensor->shape[i];
    }
    return true;
}

static herr_t read_tensor(hid_t group, const char *name, const H5L_info_t *info, void *user) {
    (void)info;
    reading *r = user;
    H5O_info_t object;
    if (H5Oget_info_by_name(group, name, &object, H5P_DEFAULT) < 0) {
        return -1;
    }
    if (object.type != H5O_TYPE_DATASET) {
        return 0; /* the groups below "grads" are read by themselves */
    }
    parity_case *c = r->c;
    parity_tensor *grown = realloc(c->tensors, (size_t)(c->tensor_count + 1) * sizeof *c->tensors);
    if (grown == NULL) {
        return -1;
    }
    c->tensors = grown;
    parity_tensor *tensor = &c->tensors[c->tensor_count++];
    memset(tensor, 0, sizeof *tensor);
    snprintf(tensor->group, sizeof tensor->group, "%s", r->group);
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    const hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    bool ok = dataset >= 0 && read_shape(dataset, tensor);
    if (ok) {
        tensor->values = malloc((size_t)tensor->size * sizeof(double));
        ok = tensor->values != NULL && H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL,
                                               H5P_DEFAULT, tensor->values) >= 0;
    }
    if (dataset >= 0) {
        H5Dclose(dataset);
    }
    return ok ? 0 : -1;
}

static bool read_group(parity_case *c, hid_t file, const char *path) {
    char parent[32];
    snprintf(parent, sizeof parent, "%.*s", (int)strcspn(path, "/"), path);
    if (H5Lexists(file, parent, H5P_DEFAULT) <= 0 || H5Lexists(file, path, H5P_DEFAULT) <= 0) {
        return true; /* empty groups are absent */
    }
    const hid_t group = H5Gopen2(file, path, H5P_DEFAULT);
    if (group < 0) {
        return false;
    }
    reading r = {.c = c, .group = path};
    const bool ok = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, read_tensor, &r) >= 0;
    H5Gclose(group);
    return ok;
}

static const char *read_file(parity_case *c, hid_t file) {
    char schema[PARITY_NAME_SIZE];
    double version;
    if (!read_root(file, "schema", true, schema) || strcmp(schema, "tapeline-parity") != 0) {
        return "no parity case: the attribute schema is not tapeline-parity";
    }
    if (!read_root(file, "version", false, &version) || version != 1) {
        return "expected version 1 of the parity format";
    }
    if (!read_root(file, "op", true, c->op) || !read_root(file, "rtol", false, &c->rtol) ||
        !read_root(file, "atol", false, &c->atol)) {
        return "the attribute op, rtol or atol is missing or of a wrong type";
    }
    const hid_t arguments = H5Gopen2(file, "args", H5P_DEFAULT);
    if (arguments < 0) {
        return "the group args is missing";
    }
    const bool ok =
        H5Aiterate2(arguments, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, read_argument, c) >= 0;
    H5Gclose(arguments);
    if (!ok) {
        return "an argument cannot be read";
    }
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        if (!read_group(c, file, groups[i])) {
            return "a tensor cannot be read";
        }
    }
    return NULL;
}

bool parity_case_load(parity_case *c, const char *path, char *reason, size_t reason_size) {
    *c = (parity_case){0};
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        snprintf(reason, reason_size, "cannot be opened as an HDF5 file");
        return false;
    }
    const char *problem = read_file(c, file);
    H5Fclose(file);
    if (problem != NULL) {
        snprintf(reason, reason_size, "%s", problem);
    }
    return problem == NULL;
}
