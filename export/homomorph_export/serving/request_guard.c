/* Loaded into tritonserver 24.10 with LD_PRELOAD: refuses what its Python backend does not survive or ignores.

   tritonserver's front ends pass every input of a request to TRITONSERVER_InferenceRequestAddInput. Neither they nor the
   core check the lengths of free axes, and a Python model's process ends when numpy refuses a shape: with negative
   axes, or with a product beyond 64 bits. This library stands before that function, and before those that set a
   request's priority and timeout, whose values out of range Triton takes for others. A request with very many inputs is
   refused too: Triton's time for it grows with their square, and two such requests block all others.

   It also checks a request against the limits of its model, which an export writes into the parameter `checks` of every
   configuration: lengths of axes, equal lengths, the pixels of the answer, and ranges of values. Of Triton's backends, only
   ours in Python checks these; ONNX Runtime and libtorch check nothing. A configuration without that parameter is another
   program's, or an old export's. Then only the size of the answer is bounded, by the names of the inputs: a request of
   12 MB could ask for terabytes of frames.

   It also keeps what passes between the server's processes in shared memory from other users: the Python backend makes
   its files readable for all of them, whatever the umask.

   And it keeps secrets out of the list of processes, where every user reads the words of a command: a word that ends
   with =@NAME gets the value of the environment variable NAME instead, before the server reads it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define INVALID_ARGUMENT 3          /* TRITONSERVER_ERROR_INVALID_ARG */
#define TYPE_INT64 9                /* TRITONSERVER_DataType */
#define TYPE_FP32 11
#define MEMORY_GPU 2                /* TRITONSERVER_MemoryType */
#define MAX_ELEMENTS (1LL << 40)    /* of one tensor */
#define MAX_ANSWER (1LL << 26)      /* elements of all frames; contract.MAX_PIXELS of RGB is 0.75 of it */
#define MAX_INPUTS 1024             /* a model has one for each group, and a few more */
#define MAX_PRIORITY 2              /* 1 is urgent, 2 is not; 0 is the model's default */
#define MAX_TIMEOUT_US 1000000000000 /* eleven days; clients send no more */

typedef void* (*add_input_function)(void*, const char*, int, const int64_t*, uint64_t);
typedef void* (*append_function)(void*, const char*, const void*, size_t, int, int64_t);
typedef void* (*append_attributes_function)(void*, const char*, const void*, void*);
typedef void* (*new_function)(void**, void*, const char*, int64_t);
typedef void* (*set_number_function)(void*, uint64_t);

__attribute__((weak)) void* TRITONSERVER_ErrorNew(int code, const char* message);
__attribute__((weak)) void TRITONSERVER_ErrorDelete(void* error);
__attribute__((weak)) void* TRITONSERVER_ServerModelConfig(void*, const char*, int64_t, uint32_t, void** message);
__attribute__((weak)) void* TRITONSERVER_MessageSerializeToJson(void* message, const char** text, size_t* size);
__attribute__((weak)) void* TRITONSERVER_MessageDelete(void* message);
__attribute__((weak)) void* TRITONSERVER_BufferAttributesMemoryType(void* attributes, int* type);
__attribute__((weak)) void* TRITONSERVER_BufferAttributesByteSize(void* attributes, size_t* size);

static void* refusal(const char* format, ...)
{
    char message[512];
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    return TRITONSERVER_ErrorNew(INVALID_ARGUMENT, message);
}

/* ---- Reading JSON that Triton or an export wrote. Other text gives no member, and does no harm. ---- */

#define SPACE " \t\r\n,:"

static const char* after_space(const char* at)
{
    return at + strspn(at, SPACE);
}

/* Return the end of the value that begins here. */
static const char* after_value(const char* at)
{
    int depth = 0;
    do {
        at = after_space(at);
        if (*at == '"') {
            for (++at; *at && *at != '"'; ++at)
                if (*at == '\\' && at[1]) ++at;
            if (*at) ++at;
        } else if (*at == '{' || *at == '[') {
            ++depth;
            ++at;
        } else if (*at == '}' || *at == ']') {
            --depth;
            ++at;
        } else {
            at += strcspn(at, SPACE "{}[]\"");
        }
    } while (depth > 0 && *at);
    return at;
}

