/* Files in a preopened directory: from one guest, case by case, and from many at once on two workers; and what lies outside
 * of it. (Many fibers of one store: wasi_siblings.c.) */
#include "support/wasi.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIST = 20, NOENT = 44, NOTDIR = 54, NOTEMPTY = 55 };

/* Flags: 1 creates, 2 must be a directory, 4 must be new, 8 empties it. Rights: 2 reads, 64 writes. */
#define OPEN(letter, flags, rights) "(call $open " GET(s) GET(i) N(letter) N(flags) L(rights) ")"
#define NAME(letter) "(call $name " GET(s) GET(i) N(letter) ")"
#define FD LOAD("offset=16 " GET(s))
#define CLOSES(errno) IS("(call $fd_close " FD ")", errno)
#define FILL(byte, n) "(memory.fill " AT(s, BUFFER) byte n ")"
#define F 102
#define G 103

static const char *const FILES = WASI_GUEST(
    "(data (i32.const 96) \"oooo\")"
    /* a letter, and `i` in two digits */
    "(func $name (param $s i32) (param $i i32) (param $letter i32) (result i32) (local $at i32)"
    SET(at, ADD(AT(s, 32), "(i32.mul " N(4) "(i32.eq " GET(letter) N(G) "))"))
    "(i32.store8 " GET(at) GET(letter) ") (i32.store8 offset=1 " GET(at) ADD(N(48), "(i32.div_u " GET(i) N(10) ")") ")"
    "(i32.store8 offset=2 " GET(at) ADD(N(48), "(i32.rem_u " GET(i) N(10) ")") ")" GET(at) ")"
    "(func $open (param $s i32) (param $i i32) (param $letter i32) (param $flags i32) (param $rights i64) (result i32)"
    "(call $path_open " N(3) N(0) "(call $name " GET(s) GET(i) GET(letter) ") " N(3) GET(flags) GET(rights) L(0) N(0)
    AT(s, 16) "))"
    "(func $size (param $s i32) (result i32)" IS("(call $fd_filestat_get " FD AT(s, 128) ")", 0)
    "(i32.wrap_i64 (i64.load offset=160 " GET(s) ")))"
    /* all that one can do with a file; what it leaves is g<i>, with 11 * i bytes of i, if that is odd */
    FUNC("works", "(param $i i32) (result i32) (local $s i32) (local $k i32) (local $n i32)",
         SET(s, AREA(i)) SET(n, "(i32.mul " GET(i) N(11) ")") IS(OPEN(F, 5, 66), 0) FILL(GET(i), GET(n))
         EACH(k, N(5), IS(WRITE(FD, s, AT(s, BUFFER), GET(n)), 0) SO("(i32.eq " COUNT(s) GET(n) ")"))
         SO("(i32.eq (call $size " GET(s) ") (i32.mul " N(5) GET(n) "))")
         IS("(call $fd_seek " FD L(0) N(0) AT(s, 24) ")", 0) FILL(N(0), N(2048)) AGAIN(k)
         EACH(k, N(5), IS(READ(FD, s, GET(n)), 0) SO("(i32.eq " COUNT(s) GET(n) ")")
              SO("(i32.eq (i32.load8_u offset=2048 " GET(s) ") " GET(i) ")"))
         IS(READ(FD, s, N(99)), 0) IS(COUNT(s), 0)
         /* at a place of its own, whatever the position */
         STORE(GET(s), N(96)) STORE("offset=4 " GET(s), N(4))
         IS("(call $fd_pwrite " FD GET(s) N(1) L(1) AT(s, 8) ")", 0) IS(COUNT(s), 4) STORE(GET(s), AT(s, BUFFER))
         IS("(call $fd_pread " FD GET(s) N(1) L(2) AT(s, 8) ")", 0) IS(COUNT(s), 4)
         SO("(i32.eq (i32.load16_u offset=2048 " GET(s) ") (i32.load16_u offset=96 " N(0) "))")
         IS("(call $fd_sync " FD ")", 0) CLOSES(0) CLOSES(8)
         IS(OPEN(F, 5, 66), 20) IS(OPEN(F, 8, 66), 0) IS("(call $size " GET(s) ")", 0) FILL(GET(i), GET(n))
         IS(WRITE(FD, s, AT(s, BUFFER), GET(n)), 0) CLOSES(0)
         IS("(call $path_rename " N(3) NAME(F) N(3) N(3) NAME(G) N(3) ")", 0) IS(OPEN(F, 0, 2), 44)
         IS("(call $path_filestat_get " N(3) N(0) NAME(F) N(3) AT(s, 128) ")", 44)
         IS(OPEN(G, 0, 2), 0) SO("(i32.eq (call $size " GET(s) ") " GET(n) ")") SO(WRITE(FD, s, N(64), N(1))) CLOSES(0)
         IF("(i32.eqz (i32.and " GET(i) N(1) "))",
            IS("(call $path_unlink_file " N(3) NAME(G) N(3) ")", 0) IS(OPEN(G, 0, 2), 44))
         GET(i))
    /* how many entries, read in pieces of `room` bytes, each from where the last whole entry ended */
    FUNC("lists", "(param $i i32) (param $room i32) (result i32) (local $s i32) (local $n i32) (local $at i32)"
         "(local $end i32) (local $cookie i64) (local $next i32)", SET(s, AREA(i))
         "(loop $piece" IS("(call $fd_readdir " N(3) AT(s, BUFFER) GET(room) GET(cookie) AT(s, 8) ")", 0)
         SET(at, AT(s, BUFFER)) SET(end, ADD(GET(at), COUNT(s)))
         "(block $cut (loop $entry (br_if $cut (i32.gt_u " ADD(GET(at), N(24)) GET(end) "))"
         SET(next, ADD(ADD(GET(at), N(24)), LOAD("offset=16 " GET(at)))) "(br_if $cut (i32.gt_u " GET(next) GET(end) "))"
         SET(cookie, LOAD64(GET(at))) SET(n, ADD(GET(n), N(1))) SET(at, GET(next)) "(br $entry)))"
         "(br_if $piece (i32.eq " COUNT(s) GET(room) ")))" GET(n))
    /* one call each, with a name that the host has put at 256 */
    FUNC("puts", "(param $at i32) (param $byte i32)", "(i32.store8 offset=256 " GET(at) GET(byte) ")")
    FUNC("opens", "(param $len i32) (param $flags i32) (param $writes i32) (result i32)",
         "(call $path_open " N(3) N(1) N(256) GET(len) GET(flags) "(select " L(66) L(2) GET(writes) ") " L(0) N(0) N(64) ")")
    FUNC("makes", "(param $len i32) (result i32)", "(call $path_create_directory " N(3) N(256) GET(len) ")")
    FUNC("removes", "(param $len i32) (result i32)", "(call $path_remove_directory " N(3) N(256) GET(len) ")")
    FUNC("unlinks", "(param $len i32) (result i32)", "(call $path_unlink_file " N(3) N(256) GET(len) ")")
    FUNC("reads", "(param $n i32) (result i32) (local $s i32) (local $e i32)", SET(s, N(4096)) FILL(N(0), N(1))
         SET(e, READ(LOAD(N(64)), s, GET(n))) IS("(call $fd_close " LOAD(N(64)) ")", 0)
         "(select (i32.sub " N(0) GET(e) ") "
         ADD("(i32.mul " N(256) COUNT(s) ")", "(i32.load8_u offset=2048 " GET(s) ")") GET(e) ")"));

