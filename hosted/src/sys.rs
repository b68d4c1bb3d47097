//! The system calls that this crate is made of. Each function is one call and says what it came to;
//! nothing here allocates, for all of it runs inside the allocator. And nothing changes `errno`: a program
//! may free between its own call and its look at what that left there.

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// What the kernel calls a page.
pub(crate) fn page_size() -> usize {
    /// The answer, which is always the same. `Relaxed`: whoever finds none asks again.
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    let known = PAGE.load(Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: a question without side effects.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let size = usize::try_from(size).unwrap_or(4096);
    PAGE.store(size, Relaxed);
    size
}

/// A new private mapping, at `hint` if there is room.
pub(crate) fn map(hint: *mut u8, size: usize) -> Option<NonNull<u8>> {
    let _errno = KeepErrno::new();
    // SAFETY: without MAP_FIXED nothing that exists is touched.
    let base = unsafe {
        libc::mmap(
            hint.cast(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return None;
    }
    NonNull::new(base.cast())
}

/// Takes a mapping away; whether that worked. It does not where it would split one and there are too
/// many.
///
/// # Safety
/// The bytes are whole pages that were mapped here, and nobody uses them.
pub(crate) unsafe fn unmap(base: *mut u8, size: usize) -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: the caller's promise.
    size == 0 || unsafe { libc::munmap(base.cast(), size) } == 0
}

/// A set of signals that are held back.
#[derive(Clone, Copy)]
pub(crate) struct Signals(libc::sigset_t);

/// Those that come from what the thread itself just did.
const OWN: [i32; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
];

/// Holds this thread's signals back; those that were before.
pub(crate) fn hold_signals() -> Signals {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are places for one, the first is made by the first call, and the last call, which cannot fail
    // with these arguments, writes the second.
    unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        for signal in OWN {
            libc::sigdelset(all.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        Signals(before.assume_init())
    }
}

/// Holds these signals of this thread back, and no others.
pub(crate) fn set_signals(signals: &Signals) {
    // SAFETY: the set is one; it cannot fail with these arguments.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const signals.0, ptr::null_mut()) };
}

/// What can be said of pages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Advice {
    /// Their content is lost and their memory goes back now.
    DontNeed,
    /// Their content may be lost and their memory goes back when others want it.
    Free,
    /// Huge pages are welcome.
    Huge,
    /// They are not, from now on.
    Small,
    /// They are to be present and writable.
    PopulateWrite,
}

/// Says something of pages; whether the kernel agreed.
///
/// # Safety
/// The bytes are whole pages that were mapped here, and nobody uses their content if the advice loses it.
pub(crate) unsafe fn advise(base: *mut u8, size: usize, advice: Advice) -> bool {
    let _errno = KeepErrno::new();
    let advice = match advice {
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Free => libc::MADV_FREE,
        Advice::Huge => libc::MADV_HUGEPAGE,
        Advice::Small => libc::MADV_NOHUGEPAGE,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
    };
    loop {
        // SAFETY: the caller's promise.
        if unsafe { libc::madvise(base.cast(), size, advice) } == 0 {
            return true;
        }
        // A populate that a signal interrupts has done a part.
        if errno() != libc::EINTR {
            return false;
        }
    }
}

/// Whether the page at an address, a multiple of its size, is in memory. Nothing, if none is mapped there.
pub(crate) fn is_present(page: usize) -> Option<bool> {
    let _errno = KeepErrno::new();
    let mut told = 0u8;
    let address = ptr::without_provenance_mut(page);
    // SAFETY: it writes a byte for each page that is asked about, which is one, and looks at none.
    let done = unsafe { libc::mincore(address, 1, &raw mut told) } == 0;
    done.then_some(told & 1 == 1)
}

/// Makes a mapping longer or shorter where it is; whether there was room.
///
/// # Safety
/// The bytes are one mapping that was made here, and if it is made shorter nobody uses what goes.
pub(crate) unsafe fn resize_in_place(base: *mut u8, old: usize, new: usize) -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: the caller's promise.
    unsafe { libc::mremap(base.cast(), old, new, 0) != libc::MAP_FAILED }
}

/// Moves the pages of a mapping to `target`, which is taken away first; whether that worked. If not, the
/// old mapping is as it was, and `target` may be gone.
///
/// # Safety
/// Both are mappings that were made here, `target` of `new` bytes and used by nobody.
pub(crate) unsafe fn move_to(base: *mut u8, old: usize, new: usize, target: *mut u8) -> bool {
    let _errno = KeepErrno::new();
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the caller's promise.
    unsafe { libc::mremap(base.cast(), old, new, flags, target) != libc::MAP_FAILED }
}

/// Nanoseconds on a clock that only goes forward.
pub(crate) fn now_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// The same, some milliseconds ago at most: the kernel noted it.
pub(crate) fn recent_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

fn clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is ours.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}

