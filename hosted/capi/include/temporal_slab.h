/* temporal-slab for programs in C. Made of the source by a test: see hosted/capi. */

#ifndef TEMPORAL_SLAB_H
#define TEMPORAL_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 Why a call failed.
 */
typedef enum {
  /*
   Nothing failed yet.
   */
  SLAB_ERROR_NONE = 0,
  /*
   A pointer is null that must not be, or a number is out of range.
   */
  SLAB_ERROR_ARGUMENT = 1,
  /*
   The size is larger than the address space allows; or, of an object with a handle, than 8192 bytes.
   */
  SLAB_ERROR_SIZE = 2,
  /*
   The epoch is closed.
   */
  SLAB_ERROR_CLOSED_EPOCH = 3,
  /*
   No epoch has, or had, this number, or it is the first epoch, which is never closed.
   */
  SLAB_ERROR_BAD_EPOCH = 4,
  /*
   The system has no memory left.
   */
  SLAB_ERROR_OUT_OF_MEMORY = 5,
  /*
   The allocator's byte limit is reached.
   */
  SLAB_ERROR_LIMIT = 6,
  /*
   The handle's object is gone, or there never was one.
   */
  SLAB_ERROR_BAD_HANDLE = 7,
  /*
   No object of this allocator begins at the pointer.
   */
  SLAB_ERROR_BAD_POINTER = 8,
  /*
   The object was freed already.
   */
  SLAB_ERROR_DOUBLE_FREE = 9,
  /*
   There are as many epochs as there can be.
   */
  SLAB_ERROR_RING_FULL = 10,
  /*
   A domain is left that was not entered last, or ended while somebody is inside, or a count would go below nothing.
   */
  SLAB_ERROR_MISUSE = 11,
  /*
   The ids of handles are used up.
   */
  SLAB_ERROR_HANDLES_EXHAUSTED = 12,
  /*
   A defect of the library: please report it.
   */
  SLAB_ERROR_INTERNAL = 13,
} SlabError;

/*
 An allocator: a heap of its own.
 */
typedef struct SlabAllocator SlabAllocator;

/*
 A number of an epoch, from 0: the first epoch's, which is never closed. A number is used again once its epoch is closed and nothing
 is left of it; there are as many as memory allows.
 */
typedef uint32_t EpochId;

/*
 A name of an object that can be kept after the object is gone: it is refused then. Zero is none.
 */
typedef uint64_t SlabHandle;

/*
 A domain. What is here may be read; the library writes it.
 */
typedef struct {
  /*
   The allocator.
   */
  SlabAllocator *alloc;
  /*
   Its epoch.
   */
  EpochId epoch_id;
  /*
   Whether the epoch is closed when the last one who is inside leaves.
   */
  bool auto_close;
  /*
   How many times threads are inside.
   */
  uint32_t entered;
  /*
   Which epoch of those that were at this position.
   */
  uint64_t era;
} epoch_domain_t;

/*
 What happened in a size class, over all epochs.
 */
typedef struct {
  /*
   Allocations that did not find a slot at hand.
   */
  uint64_t slow_path_hits;
  /*
   Slabs that were made.
   */
  uint64_t new_slab_count;
  /*
   Slabs whose free slots were used up or taken.
   */
  uint64_t list_move_partial_to_full;
  /*
   Used up slabs that got a free slot, and slabs that were opened.
   */
  uint64_t list_move_full_to_partial;
  /*
   Slow allocations that found no slab begun.
   */
  uint64_t current_partial_null;
  /*
   Slow allocations that found the slab that was begun used up.
   */
  uint64_t current_partial_full;
  /*
   Emptied slabs whose memory went back.
   */
  uint64_t empty_slab_recycled;
  /*
   Emptied slabs that the cache had no room for.
   */
  uint64_t empty_slab_overflowed;
} PerfCounters;

/*
 The whole allocator.
 */
typedef struct {
  /*
   1.
   */
  uint32_t version;
  /*
   How many epochs there can be.
   */
  uint32_t ring;
  /*
   Epochs that accept allocations.
   */
  uint64_t open_epochs;
  /*
   Closed epochs of which something is left.
   */
  uint64_t closing_epochs;
  /*
   Live objects.
   */
  uint64_t live_objects;
  /*
   Their bytes.
   */
  uint64_t live_bytes;
  /*
   Bytes from the system.
   */
  uint64_t committed_bytes;
  /*
   Of these, what was touched and not given back.
   */
  uint64_t resident_bytes;
  /*
   Of these, what is empty and can be given back.
   */
  uint64_t reclaimable_bytes;
  /*
   Slabs.
   */
  uint64_t slabs;
  /*
   Allocations that did not find a slot at hand.
   */
  uint64_t slow_path_hits;
  /*
   Allocations that were refused because their epoch was closed.
   */
  uint64_t refused_epoch_closed;
  /*
   Frees and handles that were refused.
   */
  uint64_t misuses;
  /*
   Epochs that were closed.
   */
  uint64_t closes;
} SlabGlobalStats;