/* ---- a folder of the host's ---- */

static char folder[] = "/tmp/bop-wasi-XXXXXX";

static const char *in_folder(const char *name) {
  static char path[8][128];
  static unsigned next;
  char *it = path[next++ % 8];
  CHECK(snprintf(it, sizeof path[0], "%s/%s", folder, name) < (int)sizeof path[0]);
  return it;
}

static void put_file(const char *name, const char *text) {
  FILE *file = fopen(in_folder(name), "w");
  CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static int32_t named(const t_guest *guest, const char *name) {
  for (size_t i = 0; i < strlen(name); i++)
    ENDS(t_spawn(guest, "puts", (int32_t[]){(int32_t)i, name[i]}, 2), BOP_OUTCOME_RETURNED);
  return (int32_t)strlen(name);
}

/* The errno. */
static int64_t call(const t_guest *guest, const char *function, const char *name) {
  return t_result(t_spawn1(guest, function, named(guest, name)));
}

enum { CREATES = 1, DIRECTORY = 2, NEW = 4, EMPTIES = 8 };
static int64_t opens(const t_guest *guest, const char *name, int32_t flags, bool writes) {
  return t_result(t_spawn(guest, "opens", (int32_t[]){named(guest, name), flags, writes}, 3));
}
#define READS(guest, n) t_result(t_spawn1(guest, "reads", n))
#define BYTES(n, first) (256 * (n) + (first))

/* ---- one guest ---- */

static void one(void) {
  CASE("files and directories");
  BEGIN(1, CALM, 0);
  t_guest guest;
  t_wasi wasi = {.folder = folder};
  t_wasi_guest(&guest, FILES, &wasi);
  put_file("text", "hello");
  CHECK_EQ(opens(&guest, "text", 0, false), 0);
  CHECK_EQ(READS(&guest, 99), BYTES(5, 'h'));
  CHECK_EQ(opens(&guest, "text", DIRECTORY, false), NOTDIR);
  CHECK_EQ(opens(&guest, "none", 0, false), NOENT);
  CHECK_EQ(call(&guest, "makes", "sub"), 0);
  CHECK_EQ(call(&guest, "makes", "sub"), EXIST);
  CHECK_EQ(opens(&guest, "sub/new", CREATES | NEW, true), 0);
  CHECK_EQ(READS(&guest, 99), 0);
  CHECK_EQ(call(&guest, "removes", "sub"), NOTEMPTY);
  CHECK_EQ(call(&guest, "unlinks", "sub/new"), 0);
  CHECK(call(&guest, "unlinks", "sub") != 0);
  CHECK_EQ(call(&guest, "removes", "sub"), 0);
  CHECK_EQ(call(&guest, "removes", "sub"), NOENT);
  CHECK(access(in_folder("sub"), F_OK) != 0);
  CHECK_EQ(t_result(t_spawn1(&guest, "works", 7)), 7);
  CHECK_EQ(unlink(in_folder("g07")), 0);
  t_guest_delete(&guest);
  t_world_end(0);
}

/* Whatever way it tries. What is refused may be called so or so. */
static void outside(void) {
  CASE("what lies outside");
  static const char *const NAMES[] = {"..", "../", "/etc/passwd", "../../../../../../etc/passwd", "sub/../../outside",
                                      "link", "up", "up/outside", "loop", "sub/../..", "/", "./../outside"};
  BEGIN(1, CALM, 0);
  char secret[64];
  snprintf(secret, sizeof secret, "%s-outside", folder);
  CHECK_EQ(mkdir(in_folder("sub"), 0777), 0);
  CHECK_EQ(symlink("/etc/passwd", in_folder("link")), 0);
  CHECK_EQ(symlink("..", in_folder("up")), 0);
  CHECK_EQ(symlink("loop", in_folder("loop")), 0);
  CHECK_EQ(symlink("text", in_folder("inside")), 0);
  for (int writes = 0; writes < 2; writes++) {
    t_guest guest;
    t_wasi wasi = {.folder = folder, .read_only = !writes};
    t_wasi_guest(&guest, FILES, &wasi);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
      for (int32_t flags = 0; flags < 4; flags++) {
        CHECK(opens(&guest, NAMES[i], flags, false) != 0);
        CHECK(opens(&guest, NAMES[i], flags, true) != 0);
      }
    CHECK(call(&guest, "makes", "../made") != 0);
    CHECK(call(&guest, "unlinks", "../made") != 0);
    CHECK_EQ(opens(&guest, "inside", 0, false), 0); /* a link that stays inside */
    CHECK_EQ(READS(&guest, 2), BYTES(2, 'h'));
    CHECK_EQ(opens(&guest, "sub/../text", 0, false), 0);
    CHECK_EQ(READS(&guest, 2), BYTES(2, 'h'));
    t_guest_delete(&guest);
  }
  CASE("a directory that is only to be read");
  t_guest guest;
  t_wasi wasi = {.folder = folder, .read_only = true};
  t_wasi_guest(&guest, FILES, &wasi);
  CHECK(opens(&guest, "text", 0, true) != 0);
  CHECK(opens(&guest, "text", EMPTIES, true) != 0);
  CHECK(opens(&guest, "new", CREATES, true) != 0);
  CHECK(opens(&guest, "new", CREATES, false) != 0);
  CHECK(call(&guest, "makes", "made") != 0);
  CHECK(call(&guest, "removes", "sub") != 0);
  CHECK(call(&guest, "unlinks", "text") != 0);
  CHECK(access(in_folder("new"), F_OK) != 0 && access(in_folder("made"), F_OK) != 0);
  CHECK_EQ(opens(&guest, "text", 0, false), 0);
  CHECK_EQ(READS(&guest, 99), BYTES(5, 'h'));
  t_guest_delete(&guest);
  static const char *const MADE[] = {"link", "up", "loop", "inside", "text"};
  for (size_t i = 0; i < sizeof MADE / sizeof MADE[0]; i++)
    CHECK_EQ(unlink(in_folder(MADE[i])), 0);
  CHECK_EQ(rmdir(in_folder("sub")), 0);
  t_world_end(0);
}

/* ---- many ---- */

static void many(void) {
  CASE("many at once");
  enum { GUESTS = 60 };
  static t_wasi wasi[GUESTS];
  static t_guest guest[GUESTS];
  static bop_fiber_t *works[GUESTS], *lists[GUESTS];
  BEGIN(2, 50000, 0);
  wasmtime_module_t *module = t_module(bop_runtime_engine(world.runtime), FILES);
  for (int i = 0; i < GUESTS; i++) {
    wasi[i] = (t_wasi){.folder = folder};
    t_wasi_instance(&guest[i], module, &wasi[i]);
  }
  for (int i = 0; i < GUESTS; i++)
    works[i] = t_spawn1(&guest[i], "works", i + 1);
  for (int i = 0; i < GUESTS; i++)
    CHECK_EQ(t_result(works[i]), i + 1);
  for (int i = 0; i < GUESTS; i++) /* "." and "..", and what is there */
    lists[i] = t_spawn(&guest[i], "lists", (int32_t[]){i, 60 + 31 * i}, 2);
  for (int i = 0; i < GUESTS; i++) {
    CHECK_EQ(t_result(lists[i]), 2 + GUESTS / 2);
    t_guest_delete(&guest[i]);
  }
  for (int i = 1; i <= GUESTS; i += 2) {
    char name[8], got[1024];
    snprintf(name, sizeof name, "g%02d", i);
    FILE *file = fopen(in_folder(name), "r");
    CHECK(file != NULL);
    CHECK_EQ(fread(got, 1, sizeof got, file), 11 * i);
    for (int k = 0; k < 11 * i; k++)
      CHECK_EQ(got[k], i);
    fclose(file);
    CHECK_EQ(unlink(in_folder(name)), 0);
  }
  wasmtime_module_delete(module);
  t_world_end(0);
}

int main(void) {
  t_start("wasi_files");
  CHECK(mkdtemp(folder) != NULL);
  one();
  outside();
  many();
  CHECK_EQ(rmdir(folder), 0); /* nothing else is left */
  return 0;
}