/// A file that is open for reading.
struct Reader(i32);

impl Reader {
    fn open(path: &CStr) -> Option<Self> {
        // SAFETY: the path ends with a zero.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        (file >= 0).then_some(Self(file))
    }

    /// How many bytes were read: none at the file's end.
    fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            // SAFETY: the file is open, and the buffer is ours.
            let read = unsafe { libc::read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
            match usize::try_from(read) {
                Ok(read) => return Some(read),
                Err(_) if errno() == libc::EINTR => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: the file was opened here.
        unsafe { libc::close(self.0) };
    }
}

/// Reads the beginning of a file; what was read.
pub(crate) fn read_file<'b>(path: &CStr, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let _errno = KeepErrno::new();
    let file = Reader::open(path)?;
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => len += read,
        }
    }
    buffer.get(..len).filter(|read| !read.is_empty())
}

/// How often a byte is in a file, of whatever length.
pub(crate) fn count_in_file(path: &CStr, byte: u8) -> Option<usize> {
    let _errno = KeepErrno::new();
    let file = Reader::open(path)?;
    let (mut count, mut buffer) = (0, [0u8; 4096]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Some(count),
            read => count += buffer.iter().take(read).filter(|b| **b == byte).count(),
        }
    }
}

/// Sleeps while `word` is `value`. May return at any time.
pub(crate) fn wait(word: &AtomicU32, value: u32) {
    let _errno = KeepErrno::new();
    // SAFETY: the word is valid; the kernel only reads it.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            value,
            ptr::null::<libc::timespec>(),
        )
    };
}

/// Wakes one who sleeps on `word`.
pub(crate) fn wake_one(word: &AtomicU32) {
    let _errno = KeepErrno::new();
    // SAFETY: only the word's address is used.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        )
    };
}

fn errno() -> i32 {
    // SAFETY: the thread's own place for it.
    unsafe { *libc::__errno_location() }
}

/// Keeps `errno` as it was at the beginning of a function.
struct KeepErrno(i32);

