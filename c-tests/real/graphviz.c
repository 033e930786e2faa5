/* Graphviz as a library: each graph has a store of its own, into which the host writes the text,
 * and whose exports it calls on fibers: malloc, then the render function, all graphs at once. */
#include "real.h"

/* Exports: malloc and free; graphviz_render(text, format, layout, length *) gives the address of
 * the result or 0; graphviz_last_error() that of a text; graphviz_free(result). */
typedef struct library {
  wasmtime_store_t *store; /* alone; or else */
  bop_store_t *handle;     /* on fibers */
  wasmtime_memory_t memory;
  wasmtime_func_t allocate, render, release, last_error;
} library;

typedef struct graph {
  const char *layout;
  int nodes;
  char *text;
  library library;
  int32_t at[4]; /* the arguments of render */
  bop_fiber_t *fiber;
  real_bytes alone, svg;
} graph;

static graph graphs[] = {
    {.layout = "dot", .nodes = 60},  {.layout = "neato", .nodes = 40},
    {.layout = "circo", .nodes = 30}, {.layout = "fdp", .nodes = 30},
    {.layout = "twopi", .nodes = 50}, {.layout = "osage", .nodes = 45},
    {.layout = "dot", .nodes = 35},  {.layout = "neato", .nodes = 55},
    {.layout = "circo", .nodes = 22}, {.layout = "fdp", .nodes = 41},
};
enum { GRAPHS = sizeof graphs / sizeof graphs[0] };

/* Two edges from each node. */
static char *dot_text(int nodes) {
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  CHECK(out != NULL);
  fprintf(out, "digraph g%d { node [shape=box]; ", nodes);
  for (int i = 0; i < nodes; i++)
    fprintf(out, "n%d -> n%d [label=\"%d\"]; n%d -> n%d; ", i, (i * i + 1) % nodes, i, i,
            (i * 3 + 7) % nodes);
  fputs("}", out);
  CHECK_EQ(fclose(out), 0);
  return text;
}

/* A store with an instance, handed to the runtime if there is one. */
static void open_library(library *library, const real_guest *guest, bop_runtime_t *runtime) {
  wasmtime_store_t *store = wasmtime_store_new(guest->engine, NULL, NULL);
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_instance_t instance;
  wasmtime_extern_t memory;
  wasm_trap_t *trap = NULL;
  OK(wasmtime_context_set_wasi(context, wasi_config_new()));
  OK(wasmtime_instance_pre_instantiate(guest->pre, context, &instance, &trap));
  CHECK(trap == NULL);
  CHECK(wasmtime_instance_export_get(context, &instance, "memory", 6, &memory));
  CHECK_EQ(memory.kind, WASMTIME_EXTERN_MEMORY);
  library->memory = memory.of.memory;
  library->allocate = t_func(context, &instance, "malloc");
  library->render = t_func(context, &instance, "graphviz_render");
  library->release = t_func(context, &instance, "graphviz_free");
  library->last_error = t_func(context, &instance, "graphviz_last_error");
  if (runtime != NULL)
    OK(bop_store_new(runtime, store, &library->handle));
  else
    library->store = store;
}

static void close_library(library *library) {
  if (library->handle != NULL)
    bop_store_delete(library->handle);
  else
    wasmtime_store_delete(library->store);
  memset(library, 0, sizeof *library);
}

static wasmtime_context_t *enter(library *library) {
  wasmtime_context_t *context;
  if (library->handle == NULL)
    return wasmtime_store_context(library->store);
  OK(bop_store_enter(library->handle, &context));
  return context;
}

static void leave(library *library) {
  if (library->handle != NULL)
    OK(bop_store_exit(library->handle));
}

static bop_fiber_t *start(library *library, const wasmtime_func_t *func, const int32_t *args,
                          size_t nargs) {
  wasmtime_val_t values[4];
  bop_fiber_t *fiber = NULL;
  for (size_t i = 0; i < nargs; i++)
    values[i] = t_i32(args[i]);
  OK(bop_spawn(library->handle, func, values, nargs, NULL, &fiber));
  return fiber;
}

/* On a fiber, or alone on plain Wasmtime. */
static int32_t call(library *library, const wasmtime_func_t *func, const int32_t *args,
                    size_t nargs) {
  if (library->handle != NULL)
    return (int32_t)t_result(start(library, func, args, nargs));
  wasmtime_val_t values[4], result = t_i32(0);
  wasm_trap_t *trap = NULL;
  for (size_t i = 0; i < nargs; i++)
    values[i] = t_i32(args[i]);
  OK(wasmtime_func_call(wasmtime_store_context(library->store), func, values, nargs, &result, 1,
                        &trap));
  CHECK(trap == NULL);
  return result.of.i32;
}

static int32_t put(library *library, const void *data, size_t size) {
  int32_t wanted = (int32_t)size;
  int32_t at = call(library, &library->allocate, &wanted, 1);
  wasmtime_context_t *context = enter(library);
  CHECK(at > 0 && (size_t)at + size <= wasmtime_memory_data_size(context, &library->memory));
  memcpy(wasmtime_memory_data(context, &library->memory) + at, data, size);
  leave(library);
  return at;
}

static void arguments(graph *graph, const char *text, const char *layout) {
  static const uint32_t zero = 0;
  graph->at[0] = put(&graph->library, text, strlen(text) + 1);
  graph->at[1] = put(&graph->library, "svg", 4);
  graph->at[2] = put(&graph->library, layout, strlen(layout) + 1);
  graph->at[3] = put(&graph->library, &zero, sizeof zero);
}

