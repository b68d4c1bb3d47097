/* temporal-slab for C on bare metal. Made of the source by a test: see hosted/bare. */

#ifndef TEMPORAL_SLAB_BARE_H
#define TEMPORAL_SLAB_BARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 Why a call failed. Each kind has the number that it has in `temporal_slab.h`; 11 is for what only that library can do.
 */
typedef enum {
  /*
   No error.
   */
  SLAB_BARE_ERROR_NONE = 0,
  /*
   A pointer is null that must not be, or a number is out of range.
   */
  SLAB_BARE_ERROR_ARGUMENT = 1,
  /*
   The size is larger than the address space allows; or, of an object with a handle, than 8192 bytes.
   */
  SLAB_BARE_ERROR_SIZE = 2,
  /*
   The epoch is closed.
   */
  SLAB_BARE_ERROR_CLOSED_EPOCH = 3,
  /*
   There is no such epoch, or it cannot be closed.
   */
  SLAB_BARE_ERROR_BAD_EPOCH = 4,
  /*
   The table had no memory.
   */
  SLAB_BARE_ERROR_OUT_OF_MEMORY = 5,
  /*
   What is asked for at once is more than can be counted.
   */
  SLAB_BARE_ERROR_LIMIT = 6,
  /*
   The handle's object is gone, or there never was one.
   */
  SLAB_BARE_ERROR_BAD_HANDLE = 7,
  /*
   No object of this heap begins at the pointer.
   */
  SLAB_BARE_ERROR_BAD_POINTER = 8,
  /*
   The object was freed already.
   */
  SLAB_BARE_ERROR_DOUBLE_FREE = 9,
  /*
   Every position of the ring is open or has live objects.
   */
  SLAB_BARE_ERROR_RING_FULL = 10,
  /*
   The ids of handles are used up.
   */
  SLAB_BARE_ERROR_HANDLES_EXHAUSTED = 12,
  /*
   A defect of the library: please report it.
   */
  SLAB_BARE_ERROR_INTERNAL = 13,
} SlabBareError;

/*
 A heap.
 */
typedef struct SlabBare SlabBare;

/*
 Where pages come from and go back to.
 */
typedef struct {
  /*
   Handed to each function.
   */
  void *context;
  /*
   The size of a page, a power of two; what `decommit` is asked for are whole ones.
   */
  size_t page;
  /*
   Memory of this size, at a multiple of `align`, or null. It stays the heap's until it is released.
   */
  void *(*acquire)(void *context, size_t size, size_t align);
  /*
   Takes it back, whole.
   */
  void (*release)(void *context, void *base, size_t size);
  /*
   Takes what is behind pages back, which stay the heap's and may be written to again; whether it did. May be null:
   then memory goes back in whole chunks only.
   */
  bool (*decommit)(void *context, void *base, size_t size);
} SlabPages;

/*
 A position of the ring, from 0: the first epoch's, which is never closed. There are 32.
 */
typedef uint32_t SlabBareEpoch;

/*
 A name of an object that can be kept after the object is gone. Zero is none.
 */
typedef uint64_t SlabBareHandle;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The bytes that a heap itself needs, for [`slab_bare_create`].
 */
size_t slab_bare_size(void);

/*
 What the memory for a heap is to be aligned to.
 */
size_t slab_bare_align(void);

/*
 Makes a heap in `memory`. Null if that is too small or not aligned, or the table is not whole. Nothing is acquired yet
 but for the first epoch.

 # Safety
 `memory` has `size` bytes that nobody else uses for as long as the heap, or is null; `pages` is a table whose functions
 do what is said there, or null.
 */
SlabBare *slab_bare_create(void *memory,
                           size_t size,
                           const SlabPages *pages);

/*
 Ends a heap: all of its memory is released, and that which it lies in is the caller's again. Null is fine.

 # Safety
 `heap` is a heap or null, and neither it nor what was allocated in it is used any more.
 */
void slab_bare_destroy(SlabBare *heap);

/*
 Why a call of this heap failed last.

 # Safety
 `heap` is a heap or null.
 */
uint32_t slab_bare_last_error(const SlabBare *heap);

/*
 Allocates in an epoch. `align` is a power of two. Null if it failed.

 # Safety
 `heap` is a heap or null.
 */
void *slab_bare_alloc(SlabBare *heap, size_t size, size_t align, SlabBareEpoch epoch);

/*
 Frees an object. Whether it was one; null is fine.

 # Safety
 `heap` is a heap or null; if `object` is a live object nobody uses it any more.
 */
bool slab_bare_free(SlabBare *heap, void *object);

/*
 How many bytes an object may use. 0 if it is none.

 # Safety
 `heap` is a heap or null.
 */
size_t slab_bare_usable_size(SlabBare *heap, void *object);

/*
 Allocates an object that is known by a handle. Zero if it failed.

 # Safety
 `heap` is a heap or null.
 */
SlabBareHandle slab_bare_alloc_obj(SlabBare *heap, size_t size, SlabBareEpoch epoch);

/*
 Where the object of a handle is, if it lives; else null.

 # Safety
 `heap` is a heap or null.
 */
void *slab_bare_get_obj(SlabBare *heap, SlabBareHandle handle);

/*
 Frees the object of a handle. Whether it lived.

 # Safety
 `heap` is a heap or null; nobody uses the object any more.
 */
bool slab_bare_free_obj(SlabBare *heap, SlabBareHandle handle);

/*
 Begins an epoch beside the current one. `UINT32_MAX` if there is none to be had.

 # Safety
 `heap` is a heap or null.
 */
SlabBareEpoch slab_bare_epoch_open(SlabBare *heap);

/*
 Begins an epoch and makes it current; the one that was is closed, unless it is the first. `UINT32_MAX` if there is none
 to be had.

 # Safety
 `heap` is a heap or null.
 */
SlabBareEpoch slab_bare_epoch_advance(SlabBare *heap);

/*
 The current epoch.

 # Safety
 `heap` is a heap or null.
 */
SlabBareEpoch slab_bare_epoch_current(SlabBare *heap);

/*
 Closes an epoch: what is empty in it goes back now. Whether it did.

 # Safety
 `heap` is a heap or null.
 */
bool slab_bare_epoch_close(SlabBare *heap, SlabBareEpoch epoch);

/*
 Gives everything that is empty back.

 # Safety
 `heap` is a heap or null.
 */
void slab_bare_reclaim(SlabBare *heap);

/*
 Bytes that are held from the table.

 # Safety
 `heap` is a heap or null.
 */
size_t slab_bare_held_bytes(const SlabBare *heap);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TEMPORAL_SLAB_BARE_H */
