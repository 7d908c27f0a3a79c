/* Writing: arrays first, each with the groups on its way, then values as attributes of the array
 * or group that their path leads to. Format bounds 1.8: checksummed metadata, and readable by any
 * HDF5 library in use. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tapeline/version.h>

#include "io/hdf5_file.h"
#include "io/hdf5_lock.h"
#include "io/user_block.h"

enum {
    MEMORY_INCREMENT = 1 << 20, /* by which HDF5's image grows */
    CHUNK_BYTES = 1 << 20,      /* at most; HDF5's chunk cache holds one such */
    DEFLATE_LEVEL = 2,
    CHUNK_TREE_RANK = 2, /* children per node / 2: most arrays have one chunk, and a node of the
                            default 32 takes 2 KB */
};

typedef struct writer {
    const tl_state *state;
    tl_hdf5_image *image;
    const char *path; /* of the checkpoint, for messages */
    tl_error *error;
    hid_t file;
    hid_t make_groups; /* link creation property: groups on the way are created */
} writer;

static tl_status fail_image(const writer *w);

static tl_status fail_at(const writer *w, const char *what, const char *item) {
    if (w->image->refused) {
        return fail_image(w);
    }
    return tl_fail(w->error, TL_ERROR_INVALID_ARGUMENT,
                   "checkpoint '" TL_SHOWN_PATH "': cannot store %s '%s'", w->path, what, item);
}

static hid_t file_type(tl_element_type type) {
    switch (type) {
    case TL_FLOAT32:
        return H5T_IEEE_F32LE;
    case TL_FLOAT64:
        return H5T_IEEE_F64LE;
    case TL_INT32:
        return H5T_STD_I32LE;
    case TL_INT64:
        return H5T_STD_I64LE;
    case TL_UINT8:
        return H5T_STD_U8LE;
    }
    return H5I_INVALID_HID;
}

static hid_t memory_type(tl_element_type type) {
    switch (type) {
    case TL_FLOAT32:
        return H5T_NATIVE_FLOAT;
    case TL_FLOAT64:
        return H5T_NATIVE_DOUBLE;
    case TL_INT32:
        return H5T_NATIVE_INT32;
    case TL_INT64:
        return H5T_NATIVE_INT64;
    case TL_UINT8:
        return H5T_NATIVE_UINT8;
    }
    return H5I_INVALID_HID;
}

/* ------------------------------------------------------------------ arrays */

/* The whole array, halved from the first dimension on until it fits. */
static void choose_chunk(const tl_state_array *array, hsize_t chunk[TL_MAX_RANK]) {
    size_t bytes = tl_element_size(array->type);
    for (int i = 0; i < array->rank; i++) {
        chunk[i] = array->shape[i] > 0 ? (hsize_t)array->shape[i] : 1;
        bytes *= (size_t)chunk[i];
    }
    for (int i = 0; i < array->rank; i++) {
        while (bytes > CHUNK_BYTES && chunk[i] > 1) {
            bytes = bytes / (size_t)chunk[i];
            chunk[i] = (chunk[i] + 1) / 2;
            bytes *= (size_t)chunk[i];
        }
    }
}

static bool set_layout(hid_t creation, const tl_state_array *array) {
    if (H5Pset_obj_track_times(creation, false) < 0) {
        return false;
    }
    if (array->rank == 0) {
        return true; /* a scalar cannot be chunked */
    }
    hsize_t chunk[TL_MAX_RANK];
    choose_chunk(array, chunk);
    return H5Pset_chunk(creation, array->rank, chunk) >= 0 &&
           (tl_element_size(array->type) == 1 || H5Pset_shuffle(creation) >= 0) &&
           H5Pset_deflate(creation, DEFLATE_LEVEL) >= 0 && H5Pset_fletcher32(creation) >= 0;
}

