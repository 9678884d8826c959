/* Whole pieces of a chunk without Python: read (or looked at where it is mapped), checked by crc32, decoded
 * into place. Optional: fill.py does the same, sample by sample, wherever this was not compiled.
 *
 * Nothing is judged here. A sample that is in any way unusual (a short read, another checksum, a libjpeg
 * warning, other dimensions, CMYK) is left alone and its position returned; Python then finds out what it is
 * and says so. So this file has one path, and no messages.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <jpeglib.h>
#include <isa-l/crc.h>

#ifndef LIBJPEG_TURBO_VERSION
#error "this is not libjpeg-turbo: other libraries make other pixels"
#endif

#define CHANNELS 3

typedef struct {
    Py_buffer mapped; /* the bytes of the whole file; .obj is NULL if it is read through fd */
    int fd;
    long long offset;
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
    size_t whole = (size_t)sample->mapped.len;
    if (sample->length > whole || (size_t)sample->offset > whole - sample->length) return NULL;
    return (const uint8_t *)sample->mapped.buf + sample->offset;
}

/* The verified bytes of a sample, in `scratch` if they have to be read; NULL if they are not sound. */
static const uint8_t *bytes_of(const Sample *sample, uint8_t *scratch) {
    const uint8_t *data = scratch;
    if (sample->mapped.obj)
        data = looked_at(sample);
    else if (pread(sample->fd, scratch, sample->length, sample->offset) != (ssize_t)sample->length)
        return NULL;
    return data && sound(data, sample) ? data : NULL;
}

/* What simplejpeg's strict decoding does. Each picture has a decompressor of its own, for one keeps tables
 * that a later, damaged picture may lack. Progressive ones are Python's: versions of the library smooth an
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
        if (!samples[at].mapped.obj && samples[at].length > longest) longest = samples[at].length;
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

/* Read straight into place, or copied there once; whether it is this header and as many pixels. */
static bool raw(const Sample *sample, const Py_buffer *header, uint8_t *lead, uint8_t *row, size_t pixels) {
    size_t before = (size_t)header->len;
    if (sample->length != before + pixels) return false;
    if (sample->mapped.obj) {
        const uint8_t *data = looked_at(sample);
        if (!data || memcmp(data, header->buf, before)) return false;
        memcpy(row, data + before, pixels);
    } else {
        struct iovec parts[] = {{lead, before}, {row, pixels}};
        ssize_t found = preadv(sample->fd, parts, 2, sample->offset);
        if (found != (ssize_t)sample->length || memcmp(lead, header->buf, before)) return false;
    }
    return crc32_gzip_refl(crc32_gzip_refl(0, header->buf, before), row, pixels) == sample->crc;
}

static bool fill_raw(Sample *samples, Py_ssize_t count, uint8_t *out, size_t pixels, const Py_buffer *header) {
    uint8_t *lead = malloc((size_t)header->len);
    if (!lead) return false;
    for (Py_ssize_t at = 0; at < count; at++, out += pixels)
        samples[at].done = raw(samples + at, header, lead, out, pixels);
    free(lead);
    return true;
}

/* A file's number, or its bytes. */
static int set_source(Sample *sample, PyObject *source) {
    sample->fd = -1;
    if (PyObject_CheckBuffer(source)) return PyObject_GetBuffer(source, &sample->mapped, PyBUF_SIMPLE);
    sample->fd = PyObject_AsFileDescriptor(source);
    return sample->fd < 0 ? -1 : 0;
}

static int set_place(Sample *sample, PyObject *offset, PyObject *length, PyObject *crc) {
    sample->offset = PyLong_AsLongLong(offset);
    sample->length = PyLong_AsSize_t(length);
    sample->crc = (uint32_t)PyLong_AsUnsignedLong(crc);
    if (PyErr_Occurred()) return -1;
    if (sample->offset >= 0) return 0;
    PyErr_SetString(PyExc_ValueError, "an offset is negative");
    return -1;
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

static PyObject *fill_samples(PyObject *sources, PyObject *columns[], Py_ssize_t begin, const Py_buffer *out,
                              unsigned size, const Py_buffer *header, bool fast) {
    Py_ssize_t count = PyList_GET_SIZE(sources), ready = 0;
    bool fits = size > 0 && size <= JPEG_MAX_DIMENSION && begin >= 0;
    size_t pixels = (size_t)size * size * CHANNELS;
    fits = fits && begin <= (Py_ssize_t)((size_t)out->len / pixels) - count;
    for (int column = 0; column < 3; column++) fits = fits && begin <= PyList_GET_SIZE(columns[column]) - count;
    if (!fits) return PyErr_Format(PyExc_ValueError, "%zd samples from %zd on do not fit", count, begin);
    Sample *samples = PyMem_Calloc((size_t)count, sizeof *samples);
    if (!samples) return PyErr_NoMemory();
    PyObject *left = NULL;
    bool enough = false;
    for (; ready < count; ready++) {
        PyObject *place[3];
        for (int column = 0; column < 3; column++) place[column] = PyList_GET_ITEM(columns[column], begin + ready);
        if (set_place(samples + ready, place[0], place[1], place[2])) goto end;
        if (set_source(samples + ready, PyList_GET_ITEM(sources, ready))) goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    uint8_t *first = (uint8_t *)out->buf + (size_t)begin * pixels;
    enough = header->len ? fill_raw(samples, count, first, pixels, header)
                         : fill_jpeg(samples, count, first, size, fast);
    Py_END_ALLOW_THREADS
    left = enough ? not_done(samples, count, begin) : PyErr_NoMemory();
end:
    for (Py_ssize_t at = 0; at < ready; at++) PyBuffer_Release(&samples[at].mapped);
    PyMem_Free(samples);
    return left;
}

PyDoc_STRVAR(fill_doc,
             "fill(sources, offsets, lengths, crcs, begin, out, size, header, fast) -> list[int]\n\n"
             "Pixels of the samples from position `begin` on, as many as there are sources, into their rows of\n"
             "`out`; returns the positions that were left alone. A source is a file (by fileno()) or a buffer\n"
             "with all bytes of one. `header`: what stands before raw pixels; empty for JPEG.");

static PyObject *fill(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *sources, *columns[3];
    Py_ssize_t begin;
    Py_buffer out, header;
    unsigned size;
    int fast;
    if (!PyArg_ParseTuple(arguments, "O!O!O!O!nw*Iy*p", &PyList_Type, &sources, &PyList_Type, &columns[0],
                          &PyList_Type, &columns[1], &PyList_Type, &columns[2], &begin, &out, &size, &header,
                          &fast))
        return NULL;
    PyObject *left = fill_samples(sources, columns, begin, &out, size, &header, fast != 0);
    PyBuffer_Release(&header);
    PyBuffer_Release(&out);
    return left;
}

static PyMethodDef methods[] = {{"fill", fill, METH_VARARGS, fill_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "native", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit_native(void) { return PyModuleDef_Init(&definition); }