/* Return the value of an object's member, or NULL. */
static const char* member(const char* object, const char* name)
{
    if (!object || *object != '{') return NULL;
    size_t length = strlen(name);
    const char* at = after_space(object + 1);
    while (*at == '"') {
        const char* end = after_value(at);
        const char* value = after_space(end);
        if ((size_t)(end - at) == length + 2 && !memcmp(at + 1, name, length)) return value;
        at = after_space(after_value(value));
    }
    return NULL;
}

/* Read the numbers that begin an array; return whether there are so many. */
static int read_numbers(const char* array, double* numbers, int count)
{
    if (!array || *array != '[') return 0;
    const char* at = array + 1;
    for (int i = 0; i < count; ++i) {
        char* end;
        numbers[i] = strtod(at = after_space(at), &end);
        if (end == at) return 0;
        at = end;
    }
    return 1;
}

/* Return a string's text, to be freed. JSON in a string has only quotes and backslashes escaped. */
static char* unescaped(const char* string)
{
    if (!string || *string != '"') return NULL;
    char* text = malloc(strlen(string));
    size_t size = 0;
    for (const char* at = string + 1; text && *at && *at != '"'; ++at) {
        if (*at == '\\' && at[1]) ++at;
        text[size++] = *at;
    }
    if (text) text[size] = '\0';
    return text;
}

/* ---- A model's limits. ---- */

#define CHECKS_LAST_S 1 /* then they are read again: a new version may have others */

static __thread struct {
    void* server;
    char model[256];
    int64_t version;
    time_t read_s;
    char* checks;
} known;

/* Return the parameter `checks` of a model's configuration, to be freed; NULL if it has none. */
static char* read_checks(void* server, const char* model, int64_t version)
{
    void* message = NULL;
    void* error = TRITONSERVER_ServerModelConfig(server, model, version, 1, &message);
    if (error) { /* there is no such model */
        TRITONSERVER_ErrorDelete(error);
        return NULL;
    }
    const char* text;
    size_t size;
    char* checks = NULL;
    error = TRITONSERVER_MessageSerializeToJson(message, &text, &size);
    if (error) {
        TRITONSERVER_ErrorDelete(error);
    } else {
        char* config = strndup(text, size);
        checks = unescaped(member(member(member(config, "parameters"), "checks"), "string_value"));
        free(config);
    }
    TRITONSERVER_MessageDelete(message);
    return checks;
}

/* Return the same without reading it again for each request; it stays valid until the next call in this thread. */
static const char* model_checks(void* server, const char* model, int64_t version)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int same = known.server == server && known.version == version && !strcmp(known.model, model);
    if (!same || now.tv_sec - known.read_s >= CHECKS_LAST_S) {
        free(known.checks);
        known.checks = read_checks(server, model, version);
        known.server = strlen(model) < sizeof known.model ? server : NULL; /* a name that is cut is not known again */
        snprintf(known.model, sizeof known.model, "%s", model);
        known.version = version;
        known.read_s = now.tv_sec;
    }
    return known.checks;
}

/* ---- The request that this thread makes. A front end makes a request and adds all its inputs in one thread. ---- */

#define NAME_SIZE 100
#define AXES 128 /* an axis has a letter */
#define MAX_RANGES 8

struct range {
    char input[NAME_SIZE];
    int type;
    double low, high;
    unsigned char rest[8]; /* of a value whose end comes in the next buffer */
    size_t rest_size;
};

static __thread struct {
    void* self;
    const char* checks;
    int64_t lengths[AXES];        /* of the axes that are known; -1 for the others */
    char inputs[AXES][NAME_SIZE]; /* the first input with each axis */
    int64_t batch;
    int input_count;
    struct range ranges[MAX_RANGES]; /* inputs whose values have limits */
    int range_count;
    int64_t picture, frames; /* without `checks`: elements of a picture, or of its features, times batch; and frames of each */
} request_now;

void* TRITONSERVER_InferenceRequestNew(void** request, void* server, const char* model, int64_t version)
{
    static new_function next;
    if (!next) next = (new_function)dlsym(RTLD_NEXT, "TRITONSERVER_InferenceRequestNew");
    void* error = next(request, server, model, version);
    request_now.self = error ? NULL : *request;
    request_now.checks = error ? NULL : model_checks(server, model, version);
    memset(request_now.lengths, -1, sizeof request_now.lengths);
    request_now.batch = request_now.picture = request_now.frames = 1;
    request_now.range_count = request_now.input_count = 0;
    return error;
}