impl KeepErrno {
    fn new() -> Self {
        Self(errno())
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        // SAFETY: as in `errno`.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

/// Says something on standard error and ends the process: for what must not unwind.
#[cold]
pub(crate) fn die(message: &str) -> ! {
    // SAFETY: the message is valid; that it may not be seen changes nothing.
    unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    std::process::abort()
}

/// Which process this is.
pub(crate) fn process() -> i32 {
    // SAFETY: a question without side effects.
    unsafe { libc::getpid() }
}

/// Sockets, for the exporter.
#[cfg(feature = "export")]
mod sockets {
    use core::mem;
    use core::sync::atomic::{AtomicI32, AtomicU8, Ordering};
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    fn checked(result: i32) -> io::Result<i32> {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }

    fn unix_socket(flags: i32) -> io::Result<OwnedFd> {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags;
        // SAFETY: a new descriptor, which nobody else has.
        unsafe { checked(libc::socket(libc::AF_UNIX, kind, 0)).map(|fd| OwnedFd::from_raw_fd(fd)) }
    }

    fn unix_address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
        // SAFETY: zero bytes are an address.
        let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
            let help = format!(
                "{}: the path of a socket has at most {} bytes, and none is zero",
                path.display(),
                address.sun_path.len() - 1
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, help));
        }
        for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
            *place = *byte as libc::c_char;
        }
        Ok((
            address,
            mem::size_of::<libc::sockaddr_un>() as libc::socklen_t,
        ))
    }

    /// Listens on a socket that only this user can connect to, from its first moment on.
    pub(crate) fn private_unix_listener(path: &Path) -> io::Result<UnixListener> {
        let socket = unix_socket(0)?;
        let (address, len) = unix_address(path)?;
        // SAFETY: the descriptor is ours and the address valid. The file that `bind` makes has the mode of the socket.
        unsafe {
            checked(libc::fchmod(socket.as_raw_fd(), 0o600))?;
            checked(libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                len,
            ))?;
            checked(libc::listen(socket.as_raw_fd(), 16))?;
        }
        Ok(UnixListener::from(socket))
    }

    /// Whether a socket's file leads to nobody. One that cannot be reached at the moment is not asked to wait for.
    pub(crate) fn nobody_listens(path: &Path) -> bool {
        let refused =
            || -> io::Result<bool> {
                let socket = unix_socket(libc::SOCK_NONBLOCK)?;
                let (address, len) = unix_address(path)?;
                // SAFETY: the descriptor is ours and the address valid.
                let result =
                    unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) };
                Ok(checked(result)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
            };
        refused().unwrap_or(false)
    }

    /// Waits until one of two descriptors can be read: whether it is the first, and not the second.
    pub(crate) fn wait_for_first(first: RawFd, second: RawFd) -> io::Result<bool> {
        let poll = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut polled = [poll(first), poll(second)];
        loop {
            // SAFETY: the array is ours and this long.
            match checked(unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) }) {
                Ok(_) => return Ok(polled[1].revents == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Descriptors that a child of a fork closes at once, each as its number and 1; 0 where there is none.
    static CLOSED: [AtomicI32; 48] = [const { AtomicI32::new(0) }; 48];

    /// Whether the C library was told: 0 no, 1 yes. `Relaxed`: told twice is no harm.
    static TOLD: AtomicU8 = AtomicU8::new(0);

    /// In a child: nobody there accepts, so nobody is to think that somebody does.
    extern "C" fn close_all() {
        for place in &CLOSED {
            let fd = place.swap(0, Ordering::Relaxed);
            if fd != 0 {
                // SAFETY: the descriptor was the listener's, whose thread is not in this process.
                unsafe { libc::close(fd - 1) };
            }
        }
    }

    /// Descriptors that are closed in children, until this is told to forget them.
    #[derive(Debug)]
    pub(crate) struct ClosedInChildren([RawFd; 3]);

    impl ClosedInChildren {
        pub(crate) fn new(fds: [RawFd; 3]) -> io::Result<Self> {
            if TOLD.swap(1, Ordering::Relaxed) == 0 {
                // SAFETY: a function that may be called in a child.
                let told = unsafe { libc::pthread_atfork(None, None, Some(close_all)) };
                if told != 0 {
                    TOLD.store(0, Ordering::Relaxed);
                    return Err(io::Error::from_raw_os_error(told));
                }
            }
            let noted = Self(fds);
            for fd in fds {
                let is_put = |place: &AtomicI32| {
                    let swap =
                        place.compare_exchange(0, fd + 1, Ordering::Relaxed, Ordering::Relaxed);
                    swap.is_ok()
                };
                if !CLOSED.iter().any(is_put) {
                    noted.forget();
                    return Err(io::Error::other(
                        "there are too many exporters in this program",
                    ));
                }
            }
            Ok(noted)
        }

        pub(crate) fn forget(&self) {
            for fd in self.0 {
                let is_it = |place: &AtomicI32| {
                    let swap =
                        place.compare_exchange(fd + 1, 0, Ordering::Relaxed, Ordering::Relaxed);
                    swap.is_ok()
                };
                let _found = CLOSED.iter().any(is_it);
            }
        }
    }
}

#[cfg(feature = "export")]
pub(crate) use sockets::{ClosedInChildren, nobody_listens, private_unix_listener, wait_for_first};
