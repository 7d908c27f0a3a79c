/* Reading: the tree is walked, datasets become arrays, attributes values. The data are those that
 * the user block's checksum vouches for; what is checked here is that they say something we have a
 * place for: hard links only, known types, no more data declared than the file can hold. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/hdf5_file.h"
#include "io/hdf5_lock.h"

enum {
    DEFLATE_BEST = 1032,       /* deflate's limit: no stream grows by more */
    DEFLATE_SLACK = 64 * 1024, /* for the ends of chunks */
};

typedef struct reader {
    tl_state *state;
    const char *file; /* for messages */
    tl_error *error;
    tl_status status; /* of the first failure */
    const char *path; /* of the object whose links or attributes are walked */
} reader;

static herr_t fail_at(reader *r, const char *path, const char *what) {
    if (r->status == TL_OK) {
        r->status = tl_fail(r->error, TL_ERROR_FORMAT,
                            "checkpoint '" TL_SHOWN_PATH "': '/%.100s' %s", r->file, path, what);
    }
    return -1;
}

/* A failure that has its message already. */
static herr_t keep(reader *r, tl_status status) {
    if (status != TL_OK && r->status == TL_OK) {
        r->status = status;
    }
    return status == TL_OK ? 0 : -1;
}

static bool compose(char path[TL_PATH_SIZE], const char *parent, const char *name) {
    const int length =
        snprintf(path, TL_PATH_SIZE, "%s%s%s", parent, parent[0] != '\0' ? "/" : "", name);
    return length > 0 && length < TL_PATH_SIZE;
}

/* ------------------------------------------------------------------ attributes */

/* A string of variable length belongs to libhdf5 and is freed by it. */
static herr_t read_variable_string(reader *r, hid_t attribute, hid_t type, const char *path) {
    char *text = NULL;
    if (H5Aread(attribute, type, &text) < 0 || text == NULL) {
        return fail_at(r, path, "cannot be read");
    }
    const tl_status status = tl_state_put_string(r->state, path, text, r->error);
    (void)H5free_memory(text);
    return keep(r, status);
}

static herr_t read_fixed_string(reader *r, hid_t attribute, hid_t type, const char *path) {
    const size_t size = H5Tget_size(type);
    char *text = size > 0 && size <= (1u << 20) ? calloc(size + 1, 1) : NULL;
    if (text == NULL || H5Aread(attribute, type, text) < 0) {
        free(text);
        return fail_at(r, path, "cannot be read");
    }
    const tl_status status = tl_state_put_string(r->state, path, text, r->error);
    free(text);
    return keep(r, status);
}

static herr_t read_value(reader *r, hid_t attribute, hid_t type, const char *path) {
    int64_t integer;
    double number;
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        return H5Aread(attribute, H5T_NATIVE_INT64, &integer) < 0
                   ? fail_at(r, path, "cannot be read")
                   : keep(r, tl_state_put_integer(r->state, path, integer, r->error));
    case H5T_FLOAT:
        return H5Aread(attribute, H5T_NATIVE_DOUBLE, &number) < 0
                   ? fail_at(r, path, "cannot be read")
                   : keep(r, tl_state_put_number(r->state, path, number, r->error));
    case H5T_STRING:
        return H5Tis_variable_str(type) > 0 ? read_variable_string(r, attribute, type, path)
                                            : read_fixed_string(r, attribute, type, path);
    default:
        return fail_at(r, path, "has a type that is neither integer, float nor string");
    }
}

static herr_t visit_attribute(hid_t object, const char *name, const H5A_info_t *info, void *data) {
    (void)info;
    reader *r = data;
    char path[TL_PATH_SIZE];
    if (!compose(path, r->path, name) || strchr(name, '/') != NULL) {
        return fail_at(r, r->path, "has an attribute with a bad name");
    }
    const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    const hid_t space = H5Aget_space(attribute);
    const hid_t type = H5Aget_type(attribute);
    herr_t result;
    if (attribute < 0 || space < 0 || type < 0) {
        result = fail_at(r, path, "cannot be opened");
    } else if (H5Sget_simple_extent_npoints(space) != 1) {
        result = fail_at(r, path, "has more than one value");
    } else {
        result = read_value(r, attribute, type, path);
    }
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    (void)H5Aclose(attribute);
    return result;
}

