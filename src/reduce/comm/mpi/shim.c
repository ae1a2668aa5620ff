/* What this crate needs of MPI, as functions of plain C types: in MPI itself handles are integers
 * or pointers and constants are macros, as each library likes. `mpicc` makes this file fit the
 * library at hand. shim.rs declares the same functions.
 *
 * Every function that returns `int` returns MPI's error code. None blocks, but for open and close,
 * in which all processes take part. Callers make one call at a time in a process.
 *
 * Two ways to send: mail, small messages that may come at any time and from anyone; and batches,
 * of bulk data that both sides expect. Their tags keep them apart. A batch may reduce, too. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

/* A message on its way, and its bytes. */
struct mail {
  struct mail *next;
  MPI_Request request;
  unsigned char bytes[];
};

/* Messages of one communicator are told from another's by their tags, which are never used again:
 * late mail of one that is gone meets nobody. */
struct comm {
  int mail, bulk;
  struct mail *sent;
};

/* All processes, in a context of our own: our messages meet nobody else's. */
static MPI_Comm everyone = MPI_COMM_NULL;

/* The same for reductions, which have no tags: one for each communicator that reduces. They are made at the start, where
 * all processes are: later that could not keep a deadline, and Open MPI 4.1 mixes up two that are being made at a time. */
#define REDUCING 8
static MPI_Comm reducing[REDUCING];

/* Joins `length` elements of `from` to those of `to`: sums of bf16, of f16, and the largest of bytes (MPICH 4.0.2
 * takes bytes for signed ones: pmodels/mpich#6083). */
typedef void join(const void *from, void *to, int length);
static join *joins[3];
static MPI_Op ops[3] = {MPI_OP_NULL, MPI_OP_NULL, MPI_OP_NULL};

static void join0(void *from, void *to, int *length, MPI_Datatype *type) {
  (void)type;
  joins[0](from, to, *length);
}

static void join1(void *from, void *to, int *length, MPI_Datatype *type) {
  (void)type;
  joins[1](from, to, *length);
}

static void join2(void *from, void *to, int *length, MPI_Datatype *type) {
  (void)type;
  joins[2](from, to, *length);
}

struct batch {
  int capacity, count;
  MPI_Request *requests;
  MPI_Status *statuses;
  int *indices;
};

/* Levels: 0 single, 1 funneled, 2 serialized, 3 multiple. */
static int level_of(int provided) {
  if (provided == MPI_THREAD_MULTIPLE) return 3;
  if (provided == MPI_THREAD_SERIALIZED) return 2;
  return provided == MPI_THREAD_FUNNELED ? 1 : 0;
}

/* Starts MPI, unless someone has. `ours`: whether this call started it. `ended`: nobody can. */
int halfstep_mpi_open(int *level, int *ours, int *ended, int *rank, int *size, join *const three[3]) {
  MPI_User_function *functions[3] = {join0, join1, join2};
  int provided = MPI_THREAD_SINGLE, started = 0, code;
  *level = *ours = 0;
  if ((code = MPI_Finalized(ended)) != MPI_SUCCESS || *ended) return code;
  if ((code = MPI_Initialized(&started)) != MPI_SUCCESS) return code;
  code = started ? MPI_Query_thread(&provided)
                 : MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
  if (code != MPI_SUCCESS) return code;
  *level = level_of(provided);
  *ours = !started;
  if ((code = MPI_Comm_dup(MPI_COMM_WORLD, &everyone)) != MPI_SUCCESS) return code;
  if ((code = MPI_Comm_set_errhandler(everyone, MPI_ERRORS_RETURN)) != MPI_SUCCESS) return code;
  for (int i = 0; i < REDUCING; ++i)
    if ((code = MPI_Comm_dup(everyone, &reducing[i])) != MPI_SUCCESS) return code;
  for (int i = 0; i < 3; ++i) {
    joins[i] = three[i];
    if ((code = MPI_Op_create(functions[i], 1, &ops[i])) != MPI_SUCCESS) return code;
  }
  if ((code = MPI_Comm_rank(everyone, rank)) != MPI_SUCCESS) return code;
  return MPI_Comm_size(everyone, size);
}

