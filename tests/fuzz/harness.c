/* libFuzzer around a target written in Python (targets.py): what is fuzzed is the core, whose
 * modules are compiled with coverage. An exception of the target is a finding.
 *
 * RISKD_FUZZ_PYTHON is the interpreter whose packages are used, RISKD_FUZZ_TARGET the function.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

static PyObject *target;

static void fail(void) {
    if (PyErr_Occurred()) {
        PyErr_Print();
    }
    abort();
}

int LLVMFuzzerInitialize(int *count, char ***words) {
    PyConfig config;
    (void)count, (void)words;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    const char *python = getenv("RISKD_FUZZ_PYTHON");
    const char *name = getenv("RISKD_FUZZ_TARGET");
    if (!python || !name ||
        PyStatus_Exception(PyConfig_SetBytesString(&config, &config.executable, python)) ||
        PyStatus_Exception(Py_InitializeFromConfig(&config))) {
        abort();
    }
    PyConfig_Clear(&config);
    PyObject *module = PyImport_ImportModule("tests.fuzz.targets");
    target = module ? PyObject_GetAttrString(module, name) : NULL;
    if (!target) {
        fail();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *start, size_t size) {
    PyObject *result = PyObject_CallFunction(target, "y#", (const char *)start, (Py_ssize_t)size);
    if (!result) {
        fail();
    }
    Py_DECREF(result);
    return 0;
}