static herr_t read_attributes(reader *r, hid_t object, const char *path) {
    const char *outer = r->path;
    r->path = path;
    herr_t result = H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_attribute, r);
    if (result < 0) {
        (void)fail_at(r, path, "has attributes that cannot be read");
    }
    r->path = outer;
    return result;
}

/* ------------------------------------------------------------------ arrays */

static bool element_type(hid_t type, tl_element_type *element, hid_t *memory_type) {
    const size_t size = H5Tget_size(type);
    const H5T_class_t kind = H5Tget_class(type);
    const bool is_signed = kind == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_2;
    if (kind == H5T_FLOAT && size == 4) {
        *element = TL_FLOAT32;
        *memory_type = H5T_NATIVE_FLOAT;
    } else if (kind == H5T_FLOAT && size == 8) {
        *element = TL_FLOAT64;
        *memory_type = H5T_NATIVE_DOUBLE;
    } else if (is_signed && size == 4) {
        *element = TL_INT32;
        *memory_type = H5T_NATIVE_INT32;
    } else if (is_signed && size == 8) {
        *element = TL_INT64;
        *memory_type = H5T_NATIVE_INT64;
    } else if (kind == H5T_INTEGER && !is_signed && size == 1) {
        *element = TL_UINT8;
        *memory_type = H5T_NATIVE_UINT8;
    } else {
        return false;
    }
    return true;
}

static herr_t read_elements(reader *r, hid_t dataset, hid_t space, hid_t type, const char *path) {
    tl_element_type element;
    hid_t memory_type;
    if (!element_type(type, &element, &memory_type)) {
        return fail_at(r, path, "has a type other than float32, float64, int32, int64, uint8");
    }
    hsize_t extents[TL_MAX_RANK];
    int64_t shape[TL_MAX_RANK];
    const int rank = H5Sget_simple_extent_ndims(space);
    if (H5Sget_simple_extent_type(space) == H5S_NULL || rank < 0 || rank > TL_MAX_RANK ||
        H5Sget_simple_extent_dims(space, extents, NULL) < 0) {
        return fail_at(r, path, "has no shape or too many dimensions");
    }
    for (int i = 0; i < rank; i++) {
        shape[i] = extents[i] <= INT64_MAX ? (int64_t)extents[i] : -1;
    }
    size_t bytes;
    const uint64_t stored = H5Dget_storage_size(dataset);
    if (!tl_state_array_bytes(element, rank, shape, &bytes) ||
        bytes / DEFLATE_BEST > stored + DEFLATE_SLACK) {
        return fail_at(r, path, "declares more data than the file can hold");
    }
    void *values = tl_state_new_array(r->state, path, element, rank, shape, r->error);
    if (values == NULL) {
        return keep(r, r->error->status);
    }
    if (bytes > 0 && H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
        return fail_at(r, path, "has data that cannot be read");
    }
    return 0;
}

static herr_t read_dataset(reader *r, hid_t dataset, const char *path) {
    const hid_t space = H5Dget_space(dataset);
    const hid_t type = H5Dget_type(dataset);
    const herr_t result = space >= 0 && type >= 0 ? read_elements(r, dataset, space, type, path)
                                                  : fail_at(r, path, "cannot be opened");
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    return result;
}

/* ------------------------------------------------------------------ the tree */

static herr_t read_group(reader *r, hid_t group, const char *path);

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *info, void *data) {
    reader *r = data;
    char path[TL_PATH_SIZE];
    if (!compose(path, r->path, name)) {
        return fail_at(r, r->path, "has a member with a path that is too long");
    }
    if (info->type != H5L_TYPE_HARD) {
        return fail_at(r, path, "is a soft or external link");
    }
    const hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    herr_t result;
    switch (H5Iget_type(object)) {
    case H5I_GROUP:
        result = read_group(r, object, path);
        break;
    case H5I_DATASET:
        result = read_dataset(r, object, path);
        result = result < 0 ? result : read_attributes(r, object, path);
        break;
    default:
        result = fail_at(r, path, "is neither a group nor a dataset");
    }
    (void)H5Oclose(object);
    return result;
}