static void* check_axis(const char* input, char axis, int64_t length)
{
    const char letter[] = {axis, '\0'};
    double limits[3]; /* minimum, maximum, multiple of */
    int index = axis & (AXES - 1);
    if (!read_numbers(member(member(request_now.checks, "axes"), letter), limits, 3)) return NULL;
    int64_t minimum = (int64_t)limits[0], maximum = (int64_t)limits[1], multiple_of = (int64_t)limits[2];
    if (length < minimum || length > maximum || (multiple_of > 1 && length % multiple_of)) {
        char kind[64] = "";
        if (multiple_of > 1) snprintf(kind, sizeof kind, "a multiple of %lld ", (long long)multiple_of);
        return refusal("%.100s: %c must be %sfrom %lld to %lld, not %lld", input, axis, kind, (long long)minimum,
            (long long)maximum, (long long)length);
    }
    if (request_now.lengths[index] < 0) {
        request_now.lengths[index] = length;
        snprintf(request_now.inputs[index], NAME_SIZE, "%s", input);
    } else if (request_now.lengths[index] != length) {
        return refusal("%.100s: %c must be %lld as in %s, not %lld", input, axis,
            (long long)request_now.lengths[index], request_now.inputs[index], (long long)length);
    }
    return NULL;
}

/* Check the pixels of all frames or pictures, once the lengths of their axes are known. */
static void* check_pixels(void)
{
    const char* pixels = member(request_now.checks, "pixels");
    const char* axes = member(pixels, "axes");
    if (!axes || *axes != '[') return NULL;
    double stride = strtod(member(pixels, "stride") ? member(pixels, "stride") : "1", NULL);
    double maximum = strtod(member(pixels, "maximum") ? member(pixels, "maximum") : "0", NULL);
    double count = (double)request_now.batch, sides[2] = {1, 1};
    char first = '\0';
    for (const char* at = after_space(axes + 1); *at == '"' && at[1]; at = after_space(after_value(at))) {
        int64_t length = request_now.lengths[at[1] & (AXES - 1)];
        if (length < 0) return NULL;
        if (!first) first = at[1];
        count *= sides[0]; /* the last two axes are height and width; those before count */
        sides[0] = sides[1];
        sides[1] = (double)length;
    }
    double height = sides[0] * stride, width = sides[1] * stride;
    if (!first || count * height * width <= maximum) return NULL;
    return refusal("%s: too many %s for their size: %.0f of %.0fx%.0f pixels are %.0f pixels, not at most %.0f",
        request_now.inputs[first & (AXES - 1)], first == 'S' ? "frames" : "pictures", count, height, width,
        count * height * width, maximum);
}

static void* check_shape(const char* input, int type, const int64_t* shape, uint64_t dim_count)
{
    const char* dims = member(member(request_now.checks, "dims"), input);
    if (!dims || *dims != '[') return NULL; /* Triton refuses inputs that the model does not have */
    if (dim_count && shape[0] > request_now.batch) request_now.batch = shape[0];
    uint64_t axis = 1; /* behind the batch */
    for (const char* at = after_space(dims + 1); *at && *at != ']'; at = after_space(after_value(at)), ++axis) {
        if (axis >= dim_count) return NULL; /* Triton refuses other numbers of axes */
        void* error = *at == '"' ? check_axis(input, at[1], shape[axis]) : NULL;
        if (error) return error;
    }
    double limits[2];
    if (read_numbers(member(member(request_now.checks, "ranges"), input), limits, 2)) {
        if (request_now.range_count == MAX_RANGES || strlen(input) >= NAME_SIZE) return refusal("too many inputs");
        struct range* range = &request_now.ranges[request_now.range_count++];
        snprintf(range->input, NAME_SIZE, "%s", input);
        range->type = type;
        range->low = limits[0];
        range->high = limits[1];
        range->rest_size = 0;
    }
    return check_pixels();
}