/*
 A size class.
 */
typedef struct {
  /*
   1.
   */
  uint32_t version;
  /*
   Whether its objects have handles.
   */
  bool has_handles;
  /*
   Bytes of an object.
   */
  uint64_t object_bytes;
  /*
   Bytes of a slab.
   */
  uint64_t slab_bytes;
  /*
   Slabs.
   */
  uint64_t slabs;
  /*
   Empty slabs that wait.
   */
  uint64_t cached_slabs;
  /*
   Slots with live objects.
   */
  uint64_t live_slots;
  /*
   Slots that nobody holds.
   */
  uint64_t free_slots;
  /*
   What happened.
   */
  PerfCounters counters;
} SlabClassStats;

/*
 An epoch.
 */
typedef struct {
  /*
   1.
   */
  uint32_t version;
  /*
   Whether it accepts allocations.
   */
  bool is_open;
  /*
   What it was called; ends with a zero.
   */
  char label[32];
  /*
   Which epoch it is of all that there were.
   */
  uint64_t era;
  /*
   How many are inside.
   */
  uint64_t refcount;
  /*
   Live objects.
   */
  uint64_t live_objects;
  /*
   Their bytes.
   */
  uint64_t live_bytes;
  /*
   Bytes of its slabs and large objects.
   */
  uint64_t bytes;
  /*
   Slabs.
   */
  uint64_t slabs;
  /*
   How long it has been open, in nanoseconds.
   */
  uint64_t age_ns;
  /*
   Resident bytes before its close, if it was closed.
   */
  uint64_t rss_before_close;
  /*
   And after it.
   */
  uint64_t rss_after_close;
} SlabEpochStats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Why the last call of this thread that failed did. A call that succeeds leaves it alone, as it does `errno`.
 */
SlabError slab_last_error(void);

/*
 Forgets why.
 */
void slab_clear_error(void);

/*
 What an error means, for people. The text is valid for ever.
 */
const char *slab_error_text(uint32_t error);

/*
 Makes an allocator. Null if there is no memory.
 */
SlabAllocator *slab_allocator_create(void);

/*
 Ends an allocator and all that was allocated with it. Null is fine. Its memory goes back when no thread has a fast
 path in it any more: see the head of this file.

 # Safety
 The allocator was made by `slab_allocator_create`, and is not used any more, nor are its objects and domains.
 */
void slab_allocator_free(SlabAllocator *alloc);

/*
 Gives everything that is empty back to the system now.

 # Safety
 `alloc` is an allocator or null.
 */
void slab_reclaim(SlabAllocator *alloc);

/*
 Lets the allocator hold at most so many bytes from the system. What it holds already stays.

 # Safety
 `alloc` is an allocator or null.
 */
void slab_set_limit(SlabAllocator *alloc, size_t bytes);

/*
 The current epoch. `UINT32_MAX` if there is no such allocator.

 # Safety
 `alloc` is an allocator or null.
 */
EpochId epoch_current(SlabAllocator *alloc);

/*
 Begins an epoch and makes it current; the one that was current is closed, unless it is the first. Gives the new one,
 or `UINT32_MAX` if there is none to be had; then all is as it was.

 # Safety
 `alloc` is an allocator or null.
 */
EpochId epoch_advance(SlabAllocator *alloc);

/*
 Begins an epoch beside the current one, which stays so: for a request, a frame or a connection. `UINT32_MAX` if there is none to be
 had.

 # Safety
 `alloc` is an allocator or null.
 */
EpochId slab_epoch_open(SlabAllocator *alloc);

/*
 Closes an epoch: nothing more is allocated in it, what is empty in it goes back to the system now, and what empties
 later when it does. Whether it did.

 # Safety
 `alloc` is an allocator or null.
 */
bool epoch_close(SlabAllocator *alloc,
                 EpochId epoch);

/*
 Calls an epoch something: the first 31 bytes of `label`. Whether it did.

 # Safety
 `alloc` is an allocator or null, `label` a text that ends with a zero, or null.
 */
bool slab_epoch_set_label(SlabAllocator *alloc, EpochId epoch, const char *label);

/*
 Counts somebody who is inside an epoch. Whether it did.

 # Safety
 `alloc` is an allocator or null.
 */
bool slab_epoch_inc_refcount(SlabAllocator *alloc, EpochId epoch);

/*
 Counts that somebody left. Whether it did: nobody leaves where nobody is.

 # Safety
 `alloc` is an allocator or null.
 */
