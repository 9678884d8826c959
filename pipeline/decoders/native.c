/* Decodes whole pieces of a chunk without Python: samples are read (or used where they are mapped), checked by
 * crc32 and decoded into place. Optional: fill.py does the same, sample by sample, where this was not compiled.
 *
 * No fault is reported here. A sample that is in any way unusual (a short read, another checksum, a libjpeg
 * warning, other dimensions, CMYK) is left alone and its position returned; Python then finds the fault and
 * words it. So this file has one path, and no messages.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <jpeglib.h>
#include <isa-l/crc.h>

#ifndef LIBJPEG_TURBO_VERSION
#error "this is not libjpeg-turbo: other libraries make other pixels"
#endif

#define CHANNELS 3
#define PAGE 4096
#define ASKED (8 * PAGE)

typedef struct { /* a line of SampleLocations.table */
    int64_t shard, offset, length, crc;
} Place;

typedef struct {
    int fd;
    Py_buffer mapped; /* all bytes of the file; .obj is NULL if it is read through fd */
    size_t whole;     /* how many of these bytes the file still has */
} Source;

typedef struct {
    const Source *source;
    off_t offset;
    size_t length;
    uint32_t crc;
    bool done;
} Sample;

typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf unusual;
} Errors;

static void give_up(j_common_ptr jpeg) { longjmp(((Errors *)jpeg->err)->unusual, 1); }

static void give_up_on_warnings(j_common_ptr jpeg, int level) {
    if (level < 0) give_up(jpeg);
}

static bool sound(const uint8_t *data, const Sample *sample) {
    return crc32_gzip_refl(0, data, sample->length) == sample->crc;
}

/* The bytes of a mapped sample; NULL if the file ends before. */
static const uint8_t *looked_at(const Sample *sample) {
    size_t whole = sample->source->whole;
    if (sample->length > whole || (size_t)sample->offset > whole - sample->length) return NULL;
    return (const uint8_t *)sample->source->mapped.buf + sample->offset;
}

/* The verified bytes of a sample, in `scratch` if they have to be read; NULL if they are not sound. */
static const uint8_t *bytes_of(const Sample *sample, uint8_t *scratch) {
    const uint8_t *data = scratch;
    if (sample->source->mapped.obj)
        data = looked_at(sample);
    else if (pread(sample->source->fd, scratch, sample->length, sample->offset) != (ssize_t)sample->length)
        return NULL;
    return data && sound(data, sample) ? data : NULL;
}

/* What simplejpeg's strict decoding does. Each image has a decompressor of its own, since one keeps tables
 * that a later, damaged image may lack. Progressive ones are Python's: versions of the library smooth an
 * incomplete one differently. */
static bool decode(const uint8_t *data, size_t length, uint8_t *out, JSAMPROW *lines, JDIMENSION size, bool fast) {
    struct jpeg_decompress_struct jpeg = {0};
    Errors errors;
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = give_up;
    errors.base.emit_message = give_up_on_warnings;
    if (setjmp(errors.unusual)) {
        jpeg_destroy_decompress(&jpeg);
        return false;
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, data, length);
    jpeg_read_header(&jpeg, TRUE);
    bool square = jpeg.image_width == size && jpeg.image_height == size;
    J_COLOR_SPACE space = jpeg.jpeg_color_space;
    bool known = space == JCS_YCbCr || space == JCS_GRAYSCALE || space == JCS_RGB;
    if (!square || !known || jpeg.progressive_mode) give_up((j_common_ptr)&jpeg);
    jpeg.out_color_space = JCS_RGB;
    if (fast) {
        jpeg.do_fancy_upsampling = FALSE;
        jpeg.dct_method = JDCT_FASTEST;
    }
    jpeg_start_decompress(&jpeg);
    for (JDIMENSION y = 0; y < size; y++) lines[y] = out + (size_t)y * size * CHANNELS;
    while (jpeg.output_scanline < size)
        jpeg_read_scanlines(&jpeg, lines + jpeg.output_scanline, size - jpeg.output_scanline);
    jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    return true;
}