static bool write_array(const writer *w, const char *path, const tl_state_array *array) {
    hsize_t extents[TL_MAX_RANK];
    int64_t elements = 1;
    for (int i = 0; i < array->rank; i++) {
        extents[i] = (hsize_t)array->shape[i];
        elements *= array->shape[i];
    }
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hid_t space =
        array->rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(array->rank, extents, NULL);
    hid_t dataset = H5I_INVALID_HID;
    if (creation >= 0 && space >= 0 && set_layout(creation, array)) {
        dataset = H5Dcreate2(w->file, path, file_type(array->type), space, w->make_groups, creation,
                             H5P_DEFAULT);
    }
    const bool written =
        dataset >= 0 && (elements == 0 || H5Dwrite(dataset, memory_type(array->type), H5S_ALL,
                                                   H5S_ALL, H5P_DEFAULT, array->data) >= 0);
    const bool closed = dataset >= 0 && H5Dclose(dataset) >= 0;
    (void)H5Sclose(space);
    (void)H5Pclose(creation);
    return written && closed;
}

static tl_status write_arrays(const writer *w) {
    for (int i = 0; i < tl_state_count(w->state); i++) {
        const tl_state_entry entry = tl_state_at(w->state, i);
        if (entry.kind == TL_STATE_ARRAY &&
            (!write_array(w, entry.path, &entry.array) || w->image->refused)) {
            return fail_at(w, "the array", entry.path);
        }
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ values */

static hid_t value_type(const tl_state_entry *entry) {
    if (entry->kind == TL_STATE_STRING) {
        const hid_t type = H5Tcopy(H5T_C_S1);
        (void)H5Tset_size(type, H5T_VARIABLE);
        (void)H5Tset_cset(type, H5T_CSET_UTF8);
        return type;
    }
    return H5Tcopy(entry->kind == TL_STATE_INTEGER ? H5T_STD_I64LE : H5T_IEEE_F64LE);
}

static bool write_attribute(hid_t object, const char *name, const tl_state_entry *entry) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t type = value_type(entry);
    const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool written = false;
    if (attribute >= 0) {
        written = entry->kind == TL_STATE_STRING ? H5Awrite(attribute, type, &entry->string) >= 0
                  : entry->kind == TL_STATE_INTEGER
                      ? H5Awrite(attribute, H5T_NATIVE_INT64, &entry->integer) >= 0
                      : H5Awrite(attribute, H5T_NATIVE_DOUBLE, &entry->number) >= 0;
        written = H5Aclose(attribute) >= 0 && written;
    }
    (void)H5Tclose(type);
    (void)H5Sclose(space);
    return written;
}

/* The array or group at `path`; a group that is not there yet is made. */
static hid_t open_or_make(const writer *w, const char *path) {
    const hid_t object = H5Oopen(w->file, path, H5P_DEFAULT);
    return object >= 0 ? object
                       : H5Gcreate2(w->file, path, w->make_groups, H5P_DEFAULT, H5P_DEFAULT);
}

static bool write_value(const writer *w, const tl_state_entry *entry) {
    const char *slash = strrchr(entry->path, '/');
    char parent[TL_PATH_SIZE] = "/";
    if (slash != NULL) {
        memcpy(parent, entry->path, (size_t)(slash - entry->path));
        parent[slash - entry->path] = '\0';
    }
    const hid_t object = open_or_make(w, parent);
    if (object < 0) {
        return false;
    }
    const bool written = write_attribute(object, slash != NULL ? slash + 1 : entry->path, entry);
    return H5Oclose(object) >= 0 && written;
}

static bool is_our_own(const char *path) {
    return strcmp(path, "format") == 0 || strcmp(path, "version") == 0 ||
           strcmp(path, "library_version") == 0 || strcmp(path, "created") == 0;
}

static tl_status write_values(const writer *w) {
    for (int i = 0; i < tl_state_count(w->state); i++) {
        const tl_state_entry entry = tl_state_at(w->state, i);
        if (entry.kind != TL_STATE_ARRAY && !is_our_own(entry.path) && !write_value(w, &entry)) {
            return fail_at(w, "the value", entry.path);
        }
    }
    return TL_OK;
}

static tl_status write_our_own(const writer *w) {
    char created[sizeof "0000-00-00T00:00:00Z" + 16] = "";
    const time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL) {
        (void)strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
    const tl_state_entry entries[] = {
        {.path = "format", .kind = TL_STATE_STRING, .string = TL_CHECKPOINT_FORMAT},
        {.path = "version", .kind = TL_STATE_INTEGER, .integer = TL_CHECKPOINT_VERSION},
        {.path = "library_version", .kind = TL_STATE_STRING, .string = tl_version()},
        {.path = "created", .kind = TL_STATE_STRING, .string = created},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        if (!write_value(w, &entries[i])) {
            return fail_at(w, "the value", entries[i].path);
        }
    }
    return TL_OK;
}

/* ------------------------------------------------------------------ the image
 *
 * The file exists in memory only, and these callbacks make it our memory: it is still there when
 * the file has been closed. (H5Fget_file_image would copy it from the open file, and what it copies
 * at the 1.8 format has a superblock with a wrong checksum, because it clears a flag in there.)
 */

static void *image_allocate(size_t size, H5FD_file_image_op_t op, void *user) {
    (void)size;
    (void)op;
    (void)user;
    return NULL; /* there is no image to begin with */
}

static void *image_copy(void *to, const void *from, size_t size, H5FD_file_image_op_t op,
                        void *user) {
    (void)op;
    (void)user;
    return memcpy(to, from, size);
}

/* libhdf5 cannot close a file that it cannot write to, and would go on using our memory until the
 * program ends. So when the context refuses, the file goes on in plain memory, just far enough to
 * be closed: nothing more is put into it. */
static void *image_grow(void *data, size_t size, H5FD_file_image_op_t op, void *user) {
    (void)data;
    (void)op;
    tl_hdf5_image *image = user;
    if (size <= image->capacity) {
        return image->data;
    }
    size_t capacity = size > 2 * image->capacity ? size : 2 * image->capacity;
    unsigned char *grown = image->refused ? NULL
                                          : tl_memory_reallocate(image->context, image->data,
                                                                 image->capacity, capacity);
    if (grown == NULL) {
        capacity = size;
        grown = malloc(capacity);
        if (grown == NULL) {
            return NULL;
        }
        if (image->capacity > 0) {
            memcpy(grown, image->data, image->capacity);
        }
        tl_hdf5_image_clear(image);
        image->refused = true;
    }
    image->data = grown;
    image->capacity = capacity;
    return image->data;
}

static herr_t image_keep(void *data, H5FD_file_image_op_t op, void *user) {
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

static hid_t create_image_file(tl_hdf5_image *image) {
    H5FD_file_image_callbacks_t callbacks = {.image_malloc = image_allocate,
                                             .image_memcpy = image_copy,
                                             .image_realloc = image_grow,
                                             .image_free = image_keep,
                                             .udata_copy = image_share,
                                             .udata_free = image_unshare,
                                             .udata = image};
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    const hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    hid_t file = H5I_INVALID_HID;
#if H5_VERSION_GE(1, 10, 2)
    const H5F_libver_t bound = H5F_LIBVER_V18;
#else
    const H5F_libver_t bound = H5F_LIBVER_LATEST;
#endif
    if (H5Pset_fapl_core(access, MEMORY_INCREMENT, false) >= 0 &&
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_file_image_callbacks(access, &callbacks) >= 0 &&
        H5Pset_libver_bounds(access, bound, bound) >= 0 &&
        H5Pset_userblock(creation, TL_USER_BLOCK_SIZE) >= 0 &&
        H5Pset_istore_k(creation, CHUNK_TREE_RANK) >= 0) {
        char name[TL_HDF5_NAME_SIZE];
        file = H5Fcreate(tl_hdf5_new_name(name), H5F_ACC_TRUNC, creation, access);
    }
    (void)H5Pclose(creation);
    (void)H5Pclose(access);
    return file;
}

/* The length of a closed file: the end-of-file address in the superblock (version 2, as the format
 * bounds make it: HDF5 file format specification, section II.A). 0 if it makes no sense. */
static size_t closed_length(const tl_hdf5_image *image) {
    enum { VERSION_OFFSET = 8, OFFSET_SIZE_OFFSET = 9, END_OFFSET = 28, END_SIZE = 8 };
    const unsigned char *superblock = image->data + TL_USER_BLOCK_SIZE;
    if (image->capacity < TL_USER_BLOCK_SIZE + END_OFFSET + END_SIZE ||
        superblock[VERSION_OFFSET] < 2 || superblock[OFFSET_SIZE_OFFSET] != END_SIZE) {
        return 0;
    }
    uint64_t end = 0;
    for (int i = 0; i < END_SIZE; i++) {
        end |= (uint64_t)superblock[END_OFFSET + i] << (8 * i);
    }
    return end > TL_USER_BLOCK_SIZE && end <= image->capacity ? (size_t)end : 0;
}

static tl_status write_all(const writer *w) {
    TL_TRY(write_our_own(w));
    TL_TRY(write_arrays(w));
    return write_values(w);
}

static tl_status fail_image(const writer *w) {
    const tl_hdf5_image *image = w->image;
    if (image->refused) {
        return tl_memory_fail(image->context, w->error, "checkpoint: the file's content",
                              image->capacity);
    }
    return tl_fail(w->error, TL_ERROR_OUT_OF_MEMORY,
                   "checkpoint '" TL_SHOWN_PATH "': libhdf5 cannot build the file in memory",
                   w->path);
}

/* What the file will hardly exceed: arrays that deflate cannot make smaller, and headers. */
static size_t expected_bytes(const tl_state *state) {
    enum { PER_FILE = 16 << 10, PER_ENTRY = 2 << 10 };
    size_t total = PER_FILE;
    for (int i = 0; i < tl_state_count(state); i++) {
        const tl_state_entry entry = tl_state_at(state, i);
        if (entry.kind == TL_STATE_ARRAY) {
            size_t bytes = tl_element_size(entry.array.type);
            for (int d = 0; d < entry.array.rank; d++) {
                bytes *= (size_t)entry.array.shape[d];
            }
            total += bytes + bytes / 1024;
        }
        total += PER_ENTRY;
    }
    return total;
}

/* All memory that can be asked for beforehand is: libhdf5 does not get over a refusal. */
static tl_status prepare_image(tl_context *context, const tl_state *state, tl_hdf5_image *image,
                               tl_error *error) {
    const size_t expected = expected_bytes(state);
    const size_t increment = MEMORY_INCREMENT;
    const size_t capacity = (expected + increment - 1) / increment * increment;
    *image = (tl_hdf5_image){.context = context};
    image->data = tl_memory_allocate(context, capacity);
    if (image->data == NULL) {
        return tl_memory_fail(context, error, "checkpoint: the file's content", capacity);
    }
    image->capacity = capacity;
    return tl_hdf5_require_memory(error);
}

tl_status tl_hdf5_write(tl_context *context, const tl_state *state, tl_hdf5_image *image,
                        const char *path, tl_error *error) {
    TL_TRY(prepare_image(context, state, image, error));
    const tl_hdf5_quiet quiet = tl_hdf5_lock();
    writer w = {.state = state, .image = image, .path = path, .error = error};
    w.make_groups = H5Pcreate(H5P_LINK_CREATE);
    w.file = create_image_file(image);
    tl_status status;
    if (w.file >= 0 && H5Pset_create_intermediate_group(w.make_groups, 1) >= 0) {
        status = write_all(&w);
    } else {
        status = fail_image(&w);
    }
    const bool closed = w.file >= 0 && H5Fclose(w.file) >= 0;
    (void)H5Pclose(w.make_groups);
    if (status == TL_OK) {
        image->bytes = closed && !image->refused ? closed_length(image) : 0;
        status = image->bytes > 0 ? TL_OK : fail_image(&w);
    }
    tl_hdf5_unlock(quiet);
    return status;
}

void tl_hdf5_image_clear(tl_hdf5_image *image) {
    if (image->refused) {
        free(image->data);
    } else {
        tl_memory_release(image->context, image->data, image->capacity);
    }
    image->data = NULL;
    image->capacity = 0;
}
