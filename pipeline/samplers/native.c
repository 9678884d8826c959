/* The one loop of the samplers that numpy has no words for. Optional: pool.py does the same wherever this was
 * not compiled.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

/* What lies where a card was taken from. Places count from 1 here: 0 is an empty line of the table. */
typedef struct {
    uint64_t place;
    int64_t card;
} Moved;

/* The line of a place, or the empty one that would be its line. */
static Moved *line_of(Moved *table, size_t mask, int64_t place) {
    uint64_t wanted = (uint64_t)place + 1;
    size_t at = (size_t)(wanted * 0x9E3779B97F4A7C15u >> 32) & mask;
    while (table[at].place && table[at].place != wanted) at = (at + 1) & mask;
    return table + at;
}

/* Each place becomes the card that lies there, and the card on top takes its place. */
static bool deal_all(const int64_t *tops, int64_t *places, size_t count, Moved *table, size_t mask) {
    for (size_t at = 0; at < count; at++) {
        int64_t top = tops[at], place = places[at];
        if (top < 0 || place < 0) return false;
        const Moved *above = line_of(table, mask, top);
        int64_t next = above->place ? above->card : top;
        Moved *line = line_of(table, mask, place);
        if (line->place) places[at] = line->card;
        *line = (Moved){(uint64_t)place + 1, next};
    }
    return true;
}

PyDoc_STRVAR(deal_doc, "deal(tops, places)\n\n"
                       "Take the cards at `places` one by one, each time putting the one at the next of `tops` there.\n"
                       "At first every card lies at the place of its own number. Both are int64, as many and not\n"
                       "negative; `places` becomes the cards.");

static PyObject *deal(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer tops, places;
    if (!PyArg_ParseTuple(arguments, "y*w*", &tops, &places)) return NULL;
    size_t count = (size_t)tops.len / sizeof(int64_t), lines = 16;
    while (lines < 2 * count) lines *= 2; /* half of them stay empty */
    Moved *table = tops.len == places.len ? PyMem_Calloc(lines, sizeof *table) : NULL;
    if (tops.len != places.len)
        PyErr_Format(PyExc_ValueError, "%zd and %zd bytes are not as many numbers", tops.len, places.len);
    else if (!table)
        PyErr_NoMemory();
    else if (!deal_all(tops.buf, places.buf, count, table, lines - 1))
        PyErr_SetString(PyExc_ValueError, "a place is negative");
    PyMem_Free(table);
    PyBuffer_Release(&places);
    PyBuffer_Release(&tops);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"deal", deal, METH_VARARGS, deal_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "native", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit_native(void) { return PyModuleDef_Init(&definition); }