static bool fill_jpeg(Sample *samples, Py_ssize_t count, uint8_t *out, JDIMENSION size, bool fast) {
    size_t longest = 1;
    for (Py_ssize_t at = 0; at < count; at++)
        if (samples[at].length > longest) longest = samples[at].length;
    uint8_t *scratch = malloc(longest);
    JSAMPROW *lines = malloc(size * sizeof *lines);
    bool enough = scratch && lines;
    for (Py_ssize_t at = 0; enough && at < count; at++, out += (size_t)size * size * CHANNELS) {
        const uint8_t *data = bytes_of(samples + at, scratch);
        samples[at].done = data && decode(data, samples[at].length, out, lines, size, fast);
    }
    free(lines);
    free(scratch);
    return enough;
}

/* Reads pixels straight into place, or copies them there once. Returns whether they and their header are sound. */
static bool raw(const Sample *sample, const Py_buffer *header, uint8_t *lead, uint8_t *row, size_t pixels) {
    size_t before = (size_t)header->len;
    if (sample->length != before + pixels) return false;
    if (sample->source->mapped.obj) {
        const uint8_t *data = looked_at(sample);
        if (!data || memcmp(data, header->buf, before)) return false;
        memcpy(row, data + before, pixels);
    } else {
        struct iovec parts[] = {{lead, before}, {row, pixels}};
        ssize_t found = preadv(sample->source->fd, parts, 2, sample->offset);
        if (found != (ssize_t)sample->length || memcmp(lead, header->buf, before)) return false;
    }
    return crc32_gzip_refl(crc32_gzip_refl(0, header->buf, before), row, pixels) == sample->crc;
}

/* The processor reads on by itself, but not from one page into the next: where the first pages of a sample
 * begin is on its way to the caches while the sample before it is copied. Larger ones gain nothing.
 * Inline, since GCC takes a function that only prefetches to do nothing and drops its calls. */
__attribute__((always_inline)) static inline void ask_for(const Sample *sample) {
    const uint8_t *data = sample->source->mapped.obj ? looked_at(sample) : NULL;
    if (!data) return;
    __builtin_prefetch(data);
    size_t most = sample->length < ASKED ? sample->length : ASKED;
    for (size_t at = PAGE - (uintptr_t)data % PAGE; at < most; at += PAGE) __builtin_prefetch(data + at);
}

static bool fill_raw(Sample *samples, Py_ssize_t count, uint8_t *out, size_t pixels, const Py_buffer *header) {
    uint8_t *lead = malloc((size_t)header->len);
    if (!lead) return false;
    for (Py_ssize_t at = 0; at < count; at++, out += pixels) {
        if (at + 1 < count) ask_for(samples + at + 1);
        samples[at].done = raw(samples + at, header, lead, out, pixels);
    }
    free(lead);
    return true;
}

/* The samples of a call, and the buffers that it holds until the end. */
typedef struct {
    Py_ssize_t count, opened;
    Sample *samples;
    Source *sources; /* as many as there may be at most */
} Piece;

static int open_source(Piece *piece, PyObject *files, int64_t shard) {
    PyObject *number = PyLong_FromLongLong(shard);
    PyObject *file = number ? PyDict_GetItemWithError(files, number) : NULL;
    Source *source = piece->sources + piece->opened;
    if (!file && !PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, number);
    Py_XDECREF(number);
    if (!file) return -1;
    bool mapped = PyTuple_Check(file) && PyTuple_GET_SIZE(file) == 2;
    if ((source->fd = PyObject_AsFileDescriptor(mapped ? PyTuple_GET_ITEM(file, 0) : file)) < 0) return -1;
    if (mapped && PyObject_GetBuffer(PyTuple_GET_ITEM(file, 1), &source->mapped, PyBUF_SIMPLE)) return -1;
    piece->opened++;
    return 0;
}

/* Neighbours of one shard share its source; samples come in the order in which they are stored. */
static int open_piece(Piece *piece, PyObject *files, const Place *places) {
    for (Py_ssize_t at = 0; at < piece->count; at++) {
        const Place *place = places + at;
        if ((!at || place->shard != place[-1].shard) && open_source(piece, files, place->shard)) return -1;
        bool possible = place->offset >= 0 && place->length >= 0;
        Sample *sample = piece->samples + at;
        sample->source = piece->sources + piece->opened - 1;
        sample->offset = possible ? place->offset : 0;
        sample->length = possible ? (size_t)place->length : 0; /* which no image has */
        sample->crc = (uint32_t)place->crc;
    }
    return 0;
}