/* Check values that come in one buffer or in several. Triton refuses inputs of other types. */
static void* check_values(void* request, const char* input, const unsigned char* bytes, size_t size, int memory)
{
    struct range* range = NULL;
    for (int i = 0; request == request_now.self && i < request_now.range_count; ++i)
        if (!strcmp(request_now.ranges[i].input, input)) range = &request_now.ranges[i];
    size_t width = !range ? 0 : range->type == TYPE_FP32 ? 4 : range->type == TYPE_INT64 ? 8 : 0;
    if (!width || memory == MEMORY_GPU || !bytes) return NULL;
    while (size) {
        size_t taken = width - range->rest_size;
        if (taken > size) taken = size;
        memcpy(range->rest + range->rest_size, bytes, taken);
        range->rest_size += taken;
        bytes += taken;
        size -= taken;
        if (range->rest_size < width) break;
        range->rest_size = 0;
        double value;
        if (range->type == TYPE_FP32) {
            float number;
            memcpy(&number, range->rest, sizeof number);
            value = number;
        } else {
            int64_t number;
            memcpy(&number, range->rest, sizeof number);
            value = (double)number;
        }
        if (!(value >= range->low && value <= range->high)) /* NaN is neither */
            return refusal("%s: every value must be a number from %g to %g, not %g", input, range->low, range->high,
                isnan(value) ? fabs(value) : value);
    }
    return NULL;
}

/* Without the model's limits: whether the answer would be too large, by the names of our inputs. */
static int answer_is_too_large(const char* name, const int64_t* shape, uint64_t dim_count, int64_t elements)
{
    int64_t second = dim_count > 1 && shape[1] > 0 ? shape[1] : 1;
    if (!strcmp(name, "SOURCE") || !strcmp(name, "IMAGE")) request_now.picture = elements;
    if (!strcmp(name, "PICTURES") || !strcmp(name, "CORNERS")) request_now.picture = elements / second;
    if (!strcmp(name, "STRENGTHS") || !strcmp(name, "STEPS") || !strcmp(name, "PLACES")) request_now.frames = second;
    return request_now.picture > MAX_ANSWER / request_now.frames;
}

void* TRITONSERVER_InferenceRequestAddInput(
    void* request, const char* name, int datatype, const int64_t* shape, uint64_t dim_count)
{
    static add_input_function next;
    if (!next) next = (add_input_function)dlsym(RTLD_NEXT, "TRITONSERVER_InferenceRequestAddInput");
    if (request == request_now.self && ++request_now.input_count > MAX_INPUTS)
        return refusal("a request has at most %d inputs", MAX_INPUTS);
    int64_t elements = 1;
    for (uint64_t i = 0; i < dim_count; ++i) {
        int64_t length = shape[i] > 0 ? shape[i] : 1;
        if (shape[i] < 0 || length > MAX_ELEMENTS / elements)
            return refusal("%.100s: axis %llu cannot have length %lld%s", name, (unsigned long long)i,
                (long long)shape[i], shape[i] < 0 ? "" : ": the tensor would have too many elements");
        elements *= length;
    }
    if (request == request_now.self && request_now.checks) {
        void* error = check_shape(name, datatype, shape, dim_count);
        if (error) return error;
    } else if (answer_is_too_large(name, shape, dim_count, elements)) {
        return refusal("too many frames for their size: ask for fewer at once");
    }
    return next(request, name, datatype, shape, dim_count);
}

void* TRITONSERVER_InferenceRequestAppendInputData(
    void* request, const char* name, const void* base, size_t size, int memory, int64_t memory_id)
{
    static append_function next;
    if (!next) next = (append_function)dlsym(RTLD_NEXT, "TRITONSERVER_InferenceRequestAppendInputData");
    void* error = check_values(request, name, base, size, memory);
    return error ? error : next(request, name, base, size, memory, memory_id);
}

void* TRITONSERVER_InferenceRequestAppendInputDataWithBufferAttributes(
    void* request, const char* name, const void* base, void* attributes)
{
    static append_attributes_function next;
    if (!next)
        next = (append_attributes_function)dlsym(
            RTLD_NEXT, "TRITONSERVER_InferenceRequestAppendInputDataWithBufferAttributes");
    int memory = MEMORY_GPU;
    size_t size = 0;
    TRITONSERVER_BufferAttributesMemoryType(attributes, &memory);
    TRITONSERVER_BufferAttributesByteSize(attributes, &size);
    void* error = check_values(request, name, base, size, memory);
    return error ? error : next(request, name, base, attributes);
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