/* MPI may be ended by somebody else, and ends the process that calls it afterwards. It may always be asked
 * whether it has ended. */
int halfstep_mpi_ended(void) {
  int ended = 0;
  return MPI_Finalized(&ended) != MPI_SUCCESS || ended;
}

/* What functions return then: no code of MPI's is below 0. */
#define ENDED (-1)

int halfstep_mpi_close(void) { return halfstep_mpi_ended() ? ENDED : MPI_Finalize(); }

int halfstep_mpi_error_text(int code, char *text, int capacity) {
  char whole[MPI_MAX_ERROR_STRING] = "";
  int length = 0, result = MPI_Error_string(code, whole, &length);
  strncpy(text, whole, (size_t)capacity - 1);
  text[capacity - 1] = 0;
  return result;
}

int halfstep_mpi_library(char *text, int capacity) {
  char whole[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0, result = MPI_Get_library_version(whole, &length);
  strncpy(text, whole, (size_t)capacity - 1);
  text[capacity - 1] = 0;
  return result;
}

/* The `id`-th communicator. NULL: no memory, or no tags left. */
struct comm *halfstep_mpi_comm_new(int id) {
  struct comm *comm;
  int *limit, found = 0;
  if (halfstep_mpi_ended()) return NULL;
  if (MPI_Comm_get_attr(everyone, MPI_TAG_UB, &limit, &found) != MPI_SUCCESS || !found) return NULL;
  if (id > (*limit - 1) / 2) return NULL;
  comm = calloc(1, sizeof *comm);
  if (!comm) return NULL;
  comm->mail = 2 * id;
  comm->bulk = 2 * id + 1;
  return comm;
}

/* Forgets mail that has left. `left`: how many have not. */
int halfstep_mpi_mail_reap(struct comm *comm, int *left) {
  struct mail **link = &comm->sent;
  *left = 0;
  if (halfstep_mpi_ended()) return ENDED;
  while (*link) {
    struct mail *mail = *link;
    int done = 0, code = MPI_Test(&mail->request, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return code;
    if (done) {
      *link = mail->next;
      free(mail);
    } else {
      link = &mail->next;
      ++*left;
    }
  }
  return MPI_SUCCESS;
}

/* Only when all mail has left. */
void halfstep_mpi_comm_free(struct comm *comm) { free(comm); }

int halfstep_mpi_mail_send(struct comm *comm, int to, const void *bytes, int length) {
  struct mail *mail;
  int code, left;
  if (halfstep_mpi_ended()) return ENDED;
  mail = malloc(sizeof *mail + (size_t)length);
  if (!mail) return MPI_ERR_NO_MEM;
  memcpy(mail->bytes, bytes, (size_t)length);
  code = MPI_Isend(mail->bytes, length, MPI_BYTE, to, comm->mail, everyone, &mail->request);
  if (code != MPI_SUCCESS) {
    free(mail);
    return code;
  }
  mail->next = comm->sent;
  comm->sent = mail;
  return halfstep_mpi_mail_reap(comm, &left);
}

/* The next message, if one has come: `from` is -1 if none has. */
int halfstep_mpi_mail_receive(struct comm *comm, void *bytes, int capacity, int *length, int *from) {
  MPI_Status status;
  int come = 0, code;
  *from = -1;
  if (halfstep_mpi_ended()) return ENDED;
  code = MPI_Iprobe(MPI_ANY_SOURCE, comm->mail, everyone, &come, &status);
  if (code != MPI_SUCCESS || !come) return code;
  code = MPI_Recv(bytes, capacity, MPI_BYTE, status.MPI_SOURCE, comm->mail, everyone, &status);
  if (code != MPI_SUCCESS) return code;
  *from = status.MPI_SOURCE;
  return MPI_Get_count(&status, MPI_BYTE, length);
}

struct batch *halfstep_mpi_batch_new(int capacity) {
  struct batch *batch = calloc(1, sizeof *batch);
  size_t count = capacity > 0 ? (size_t)capacity : 1;
  if (!batch) return NULL;
  batch->capacity = capacity;
  batch->requests = calloc(count, sizeof *batch->requests);
  batch->statuses = calloc(count, sizeof *batch->statuses);
  batch->indices = calloc(count, sizeof *batch->indices);
  if (batch->requests && batch->statuses && batch->indices) return batch;
  free(batch->requests);
  free(batch->statuses);
  free(batch->indices);
  free(batch);
  return NULL;
}

/* Only when nothing is pending. */
void halfstep_mpi_batch_free(struct batch *batch) {
  free(batch->requests);
  free(batch->statuses);
  free(batch->indices);
  free(batch);
}

/* Starts one message; the bytes are MPI's until it is no longer pending. Its slot is the number of
 * those started before it. */
int halfstep_mpi_batch_start(struct batch *batch, struct comm *comm, int receive, void *bytes,
                             int length, int peer) {
  MPI_Request *request = &batch->requests[batch->count];
  int code;
  if (halfstep_mpi_ended()) return ENDED;
  if (batch->count == batch->capacity) return MPI_ERR_COUNT;
  code = receive ? MPI_Irecv(bytes, length, MPI_BYTE, peer, comm->bulk, everyone, request)
                 : MPI_Isend(bytes, length, MPI_BYTE, peer, comm->bulk, everyone, request);
  if (code == MPI_SUCCESS) ++batch->count;
  return code;
}

/* For how many communicators there are reductions. */
int halfstep_mpi_reducing(void) { return REDUCING; }

/* Starts an all-reduce of `length` values, in place: 0 sums of bf16, 1 of f16, 2 the largest of bytes, 3 sums of f32,
 * 4 of 32-bit integers modulo 2^32. Its slot is as a message's. */
int halfstep_mpi_batch_reduce(struct batch *batch, int which, void *values, int length, int reduction) {
  MPI_Datatype types[] = {MPI_UINT16_T, MPI_UINT16_T, MPI_UINT8_T, MPI_FLOAT, MPI_UINT32_T};
  MPI_Op op = reduction < 3 ? ops[reduction] : MPI_SUM;
  MPI_Request *request = &batch->requests[batch->count];
  int code;
  if (halfstep_mpi_ended()) return ENDED;
  if (batch->count == batch->capacity) return MPI_ERR_COUNT;
  code = MPI_Iallreduce(MPI_IN_PLACE, values, length, types[reduction], op, reducing[which], request);
  if (code == MPI_SUCCESS) ++batch->count;
  return code;
}

int halfstep_mpi_batch_pending(const struct batch *batch, int slot) {
  return batch->requests[slot] != MPI_REQUEST_NULL;
}

/* Lets messages move on. `ended`: how many have come to their end in this call. */
int halfstep_mpi_batch_test(struct batch *batch, int *ended) {
  int code;
  *ended = 0;
  if (halfstep_mpi_ended()) return ENDED;
  code = MPI_Testsome(batch->count, batch->requests, ended, batch->indices, batch->statuses);
  if (*ended == MPI_UNDEFINED) *ended = 0;
  if (code != MPI_ERR_IN_STATUS) return code;
  for (int i = 0; i < *ended; ++i)
    if (batch->statuses[i].MPI_ERROR != MPI_SUCCESS) return batch->statuses[i].MPI_ERROR;
  return code;
}

/* Takes back receives that nobody has begun to serve. */
int halfstep_mpi_batch_cancel(struct batch *batch, int slot) {
  if (halfstep_mpi_ended()) return ENDED;
  if (!halfstep_mpi_batch_pending(batch, slot)) return MPI_SUCCESS;
  return MPI_Cancel(&batch->requests[slot]);
}
