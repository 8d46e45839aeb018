/* Loaded into tritonserver 24.10 with LD_PRELOAD: refuses what its Python backend does not survive or ignores.

   tritonserver's front ends pass every input of a request to TRITONSERVER_InferenceRequestAddInput. Neither they nor the
   core check the lengths of free axes, and a Python model's process ends when numpy refuses a shape: with negative
   axes, or with a product beyond 64 bits. This library stands before that function, and before those that set a
   request's priority and timeout, whose values out of range Triton takes for others.

   It also bounds the answer of a request for frames, which is many times as large as the request: one of 12 MB could
   ask for terabytes. Of our models, the Python backend's program checks that too; ONNX Runtime and libtorch do not.

   It also keeps what passes between the server's processes in shared memory from other users: the Python backend makes
   its files readable for all of them, whatever the umask.

   And it keeps secrets out of the list of processes, where every user reads the words of a command: a word that ends
   with =@NAME gets the value of the environment variable NAME instead, before the server reads it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INVALID_ARGUMENT 3          /* TRITONSERVER_ERROR_INVALID_ARG */
#define MAX_ELEMENTS (1LL << 40)    /* of one tensor */
#define MAX_ANSWER (1LL << 26)      /* elements of all frames; contract.MAX_PIXELS of RGB is 0.75 of it */
#define MAX_PRIORITY 2              /* 1 is urgent, 2 is not; 0 is the model's default */
#define MAX_TIMEOUT_US 1000000000000 /* eleven days; clients send no more */

typedef void* (*add_input_function)(void*, const char*, int, const int64_t*, uint64_t);
typedef void* (*new_function)(void**, void*, const char*, int64_t);
typedef void* (*set_number_function)(void*, uint64_t);

__attribute__((weak)) void* TRITONSERVER_ErrorNew(int code, const char* message);

/* Of the request that this thread makes: elements of a picture, or of its features, times their batch; and frames of
   each. A front end makes a request and adds all its inputs in one thread. */
static __thread int64_t picture = 1, frames = 1;

void* TRITONSERVER_InferenceRequestNew(void** request, void* server, const char* model, int64_t version)
{
    picture = frames = 1;
    return ((new_function)dlsym(RTLD_NEXT, "TRITONSERVER_InferenceRequestNew"))(request, server, model, version);
}

static int answer_is_too_large(const char* name, const int64_t* shape, uint64_t dim_count, int64_t elements)
{
    int64_t second = dim_count > 1 && shape[1] > 0 ? shape[1] : 1;
    if (!strcmp(name, "SOURCE") || !strcmp(name, "IMAGE")) picture = elements;
    if (!strcmp(name, "PICTURES") || !strcmp(name, "CORNERS")) picture = elements / second;
    if (!strcmp(name, "STRENGTHS") || !strcmp(name, "STEPS") || !strcmp(name, "PLACES")) frames = second;
    return picture > MAX_ANSWER / frames;
}

void* TRITONSERVER_InferenceRequestAddInput(
    void* request, const char* name, int datatype, const int64_t* shape, uint64_t dim_count)
{
    static add_input_function next;
    if (!next) next = (add_input_function)dlsym(RTLD_NEXT, "TRITONSERVER_InferenceRequestAddInput");
    int64_t elements = 1;
    for (uint64_t i = 0; i < dim_count; ++i) {
        int64_t length = shape[i] > 0 ? shape[i] : 1;
        if (shape[i] < 0 || length > MAX_ELEMENTS / elements) {
            char message[256];
            snprintf(message, sizeof message, "%.100s: axis %llu cannot have length %lld%s", name,
                (unsigned long long)i, (long long)shape[i],
                shape[i] < 0 ? "" : ": the tensor would have too many elements");
            return TRITONSERVER_ErrorNew(INVALID_ARGUMENT, message);
        }
        elements *= length;
    }
    if (answer_is_too_large(name, shape, dim_count, elements))
        return TRITONSERVER_ErrorNew(INVALID_ARGUMENT, "too many frames for their size: ask for fewer at once");
    return next(request, name, datatype, shape, dim_count);
}

static void* checked(const char* function, void* request, uint64_t value, uint64_t maximum, const char* message)
{
    if (value > maximum) return TRITONSERVER_ErrorNew(INVALID_ARGUMENT, message);
    return ((set_number_function)dlsym(RTLD_NEXT, function))(request, value);
}

void* TRITONSERVER_InferenceRequestSetPriorityUInt64(void* request, uint64_t priority)
{
    return checked("TRITONSERVER_InferenceRequestSetPriorityUInt64", request, priority, MAX_PRIORITY,
        "priority must be 1 (urgent) or 2, or 0 for the model's own");
}

void* TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(void* request, uint64_t timeout_us)
{
    return checked("TRITONSERVER_InferenceRequestSetTimeoutMicroseconds", request, timeout_us, MAX_TIMEOUT_US,
        "timeout must be from 0 (none) to 10^12 microseconds");
}

int fchmod(int file, mode_t mode)
{
    return ((int (*)(int, mode_t))dlsym(RTLD_NEXT, "fchmod"))(file, mode & ~077u);
}

__attribute__((constructor)) static void fill_in_secrets(int argc, char** argv)
{
    for (int i = 1; i < argc; ++i) {
        char* mark = strstr(argv[i], "=@");
        const char* secret = mark ? getenv(mark + 2) : NULL;
        if (!secret) continue;
        size_t kept = (size_t)(mark + 1 - argv[i]);
        char* word = malloc(kept + strlen(secret) + 1); /* for as long as the process runs */
        memcpy(word, argv[i], kept);
        strcpy(word + kept, secret);
        argv[i] = word;
    }
}