bool slab_epoch_dec_refcount(SlabAllocator *alloc, EpochId epoch);

/*
 How many are inside an epoch.

 # Safety
 `alloc` is an allocator or null.
 */
uint64_t slab_epoch_get_refcount(SlabAllocator *alloc, EpochId epoch);

/*
 Allocates in an epoch, aligned to 16 bytes. A size of zero gets an object of its own, too. Null if it failed.

 # Safety
 `alloc` is an allocator or null.
 */
void *slab_malloc_epoch(SlabAllocator *alloc,
                        size_t size,
                        EpochId epoch);

/*
 Frees an object. Null is fine; what is no live object of this allocator is refused, and nothing changes.

 # Safety
 `alloc` is an allocator or null; if `object` is a live object nobody uses it any more.
 */
void slab_free(SlabAllocator *alloc,
               void *object);

/*
 How many bytes an object may use. 0 if it is none.

 # Safety
 `alloc` is an allocator or null.
 */
size_t slab_usable_size(SlabAllocator *alloc, void *object);

/*
 Allocates an object that is known by a handle, which is written to `out`. Its size is at most
 8192 bytes. Null if it failed; `out` is then 0.

 # Safety
 `alloc` is an allocator or null, and `out` may be written to or is null.
 */
void *alloc_obj_epoch(SlabAllocator *alloc, uint32_t size, EpochId epoch, SlabHandle *out);

/*
 Where the object of a handle is, if it lives; else null.

 # Safety
 `alloc` is an allocator or null.
 */
void *get_obj(SlabAllocator *alloc, SlabHandle handle);

/*
 Frees the object of a handle. Whether it lived: of two who free it one does.

 # Safety
 `alloc` is an allocator or null; nobody uses the object any more.
 */
bool free_obj(SlabAllocator *alloc, SlabHandle handle);

/*
 A domain over the current epoch. It closes nothing by itself. Null if there is no such allocator.

 # Safety
 `alloc` is an allocator, which outlives the domain, or null.
 */
epoch_domain_t *epoch_domain_create(SlabAllocator *alloc);

/*
 A domain over an epoch; with `auto_close` the epoch is closed when the last one who is inside leaves. Null if there is
 no such epoch, or it is closed.

 # Safety
 `alloc` is an allocator, which outlives the domain, or null.
 */
epoch_domain_t *epoch_domain_wrap(SlabAllocator *alloc,
                                  EpochId epoch,
                                  bool auto_close);

/*
 Goes inside. Whether it did: not if the epoch is closed.

 # Safety
 `domain` is a domain or null.
 */
bool epoch_domain_enter(epoch_domain_t *domain);

/*
 Leaves. Whether it did: only the domain that this thread entered last can be left.

 # Safety
 `domain` is a domain or null.
 */
bool epoch_domain_exit(epoch_domain_t *domain);

/*
 The domain that this thread entered last and is inside; null if it is in none.
 */
epoch_domain_t *epoch_domain_current(void);

/*
 Closes the domain's epoch. Whether it did: not while somebody is inside, and not twice.

 # Safety
 `domain` is a domain or null.
 */
bool epoch_domain_force_close(epoch_domain_t *domain);

/*
 Ends a domain; its epoch stays as it is. Null is fine. Whether it did: not while somebody is inside.

 # Safety
 `domain` is a domain or null; if this is true it is not used any more.
 */
bool epoch_domain_destroy(epoch_domain_t *domain);

/*
 What happened in a size class: 0 to 7 are 64, 96, 128, 192, 256, 384, 512 and 768 bytes. Whether there is one.

 # Safety
 `alloc` is an allocator or null; `out` may be written to or is null.
 */
bool get_perf_counters(SlabAllocator *alloc,
                       uint32_t size_class,
                       PerfCounters *out);

/*
 The whole allocator. Whether there is one.

 # Safety
 `alloc` is an allocator or null; `out` may be written to or is null.
 */
bool slab_stats_global(SlabAllocator *alloc, SlabGlobalStats *out);

/*
 A size class, from 0: first those of objects that are known by pointers, then those with handles. Whether there is
 one of this number.

 # Safety
 `alloc` is an allocator or null; `out` may be written to or is null.
 */
bool slab_stats_class(SlabAllocator *alloc,
                      uint32_t class_,
                      SlabClassStats *out);

/*
 An epoch. Whether there is one at this position.

 # Safety
 `alloc` is an allocator or null; `out` may be written to or is null.
 */
bool slab_stats_epoch(SlabAllocator *alloc, EpochId epoch, SlabEpochStats *out);

/*
 What the process has resident, in bytes. 0 where the system does not tell.
 */
uint64_t read_rss_bytes_linux(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TEMPORAL_SLAB_H */