/* Copies what render has made out of the linear memory. */
static void fetch(graph *graph, int32_t address, real_bytes *out) {
  wasmtime_context_t *context = enter(&graph->library);
  const uint8_t *memory = wasmtime_memory_data(context, &graph->library.memory);
  size_t size = wasmtime_memory_data_size(context, &graph->library.memory);
  uint32_t length;
  memcpy(&length, memory + graph->at[3], sizeof length);
  if (address != 0) {
    CHECK(address > 0 && (size_t)address + length <= size);
    real_append(out, memory + address, length);
  }
  leave(&graph->library);
}

static int occurrences(const real_bytes *bytes, const char *word) {
  int found = 0;
  const uint8_t *at = bytes->data, *end = at + bytes->size;
  while (at < end && (at = memmem(at, (size_t)(end - at), word, strlen(word))) != NULL) {
    found++;
    at++;
  }
  return found;
}

/* A drawing of all nodes and edges, and the same one as alone. */
static bool right(const graph *graph, const real_bytes *svg) {
  return real_contains(svg, "</svg>") && occurrences(svg, "class=\"node\"") == graph->nodes &&
         occurrences(svg, "class=\"edge\"") == 2 * graph->nodes && real_equal(svg, &graph->alone);
}

static void draw_alone(void) {
  CASE("alone");
  wasm_engine_t *plain = wasm_engine_new();
  real_guest guest;
  real_load_plain(&guest, plain, "graphviz.wasm");
  for (int i = 0; i < GRAPHS; i++) {
    graph *graph = &graphs[i];
    graph->text = dot_text(graph->nodes);
    open_library(&graph->library, &guest, NULL);
    arguments(graph, graph->text, graph->layout);
    fetch(graph, call(&graph->library, &graph->library.render, graph->at, 4), &graph->alone);
    if (!right(graph, &graph->alone))
      t_fail(__FILE__, __LINE__, "%s of %d nodes, alone, gave %zu bytes", graph->layout,
             graph->nodes, graph->alone.size);
    close_library(&graph->library);
  }
  real_unload(&guest);
  wasm_engine_delete(plain);
}

static void control(bop_runtime_t *runtime) {
  CASE("control");
  real_guest guest;
  real_load_text(&guest, runtime,
                 "(module (memory (export \"memory\") 1)"
                 "  (func (export \"malloc\") (param i32) (result i32) (i32.const 1024))"
                 "  (func (export \"graphviz_render\") (param i32 i32 i32 i32) (result i32)"
                 "    (i32.const 8))"
                 "  (func (export \"graphviz_free\") (param i32))"
                 "  (func (export \"graphviz_last_error\") (result i32) (i32.const 0)))");
  graph *graph = &graphs[0];
  real_bytes nothing = {0};
  open_library(&graph->library, &guest, runtime);
  arguments(graph, graph->text, graph->layout);
  fetch(graph, call(&graph->library, &graph->library.render, graph->at, 4), &nothing);
  CHECK(!right(graph, &nothing));
  CHECK(!right(graph, &graphs[1].alone));
  close_library(&graph->library);
  real_free(&nothing);
  real_unload(&guest);
}

/* A text that is no graph is refused by the library, and its store stays usable. */
static void bad_graph(const real_guest *guest, bop_runtime_t *runtime) {
  CASE("bad graph");
  graph bad = {.nodes = 0};
  open_library(&bad.library, guest, runtime);
  arguments(&bad, "digraph {", "dot");
  CHECK_EQ(call(&bad.library, &bad.library.render, bad.at, 4), 0);
  int32_t at = call(&bad.library, &bad.library.last_error, NULL, 0);
  wasmtime_context_t *context = enter(&bad.library);
  CHECK_HAS((const char *)wasmtime_memory_data(context, &bad.library.memory) + at, "parse");
  leave(&bad.library);
  arguments(&bad, "digraph { a -> b }", "dot");
  real_bytes svg = {0};
  fetch(&bad, call(&bad.library, &bad.library.render, bad.at, 4), &svg);
  CHECK_EQ(occurrences(&svg, "class=\"node\""), 2);
  real_free(&svg);
  close_library(&bad.library);
}

int main(int argc, char **argv) {
  real_start("real graphviz", argc, argv);
  draw_alone();
  bop_runtime_t *runtime = real_runtime();
  control(runtime);

  real_guest guest;
  real_load(&guest, runtime, "graphviz.wasm");
  CASE("draw");
  for (int i = 0; i < GRAPHS; i++) {
    open_library(&graphs[i].library, &guest, runtime);
    arguments(&graphs[i], graphs[i].text, graphs[i].layout);
  }
  for (int i = 0; i < GRAPHS; i++)
    graphs[i].fiber = start(&graphs[i].library, &graphs[i].library.render, graphs[i].at, 4);
  for (int i = 0; i < GRAPHS; i++) {
    graph *graph = &graphs[i];
    int32_t address = (int32_t)t_result(graph->fiber);
    fetch(graph, address, &graph->svg);
    if (!right(graph, &graph->svg))
      t_fail(__FILE__, __LINE__, "%s of %d nodes gave %zu bytes, alone %zu", graph->layout,
             graph->nodes, graph->svg.size, graph->alone.size);
    ENDS(start(&graph->library, &graph->library.release, &address, 1), BOP_OUTCOME_RETURNED);
    close_library(&graph->library);
    real_free(&graph->svg);
    real_free(&graph->alone);
    free(graph->text);
  }
  bad_graph(&guest, runtime);
  real_check_preempted(runtime, 200);
  OK(bop_runtime_delete(runtime));
  real_unload(&guest);
  return 0;
}