/* Reading what a mapped file no longer has would end the process. */
static void measure(Piece *piece) {
    for (Source *source = piece->sources; source < piece->sources + piece->opened; source++) {
        struct stat now;
        if (!source->mapped.obj || fstat(source->fd, &now)) continue;
        source->whole = now.st_size < source->mapped.len ? (size_t)now.st_size : (size_t)source->mapped.len;
    }
}

static void close_piece(Piece *piece) {
    for (Py_ssize_t at = 0; at < piece->opened; at++) PyBuffer_Release(&piece->sources[at].mapped);
    PyMem_Free(piece->sources);
    PyMem_Free(piece->samples);
}

static PyObject *not_done(const Sample *samples, Py_ssize_t count, Py_ssize_t begin) {
    PyObject *positions = PyList_New(0);
    for (Py_ssize_t at = 0; positions && at < count; at++) {
        if (samples[at].done) continue;
        PyObject *position = PyLong_FromSsize_t(begin + at);
        if (!position || PyList_Append(positions, position)) Py_CLEAR(positions);
        Py_XDECREF(position);
    }
    return positions;
}

static PyObject *fill_piece(PyObject *files, const Py_buffer *places, Py_ssize_t begin, Py_ssize_t end,
                            const Py_buffer *out, unsigned size, const Py_buffer *header, bool fast) {
    bool fits = size > 0 && size <= JPEG_MAX_DIMENSION && begin >= 0 && begin <= end;
    size_t pixels = (size_t)size * size * CHANNELS;
    fits = fits && (size_t)end <= (size_t)out->len / pixels;
    fits = fits && (size_t)end <= (size_t)places->len / sizeof(Place);
    if (!fits) return PyErr_Format(PyExc_ValueError, "samples %zd to %zd do not fit", begin, end);
    Piece piece = {.count = end - begin};
    piece.samples = PyMem_Calloc((size_t)piece.count, sizeof *piece.samples);
    piece.sources = PyMem_Calloc((size_t)piece.count, sizeof *piece.sources);
    PyObject *left = NULL;
    if (!piece.samples || !piece.sources) {
        PyErr_NoMemory();
    } else if (!open_piece(&piece, files, (const Place *)places->buf + begin)) {
        bool enough;
        Py_BEGIN_ALLOW_THREADS
        measure(&piece);
        uint8_t *first = (uint8_t *)out->buf + (size_t)begin * pixels;
        enough = header->len ? fill_raw(piece.samples, piece.count, first, pixels, header)
                             : fill_jpeg(piece.samples, piece.count, first, size, fast);
        Py_END_ALLOW_THREADS
        left = enough ? not_done(piece.samples, piece.count, begin) : PyErr_NoMemory();
    }
    close_piece(&piece);
    return left;
}

PyDoc_STRVAR(fill_doc,
             "fill(files, places, begin, end, out, size, header, fast) -> list[int]\n\n"
             "Pixels of the samples `begin` up to `end` into their rows of `out`; returns the positions that\n"
             "were left alone. `files`: by shard, something with fileno(), or that and a buffer with all its bytes.\n"
             "`places`: of each sample, as int64: shard, offset, length, crc32. `header`: what stands before\n"
             "raw pixels; empty for JPEG.");

static PyObject *fill(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *files;
    Py_ssize_t begin, end;
    Py_buffer places, out, header;
    unsigned size;
    int fast;
    if (!PyArg_ParseTuple(arguments, "O!y*nnw*Iy*p", &PyDict_Type, &files, &places, &begin, &end, &out, &size,
                          &header, &fast))
        return NULL;
    PyObject *left = fill_piece(files, &places, begin, end, &out, size, &header, fast != 0);
    PyBuffer_Release(&header);
    PyBuffer_Release(&out);
    PyBuffer_Release(&places);
    return left;
}

static PyMethodDef methods[] = {{"fill", fill, METH_VARARGS, fill_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "native", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit_native(void) { return PyModuleDef_Init(&definition); }