/* A group that contains itself ends with a path that is too long. */
static herr_t read_group(reader *r, hid_t group, const char *path) {
    if (read_attributes(r, group, path) < 0) {
        return -1;
    }
    const char *outer = r->path;
    r->path = path;
    const herr_t result = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, visit_link, r);
    if (result < 0) {
        (void)fail_at(r, path, "has members that cannot be read");
    }
    r->path = outer;
    return result;
}

static tl_status check_format(const tl_state *state, const char *file, tl_error *error) {
    const char *format = tl_state_find_string(state, "format");
    int64_t version;
    if (format == NULL || strcmp(format, TL_CHECKPOINT_FORMAT) != 0) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH "': expected the format '%s', found '%.100s'",
                       file, TL_CHECKPOINT_FORMAT, format != NULL ? format : "none");
    }
    if (!tl_state_find_integer(state, "version", &version)) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH "': expected version %d, found none", file,
                       TL_CHECKPOINT_VERSION);
    }
    if (version != TL_CHECKPOINT_VERSION) {
        return tl_fail(error, TL_ERROR_FORMAT,
                       "checkpoint '" TL_SHOWN_PATH "': expected version %d, found %" PRId64, file,
                       TL_CHECKPOINT_VERSION, version);
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ the image */

/* libhdf5 works on our memory in place: these callbacks hand it out and never copy. */
typedef struct image {
    void *data;
    size_t bytes;
} image;

static void *image_allocate(size_t size, H5FD_file_image_op_t op, void *user) {
    (void)op;
    const image *i = user;
    return size == i->bytes ? i->data : NULL;
}

static void *image_copy(void *to, const void *from, size_t size, H5FD_file_image_op_t op,
                        void *user) {
    (void)op;
    (void)user;
    return to == from ? to : memcpy(to, from, size);
}

static void *image_reallocate(void *data, size_t size, H5FD_file_image_op_t op, void *user) {
    (void)data;
    (void)op;
    const image *i = user;
    return size == i->bytes ? i->data : NULL;
}

static herr_t image_free(void *data, H5FD_file_image_op_t op, void *user) {
    (void)data;
    (void)op;
    (void)user;
    return 0;
}

static void *image_share(void *user) {
    return user;
}

static herr_t image_unshare(void *user) {
    (void)user;
    return 0;
}

static hid_t open_image(image *i) {
    H5FD_file_image_callbacks_t callbacks = {.image_malloc = image_allocate,
                                             .image_memcpy = image_copy,
                                             .image_realloc = image_reallocate,
                                             .image_free = image_free,
                                             .udata_copy = image_share,
                                             .udata_free = image_unshare,
                                             .udata = i};
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t file = H5I_INVALID_HID;
    if (H5Pset_fapl_core(access, i->bytes, false) >= 0 &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_file_image_callbacks(access, &callbacks) >= 0 &&
        H5Pset_file_image(access, i->data, i->bytes) >= 0) {
        char name[TL_HDF5_NAME_SIZE];
        file = H5Fopen(tl_hdf5_new_name(name), H5F_ACC_RDONLY, access);
    }
    (void)H5Pclose(access);
    return file;
}

tl_status tl_hdf5_read(tl_state *state, unsigned char *data, size_t bytes, const char *path,
                       tl_error *error) {
    TL_TRY(tl_hdf5_require_memory(error));
    const tl_hdf5_quiet quiet = tl_hdf5_lock();
    tl_error own_error = {0};
    image i = {.data = data, .bytes = bytes};
    reader r = {.state = state, .file = path, .error = &own_error, .path = ""};
    const hid_t file = open_image(&i);
    const hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
    if (root >= 0) {
        (void)read_group(&r, root, "");
    } else {
        (void)fail_at(&r, "", "cannot be opened: these are no HDF5 data");
    }
    (void)H5Gclose(root);
    (void)H5Fclose(file);
    tl_hdf5_unlock(quiet);
    if (r.status != TL_OK) {
        return tl_fail(error, r.status, "%s", own_error.message);
    }
    return check_format(state, path, error);
}
